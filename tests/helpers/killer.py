"""A process that has everything imported and forks a child for each command, so that killing one costs no start-up.

Reads one JSON object a line and answers each with the child's exit status (-9: killed):

    words: the command line of talweg
    log: file for what the child prints
    every: seconds between checkpoints inside an epoch
    delay: seconds from its start to SIGKILL, where it shall be killed
    place, nth: the file operation, such as "replace step-*.json", at whose nth time it kills itself
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


class Trap:
    """Kills its own process at the nth file operation that fits a pattern."""

    def __init__(self, pattern: str, nth: int) -> None:
        self.pattern, self.left = pattern, nth

    def reach(self, operation: str, path: object) -> None:
        name = Path(str(path)).name
        if name.endswith(".tmp"):  # a temporary file counts as the one that it will become
            name = name.removeprefix(".").removesuffix(".tmp")
        if fnmatch(f"{operation} {name}", self.pattern):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before(self, operation: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def trapped(*arguments: Any, **options: Any) -> Any:
            self.reach(operation, arguments[-1])
            return function(*arguments, **options)

        return trapped

    def opening(self, path: Any, mode: str) -> Any:
        """`open`, with a file that is written in two halves."""
        file, trap = open(path, mode), self  # noqa: SIM115 (its user closes it)
        write = file.write

        class Halves:
            def __enter__(self) -> Halves:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

            def write(self, data: bytes) -> None:
                write(data[: len(data) // 2])
                file.flush()
                trap.reach("write", path)
                write(data[len(data) // 2 :])

        return Halves()


def child(order: dict[str, Any]) -> int:
    """Runs a command in this process; its exit code."""
    from talweg import checkpoint, verbs
    from talweg.cli import main

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if "place" in order:
        trap = Trap(order["place"], order["nth"])
        os.replace = trap.before("replace", os.replace)
        os.unlink = trap.before("unlink", os.unlink)
        checkpoint.open = trap.opening
    verbs.CHECKPOINT_SECONDS = order["every"]
    try:
        main(order["words"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def serve() -> None:
    """Answers orders until there are no more."""
    import torch

    import talweg.cli  # noqa: F401 (imported here, so that no child has to)
    from talweg.report import plot_curves

    torch.set_num_threads(1)
    plot_curves([], Path(sys.argv[1]) / "nothing.png", title="imports matplotlib")
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = child(order)
            finally:
                sys.stdout.flush()
                os._exit(code)
        if "delay" in order:
            time.sleep(order["delay"])
            os.kill(pid, signal.SIGKILL)  # one that has ended waits as a zombie, so its number is nobody else's
        status = os.waitpid(pid, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
