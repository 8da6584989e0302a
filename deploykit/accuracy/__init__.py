"""Accuracy on labelled images: reading them, and top-1."""
