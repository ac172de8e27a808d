"""Figures across models: by layer, by family, head by head, averages, best layers."""
