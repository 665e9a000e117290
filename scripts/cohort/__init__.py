"""Many pairs, one after another or side by side: planned, resumed, registered, collected. Only paths leave a process."""
