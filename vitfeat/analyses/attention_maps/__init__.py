"""Attention of single images, drawn over them."""

from vitfeat.analyses.attention_maps.settings import AttentionMapSettings
from vitfeat.analyses.base import Analysis

ANALYSIS = Analysis("attention_maps", AttentionMapSettings, place=40, own_pass=True)
