"""Memory that is freed stays in the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from spikewvat.lab.memory import keep_freed_memory
{first}
def step():
    for _ in range(3):
        torch.zeros(2**24).add_(1)  # 64 MiB: glibc never keeps so large a block by itself
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
