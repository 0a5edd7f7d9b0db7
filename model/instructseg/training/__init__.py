"""Losses, data mixture and loops for training recipes."""
