"""Pictures and a page of a saved result. This room reads files only, and knows nothing of how a field is found.

The configs name `Reports`, which makes the reports of a run once all its results are saved.
"""

from ncf.report.after import Reports

__all__ = ["Reports"]
