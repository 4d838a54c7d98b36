"""Suites of recipes: which rows a table has, running their cells, the table."""

from spikewvat.bench.methods import Method, Steps
from spikewvat.bench.own import BenchResult, bench
from spikewvat.bench.runner import Cell, CellFailed, Found, SuiteResult, cells_of, run_suite
from spikewvat.bench.suite import Row, Setup, Suite, read_suite
from spikewvat.bench.table import RowResult, markdown

__all__ = [
    "BenchResult",
    "Cell",
    "CellFailed",
    "Found",
    "Method",
    "Row",
    "RowResult",
    "Setup",
    "Steps",
    "Suite",
    "SuiteResult",
    "bench",
    "cells_of",
    "markdown",
    "read_suite",
    "run_suite",
]
