"""Measurements of parts of this program against what others use."""
