"""A bench of several processes that is interrupted, and one of whose processes is killed."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest
from test_cli import call, error

from spikewvat.lab.suites import pool
from spikewvat.results import RowResult
from spikewvat.serialisation import plain, read

RECIPE = """
name = "small"
[data]
name = "embedded"
per_class = 2
time_steps = 2
[model]
name = "snntorch-cnn"
channels = [2]
stride = 4
[training]
epochs = 100
batch_size = 10
accelerator = "cpu"
[method]
name = "hsv"
device = "gaussian:sigma=0.05"
[evaluation]
sigmas = [0.0, 0.1]
chips = 2
"""
SUITE = """
title = "Small"
[seeds]
quick = [0, 1]
[[setups]]
name = "CNN"
rows = [{ method = "HSV", recipe = "small.toml" }]
"""


@pytest.fixture
def suite(tmp_path, embedded_data):
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "suite.toml").write_text(SUITE)
    (folder / "small.toml").write_text(RECIPE)
    return folder


@pytest.fixture
def straight(suite, tmp_path):
    """Return what comes out where nothing goes wrong."""
    call("bench", suite, "--out", tmp_path / "straight", "--jobs", 1)
    return outcome(tmp_path / "straight")


def outcome(out):
    return [plain(c) for c in read(out / "small" / "small.json", RowResult).curves]


def at_work(out):
    """Wait until a training has made an epoch, and return its process."""
    for _ in range(30_000):
        for path in (out / "trained").glob("*/checkpoint.safetensors"):
            running = path.parent / pool.RUNNING
            working = running.read_text() if running.exists() else ""
            if working.strip() and alive(int(working)):  # not one that was killed
                return int(working)
        time.sleep(0.01)
    raise AssertionError("no training has begun")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def begun(suite, out):
    """Start a bench of two processes in a session of its own."""
    command = [sys.executable, "-m", "spikewvat", "bench", str(suite), "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [*command, "--jobs", "2"],
        start_new_session=True,
        text=True,
        # Tests that run in the background have inherited that SIGINT is ignored.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        **pipes,
    )


def test_ctrl_c_loses_nothing_that_was_done(suite, straight, tmp_path):
    out = tmp_path / "runs"
    process = begun(suite, out)
    worker = at_work(out)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted: 0 of 4 trainings and tests are done" in stderr
    assert "Traceback" not in stderr
    for _ in range(600):  # its parent may have to take notice
        if not alive(worker):
            break
        time.sleep(0.05)
    assert not alive(worker)
    call("bench", suite, "--out", out, "--jobs", 1)
    assert outcome(out) == straight


@pytest.mark.slow
def test_a_killed_process_of_a_bench(suite, straight, tmp_path):
    out = tmp_path / "runs"
    process = begun(suite, out)
    os.kill(at_work(out), signal.SIGKILL)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "Written" in stdout
    assert outcome(out) == straight


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as made:
            yield made


@pytest.mark.slow
def test_a_dask_cluster_one_of_whose_workers_is_killed(suite, straight, tmp_path, cluster):
    out = tmp_path / "runs"
    killed = []

    def kill():
        killed.append(at_work(out))
        os.kill(killed[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    done = call("bench", suite, "--out", out, "--dask", cluster.scheduler_address)
    thread.join()
    assert killed
    assert killed[0] != os.getpid()
    assert "Written" in done.stdout
    assert outcome(out) == straight


def test_wrong_clusters(suite, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("spikewvat.lab.suites.pool._PATIENCE", 0.2)
    out = ("--out", tmp_path / "runs")
    assert "no scheduler answers there" in error("bench", suite, "--dask", "127.0.0.1:9", *out)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
    ) as made:
        line = error("bench", suite, "--dask", made.scheduler_address, *out)
    assert "has 2 threads, expected 1" in line


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_bench_leaves_no_process_behind(suite, straight, tmp_path, benchmark_script):
    kills = benchmark_script("kills")
    out = tmp_path / "runs"
    process = begun(suite, out)
    at_work(out)
    workers = kills.descendants(process.pid)
    assert workers
    process.kill()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in workers if kills.running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.communicate(timeout=20)
    assert left == []
    call("bench", suite, "--out", out, "--jobs", 1)
    assert outcome(out) == straight


@pytest.mark.slow
def test_killed_trainings_go_on_as_if_nothing_had_happened(
    embedded_data, tmp_path, benchmark_script
):
    kills, wrong = benchmark_script("kills").trainings(3, random.Random(0), tmp_path)
    assert kills >= 3
    assert not wrong
