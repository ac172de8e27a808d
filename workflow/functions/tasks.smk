# Settings, targets and needs: all tasks together: one table, and figures.
