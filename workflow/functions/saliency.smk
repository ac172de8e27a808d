# Settings, targets and needs: the most attended tokens against annotated masks.
