"""Published numbers: what they are, how they were measured, and whether they come out here."""
