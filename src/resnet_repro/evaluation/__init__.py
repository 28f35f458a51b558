"""Counting errors on held-out images."""
