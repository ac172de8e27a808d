"""The most attended tokens against annotated masks."""
