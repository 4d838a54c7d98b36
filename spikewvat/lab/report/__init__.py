"""One page of everything that suites have measured: tables, pictures, a summary in words."""

from spikewvat.lab.report.collect import Section, collect
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.page import write_report

__all__ = ["Part", "Picture", "Section", "Table", "collect", "write_report"]
