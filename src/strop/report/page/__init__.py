"""The report of runs as a page: read what they left, say what it shows, draw it."""

from strop.report.page.write import WrittenReport, write_report

__all__ = ["WrittenReport", "write_report"]
