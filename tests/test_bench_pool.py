"""Cells in processes that are killed, interrupted, or in somebody else's hands."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

import pytest
from bench_worker import Job

from spikewvat import files
from spikewvat.lab.suites import CellFailed, locks
from spikewvat.lab.suites.pool import Pool


def results(pool, jobs):
    with pool:
        return {job.name: found for job, found in pool.run(jobs)}


def test_a_killed_process_loses_nothing_that_was_finished(tmp_path):
    jobs = [Job("first"), Job("dies-once", deaths=1), *(Job(f"j{n}") for n in range(4))]
    found = results(Pool(tmp_path, jobs=2), jobs)
    assert set(found) == {job.name for job in jobs}
    assert all(found[job.name].method == job.name for job in jobs)
    assert len(jobs[1].runs(tmp_path)) == 2
    assert found["dies-once"].run == jobs[1].runs(tmp_path)[1]
    again = results(Pool(tmp_path, jobs=2), jobs)  # all is done
    assert {n: r.run for n, r in again.items()} == {n: r.run for n, r in found.items()}
    assert len(jobs[1].runs(tmp_path)) == 2


def test_a_cell_that_kills_its_process_again_is_given_up(tmp_path):
    # The innocent one runs beside it each time, as long as the deadly one can start.
    deadly = Job("deadly", deaths=9)
    innocent = Job("innocent", seconds=1.0)
    jobs = [deadly, innocent, Job("later")]
    found = results(Pool(tmp_path, jobs=2), jobs)
    assert isinstance(found["deadly"], CellFailed)
    assert "was killed again while no other cell ran" in found["deadly"].message
    assert found["deadly"].message in found["deadly"].log.read_text()
    assert len(deadly.runs(tmp_path)) == 2
    assert found["innocent"].method == "innocent"
    assert found["later"].method == "later"


def test_processes_that_die_before_they_begin_are_not_tried_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "was_cut_off", lambda folder: False)
    jobs = [Job("a", deaths=9), Job("b", deaths=9)]
    found = results(Pool(tmp_path, jobs=2), jobs)
    assert all(isinstance(found[name], CellFailed) for name in "ab")


def test_a_cell_of_another_bench_is_waited_for_and_read(tmp_path):
    go = tmp_path / "go"
    shared, other = Job("shared", wait_for=go), Job("other")
    first: dict = {}
    thread = threading.Thread(target=lambda: first.update(results(Pool(tmp_path), [shared])))
    thread.start()
    while not shared.runs(tmp_path):
        pass
    ends = []
    with Pool(tmp_path) as second:
        for job, found in second.run([shared, other]):
            ends.append((job.name, found))
            go.touch()
    thread.join()
    assert [name for name, _ in ends] == ["other", "shared"]  # what is free comes first
    assert ends[1][1] == first["shared"]
    assert len(shared.runs(tmp_path)) == 1


def test_a_lock_ends_with_its_process(tmp_path):
    code = (
        "import os, pathlib, sys, time; from spikewvat.lab.suites import locks\n"
        "with locks.held(pathlib.Path(sys.argv[1]), wait=False) as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    with locks.held(tmp_path, wait=False) as mine:
        assert not mine
    assert not locks.was_cut_off(tmp_path)  # it is still at work
    process.kill()
    process.wait()
    process.stdout.close()
    assert locks.was_cut_off(tmp_path)
    with locks.held(tmp_path, wait=False) as mine:
        assert mine
    assert not locks.was_cut_off(tmp_path)
    assert not locks.was_cut_off(tmp_path / "gone")


def test_a_full_disk_is_a_failed_cell(tmp_path, monkeypatch):
    jobs = [Job("a"), Job("b"), Job("c")]
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if 2 < len(calls) <= 6:  # a file and its folder are flushed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(files.os, "fsync", full)
    found = results(Pool(tmp_path), jobs)
    monkeypatch.undo()
    assert found["a"].method == "a"
    assert "No space left on device" in found["b"].message
    assert list((tmp_path / "b").glob("*.tmp")) == []
    again = results(Pool(tmp_path), jobs)
    assert len(jobs[0].runs(tmp_path)) == 1
    assert all(again[name].method == name for name in "abc")
    assert not (tmp_path / "b" / "error.txt").exists()


def test_a_folder_that_cannot_be_made_is_a_failed_cell(tmp_path):
    (tmp_path / "a").write_text("a file is in the way")
    found = results(Pool(tmp_path), [Job("a"), Job("b")])
    assert "FileExistsError" in found["a"].message
    assert found["b"].method == "b"


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_an_unreadable_result_is_made_anew(content, tmp_path):
    job = Job("a")
    job.folder(tmp_path).mkdir()
    (job.folder(tmp_path) / "result.json").write_text(content)
    assert results(Pool(tmp_path), [job])["a"].method == "a"
