"""Formats of points and surfaces, one file each: what ``ncf apply --to=points`` reads and writes.

A module here says in ``FORMATS`` what the format is called, which files it reads, and in one sentence what it is.
Commands, their help and the tests find it there (`ncf.io.points.table`).
"""
