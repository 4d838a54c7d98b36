"""Memory that is freed stays in the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from spikewvat.memory import keep_freed_memory

FAULTS = """
import resource, torch
from spikewvat.memory import keep_freed_memory
{first}
def step():
    for _ in range(3):
        torch.zeros(2**24).add_(1)  # 64 MiB: glibc never keeps so large a block by itself
for _ in range(3):  # until blocks have found their places in the heap
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    program = FAULTS.format(first=first)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_blocks_are_not_taken_anew():
    assert faults("") > 10 * faults("assert keep_freed_memory()")


def test_elsewhere_nothing_happens(monkeypatch):
    def no_library(name):
        raise TypeError("LoadLibrary() argument 1 must be str, not None")  # as on Windows

    monkeypatch.setattr("ctypes.CDLL", no_library)
    monkeypatch.delattr("os.confstr")
    assert keep_freed_memory() is False

    def unknown(name):
        raise ValueError("unrecognized configuration name")  # as on macOS

    monkeypatch.setattr("os.confstr", unknown, raising=False)
    assert keep_freed_memory() is False
    monkeypatch.setattr("os.confstr", lambda name: None)  # as with musl
    assert keep_freed_memory() is False
