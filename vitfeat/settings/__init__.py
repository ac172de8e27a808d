"""What settings are made of: models that say each key once."""
