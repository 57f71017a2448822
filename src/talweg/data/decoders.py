"""Processes that decode image files side by side: threads would wait for Python's lock."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

import talweg.data.decode as decode
from talweg.errors import UserError

Block = TypeVar("Block")


class Decoders:
    """A pool of processes that run `talweg.data.decode`: they read files and write pixels, only words pass through pipes.

    Each is a fresh interpreter that imports two libraries and nothing of the caller's: it starts in a tenth of a second,
    shares no locks with the caller's threads, and needs no `if __name__ == "__main__"` in the caller's script. It ends
    when the caller's process ends, however that happens.

    Args:
        count: number of processes.

    Example:
        >>> job = {"folder": "/nowhere", "names": ["a.png"], "size": None, "channels": None, "about": "example"}
        >>> job.update(shape=[8, 8, 3], file="/nowhere/a.npy", offset=0)
        >>> with Decoders(1) as decoders:
        ...     print([answer["failed"] for answer in decoders.map(lambda block: job, [0])])
        ['No such file or directory']
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count)  # a thread waits for each process
        self._processes = [_start() for _ in range(count)]
        self._idle: queue.SimpleQueue[subprocess.Popen[str]] = queue.SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()  # what they were at is not recorded as done
        self._pool.shutdown(cancel_futures=True)
        for process in self._processes:
            with contextlib.suppress(BrokenPipeError), process:  # closes its pipes and waits for its end
                pass

    def map(self, job: Callable[[Block], dict[str, Any]], blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
        """The answers of `decode_block` to the job of each block, in the order of the blocks.

        Raises:
            UserError: a process died.
        """
        return self._pool.map(lambda block: self._ask(job(block)), blocks)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        process = self._idle.get()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        finally:
            self._idle.put(process)  # a dead one too: the next job finds it so, and does not wait for ever
        if not answer:
            code = process.wait()
            raise UserError(
                f"a decoding process ended (exit code {code}) between {job['names'][0]!r} and {job['names'][-1]!r} in "
                f"{job['folder']!r}: out of memory, or a damaged file; run again with fewer workers, what is done is kept"
            )
        found: dict[str, Any] = json.loads(answer)
        return found


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start() -> subprocess.Popen[str]:
    # -P keeps this folder's modules, which have everyday names, from standing before others on the path.
    command = [sys.executable, "-P", "-W", "ignore", decode.__file__]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
