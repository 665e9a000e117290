"""The commands, one a file: each only stacks configs and overrides, or calls what reads and writes files."""
