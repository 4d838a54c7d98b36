"""Jobs in processes that are killed, interrupted, or in somebody else's hands."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import warnings

import pytest
from bench_worker import Job

from spikewvat import files
from spikewvat.lab.suites import JobFailed, pool
from spikewvat.lab.suites.pool import run_all


def results(out, jobs, processes=1):
    return {job.name: found for job, found in run_all(jobs, out, processes=processes)}


def test_a_killed_process_loses_nothing_that_was_finished(tmp_path):
    jobs = [Job("first"), Job("dies-once", deaths=1), *(Job(f"j{n}") for n in range(4))]
    found = results(tmp_path, jobs, 2)
    assert set(found) == {job.name for job in jobs}
    assert all(found[job.name].method == job.name for job in jobs)
    assert len(jobs[1].runs(tmp_path)) == 2
    assert found["dies-once"].run == jobs[1].runs(tmp_path)[1]
    again = results(tmp_path, jobs, 2)  # all is done
    assert {n: r.run for n, r in again.items()} == {n: r.run for n, r in found.items()}
    assert len(jobs[1].runs(tmp_path)) == 2


def test_a_job_that_kills_its_process_again_is_given_up(tmp_path):
    # The innocent one runs beside it each time, as long as the deadly one can start.
    deadly = Job("deadly", deaths=9)
    innocent = Job("innocent", seconds=1.0)
    jobs = [deadly, innocent, Job("later")]
    found = results(tmp_path, jobs, 2)
    assert isinstance(found["deadly"], JobFailed)
    assert "was killed again while no other job ran" in found["deadly"].message
    assert found["deadly"].message in found["deadly"].log.read_text()
    assert len(deadly.runs(tmp_path)) == 2
    assert found["innocent"].method == "innocent"
    assert found["later"].method == "later"


@pytest.mark.slow
def test_a_job_that_kills_workers_of_a_cluster_is_given_up(tmp_path):
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    deadly = Job("deadly", deaths=9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        with (
            dask.config.set({"distributed.scheduler.allowed-failures": 0}),
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
            ) as cluster,
        ):
            jobs = [deadly, Job("innocent", seconds=1.0), Job("later")]
            ended = run_all(jobs, tmp_path, dask=cluster.scheduler_address)
            found = {job.name: what for job, what in ended}
    assert "was killed again while no other job ran" in found["deadly"].message
    assert len(deadly.runs(tmp_path)) == 2
    assert found["innocent"].method == "innocent"
    assert found["later"].method == "later"


def test_processes_that_die_before_they_begin_are_not_tried_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "RUNNING", "never-there")
    jobs = [Job("a", deaths=9), Job("b", deaths=9)]
    found = results(tmp_path, jobs, 2)
    assert all(isinstance(found[name], JobFailed) for name in "ab")


def test_a_job_of_another_bench_is_waited_for_and_read(tmp_path):
    go = tmp_path / "go"
    shared, other = Job("shared", wait_for=go), Job("other")
    first: dict = {}
    thread = threading.Thread(target=lambda: first.update(results(tmp_path, [shared])))
    thread.start()
    while not shared.runs(tmp_path):
        pass
    ends = []
    for job, found in run_all([shared, other], tmp_path):
        ends.append((job.name, found))
        go.touch()
    thread.join()
    assert [name for name, _ in ends] == ["other", "shared"]  # what is free comes first
    assert ends[1][1].run == first["shared"].run
    assert len(shared.runs(tmp_path)) == 1


def test_a_lock_ends_with_its_process(tmp_path):
    job = Job("slow", wait_for=tmp_path / "go")
    code = (
        "import sys, pathlib; from bench_worker import Job\n"
        "from spikewvat.lab.suites.pool import run_all\n"
        "out = pathlib.Path(sys.argv[1])\n"
        "list(run_all([Job('slow', wait_for=out / 'go')], out))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    while not job.runs(tmp_path):
        pass
    with pytest.raises(pool.filelock.Timeout):
        pool.filelock.FileLock(job.folder(tmp_path) / pool.LOCK, timeout=0).acquire()
    process.kill()
    process.wait()
    assert (job.folder(tmp_path) / pool.RUNNING).read_text() == f"{process.pid}\n"
    (tmp_path / "go").touch()
    assert results(tmp_path, [job])["slow"].run == str(os.getpid())
    assert not (job.folder(tmp_path) / pool.RUNNING).exists()


def test_a_full_disk_is_a_failed_job(tmp_path, monkeypatch):
    jobs = [Job("a"), Job("b"), Job("c")]
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if 2 < len(calls) <= 6:  # a file and its folder are flushed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    found = results(tmp_path, jobs)
    monkeypatch.undo()
    assert found["a"].method == "a"
    assert "No space left on device" in found["b"].message
    assert list((tmp_path / "b").glob("*.tmp")) == []
    again = results(tmp_path, jobs)
    assert len(jobs[0].runs(tmp_path)) == 1
    assert all(again[name].method == name for name in "abc")
    assert not (tmp_path / "b" / "error.txt").exists()


def test_a_folder_that_cannot_be_made_is_a_failed_job(tmp_path):
    (tmp_path / "a").write_text("a file is in the way")
    found = results(tmp_path, [Job("a"), Job("b")])
    assert "FileExistsError" in found["a"].message
    assert found["b"].method == "b"


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_an_unreadable_result_is_made_anew(content, tmp_path):
    job = Job("a")
    job.folder(tmp_path).mkdir()
    (job.folder(tmp_path) / "result.json").write_text(content)
    assert results(tmp_path, [job])["a"].method == "a"
