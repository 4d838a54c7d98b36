"""One page with the results of all suites: tables, pictures and a summary."""

from spikewvat.lab.report.collect import Section, collect
from spikewvat.lab.report.content import Part, Picture, Table
from spikewvat.lab.report.page import write_report

__all__ = ["Part", "Picture", "Section", "Table", "collect", "write_report"]
