"""What a config comes to, known before anything runs: jobs, needs, flaws, disk."""
