"""Suites of recipes: which rows a table has, running their cells, the table."""

from spikewvat.bench.claims import Verdict, verdicts
from spikewvat.bench.methods import Method, Steps
from spikewvat.bench.own import BenchResult, bench
from spikewvat.bench.runner import (
    Cell,
    CellFailed,
    Found,
    Job,
    SuiteResult,
    Training,
    cells_of,
    run_suite,
    trainings_of,
)
from spikewvat.bench.suite import Claim, Row, Setup, Suite, read_suite
from spikewvat.bench.table import RowResult, markdown

__all__ = [
    "BenchResult",
    "Cell",
    "CellFailed",
    "Claim",
    "Found",
    "Job",
    "Method",
    "Row",
    "RowResult",
    "Setup",
    "Steps",
    "Suite",
    "SuiteResult",
    "Training",
    "Verdict",
    "bench",
    "cells_of",
    "markdown",
    "read_suite",
    "run_suite",
    "trainings_of",
    "verdicts",
]
