# All tasks together: one table, and figures.
