"""Pictures and a page of a saved result, and an index of many: reads files only, knows nothing of how a field is found.

The configs name `Reports`, which makes the reports of a run once all its results are saved.
"""

from scripts.report.after import Reports

__all__ = ["Reports"]
