"""Measurements that anyone can repeat; nothing in `ncf` imports this."""
