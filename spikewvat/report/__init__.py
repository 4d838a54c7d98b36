"""One page of everything that suites have measured: tables, pictures, a summary in words."""

from spikewvat.report.collect import Section, collect
from spikewvat.report.page import write_report

__all__ = ["Section", "collect", "write_report"]
