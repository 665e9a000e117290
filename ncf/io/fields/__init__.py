"""Formats of displacement fields, one file each: what `ncf export` writes and every command reads.

A module here says in ``FORMATS`` what the format is called, which files it writes and reads, and in one sentence what
it is for. Commands, their help and the tests find it there (`ncf.io.fields.table`). Modules load their libraries only
when they are used.
"""
