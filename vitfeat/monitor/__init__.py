"""What a person sees while the workflow runs: Snakemake's logger ``vitfeat``.

It takes Snakemake's records (``handler``), keeps what runs, what is done and how long the rest
takes (``run``), and shows it on a terminal or in plain lines (``screen``).
"""
