"""Measurements anyone can repeat; nothing in `scripts` imports this."""
