"""Suites of recipes: which rows a table has, running their cells, the table."""

from spikewvat.lab.suites.claims import Verdict, verdicts
from spikewvat.lab.suites.compared import ComparisonFolder
from spikewvat.lab.suites.runner import (
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
from spikewvat.lab.suites.suite import Claim, Row, Setup, Suite, read_suite
from spikewvat.lab.suites.table import RowResult, markdown

__all__ = [
    "Cell",
    "CellFailed",
    "Claim",
    "ComparisonFolder",
    "Found",
    "Job",
    "Row",
    "RowResult",
    "Setup",
    "Suite",
    "SuiteResult",
    "Training",
    "Verdict",
    "cells_of",
    "markdown",
    "read_suite",
    "run_suite",
    "trainings_of",
    "verdicts",
]
