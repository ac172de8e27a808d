"""Analyses: functions from arrays to arrays, with files read and written at the edge only."""
