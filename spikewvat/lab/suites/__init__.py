"""Suites of recipes: the rows of a table, their jobs, and the table."""

from spikewvat.lab.suites.claims import Verdict, verdicts
from spikewvat.lab.suites.compared import ComparisonFolder
from spikewvat.lab.suites.jobs import Found, Job, JobFailed, RowJob, Training, jobs_of
from spikewvat.lab.suites.runner import SuiteResult, run_suite, trainings_of
from spikewvat.lab.suites.suite import Claim, Row, Setup, Suite, read_suite
from spikewvat.lab.suites.table import markdown

__all__ = [
    "Claim",
    "ComparisonFolder",
    "Found",
    "Job",
    "JobFailed",
    "Row",
    "RowJob",
    "Setup",
    "Suite",
    "SuiteResult",
    "Training",
    "Verdict",
    "jobs_of",
    "markdown",
    "read_suite",
    "run_suite",
    "trainings_of",
    "verdicts",
]
