"""Other registration programs, each behind one function.

Nothing here imports `ncf`, so it runs in their environment.
"""
