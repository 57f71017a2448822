"""Freed memory: kept by the process, so that the next step causes no page faults."""

import platform
import subprocess
import sys

import pytest

# Page faults of a round that allocates, fills and frees 6 tensors of 8 MiB (2,048 pages each), after two warm-up rounds.
ROUND = """
import resource, torch
{setting}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def one_round():
    kept = [torch.ones(2 << 20) for _ in range(6)]
for _ in range(2):
    one_round()
before = faults()
one_round()
print(faults() - before)
"""
KEEP = "from talweg.memory import keep_freed_memory; assert keep_freed_memory().value == 'kept'"


def page_faults(setting: str) -> int:
    code = ROUND.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_freed_memory_is_kept():
    """Without the setting most pages are mapped anew in each round; with it few, while the heap finds its size, or none."""
    assert page_faults(KEEP) < page_faults("") / 2


@pytest.mark.skipif(platform.libc_ver()[0] == "glibc", reason="glibc has the setting")
def test_other_allocators_are_left_alone():
    from talweg.memory import keep_freed_memory

    assert keep_freed_memory() is None
