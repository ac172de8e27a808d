"""Attention of single images, drawn over them."""
