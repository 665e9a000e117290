"""Other registration programs, each behind one function; nothing here imports `scripts`, so it runs in their environment."""
