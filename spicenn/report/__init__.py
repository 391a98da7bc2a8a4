"""A study as a page to look at: figures, HTML."""

from spicenn.report.evidence import Evidence, gather
from spicenn.report.numbers import Numbers, numbers
from spicenn.report.page import write_report

__all__ = ["Evidence", "Numbers", "gather", "numbers", "write_report"]
