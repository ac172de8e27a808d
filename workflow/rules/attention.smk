# Attention metrics and maps averaged over images, from the summaries.
