"""Attention metrics, and maps averaged over images."""

from vitfeat.analyses.attention.settings import AttentionSettings
from vitfeat.analyses.base import Analysis

ANALYSIS = Analysis("attention", AttentionSettings, place=30)
