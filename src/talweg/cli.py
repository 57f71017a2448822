"""The command line: one function per command, every setting derived from the dataclasses."""

# No "from __future__ import annotations" here: tyro reads the annotations of functions made inside functions.

import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from talweg import verbs
from talweg.arguments import default_recipe, file_task, name_of, positional, run_command
from talweg.data.pack import pack as pack_images
from talweg.errors import UserError, unknown
from talweg.layout import Layout
from talweg.optimizers import RULES
from talweg.recipe import Recipe, Samples
from talweg.report.bar import Bar
from talweg.report.schedule_plot import plot_schedule, sketch
from talweg.run import Run
from talweg.schedules import SCHEDULES
from talweg.show import show as draw_sheet
from talweg.tasks import TASKS, TaskSource, load_task
from talweg.version import VERSION

USAGE_ERROR, FAILED, INTERRUPTED = 2, 1, 130
EXIT_CODES = {"finished": 0, "failed": FAILED, "interrupted": INTERRUPTED}

RunFolder = Annotated[Positional[Path], arg(metavar="RUN")]
Action = Callable[[], int]


def train(words: Sequence[str]) -> int:
    """train a task; leaves a run folder with the best weights, curves and a verdict"""
    loaded = file_task(words)
    default = default_recipe(words, loaded.recipe if loaded else None)
    optimizers, schedules = Literal[tuple(sorted(RULES))], Literal[tuple(sorted(SCHEDULES))]

    def command(
        task: Annotated[Positional[str], arg(metavar="TASK")],
        settings: Recipe = default,
        layout: Layout = Layout(),  # noqa: B008 (frozen)
        data: str = "",
        model: str = "",
        recipe: str = "",
        optimizer: optimizers = name_of(default.optimizer, RULES),  # type: ignore[valid-type]  # noqa: B008
        schedule: schedules = name_of(default.schedule, SCHEDULES),  # type: ignore[valid-type]  # noqa: B008
        out: Path = Path("runs"),
        quiet: bool = False,
    ) -> Action:
        """Train a task and leave a run folder: the best weights, the picture, the page and a verdict in words.

        Args:
            task: a built-in name (see `talweg tasks`) or path/to/file.py:name
            settings: how to learn
            layout: where to train
            data: folder or file of the data, for built-in tasks that need one
            model: another model than a built-in task's own, such as resnet56
            recipe: a TOML file of the settings below; single flags win over it
            optimizer: the update rule; its own settings stand below
            schedule: the course of the learning rate; its own settings stand below
            out: where the run folder is made
            quiet: print nothing
        """
        source = TaskSource(name=task, data=data, model=model)
        return lambda: _code(verbs.train(loaded or source, settings, layout, out=out, quiet=quiet))

    return run_command("train", command, words)


def resume(words: Sequence[str]) -> int:
    """go on with a run that was stopped or killed, as if it had never stopped"""

    folder = positional(words)
    default = Run.open(folder).layout if folder else Layout()

    def command(run: RunFolder, layout: Layout = default, quiet: bool = False) -> Action:
        """Go on with a run that was stopped or killed, from its newest whole checkpoint, as if it had never stopped.

        Args:
            run: the run folder
            layout: where to go on; another place than before gives the same result up to rounding
            quiet: print nothing
        """
        return lambda: _code(verbs.resume(run, layout=layout, quiet=quiet))

    return run_command("resume", command, words)


def evaluate(words: Sequence[str]) -> int:
    """loss and metrics of a run's best weights"""

    def command(
        run: RunFolder, data: Literal["validation", "test", "train"] = "validation", device: str = "auto"
    ) -> Action:
        """Loss and metrics of a run's best weights; every sample counts once.

        Args:
            run: the run folder
            data: which of the task's data
            device: where: auto, cpu, cuda, cuda:1, mps
        """

        def action() -> int:
            values = verbs.evaluate(run, data=data, device=device)
            print(f"{data}: " + "  ".join(f"{name} {value:.6g}" for name, value in values.items()))
            return 0

        return action

    return run_command("evaluate", command, words)


def schedule(words: Sequence[str]) -> int:
    """draw a learning-rate schedule before training with it"""
    name = positional(words) or "cosine"
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    default = SCHEDULES[name]()

    def command(
        name: Annotated[Positional[str], arg(metavar="SCHEDULE", help=f"one of {', '.join(sorted(SCHEDULES))}")],
        settings: type(default) = default,  # type: ignore[valid-type]
        lr: float = 1.0,
        epochs: float = 0.0,
        plot: str = "",
    ) -> Action:
        """Draw a learning-rate schedule before training with it: in the terminal, or as a picture with --plot.

        Args:
            settings: settings of this schedule
            lr: the peak learning rate
            epochs: length of the training, for the axis (0: progress from 0 to 1)
            plot: write a PNG picture to this path
        """

        def action() -> int:
            if plot:
                print(f"wrote {plot_schedule(settings, plot, lr=lr, epochs=epochs or None)}")
            else:
                print(sketch(settings))
            return 0

        return action

    return run_command("schedule", command, words)


def show(words: Sequence[str]) -> int:
    """draw a sheet of augmented training samples: look before you train"""
    loaded = file_task(words)
    default = default_recipe(words, loaded.recipe if loaded else None).samples

    def command(
        task: Annotated[Positional[str], arg(metavar="TASK")],
        samples: Samples = default,
        data: str = "",
        recipe: str = "",
        seed: int = 0,
        out: str = "",
    ) -> Action:
        """Draw a sheet of training samples, as stored and as augmented, and what normalisation does to them.

        Args:
            task: a built-in name (see `talweg tasks`) or path/to/file.py:name
            samples: how the samples are shown
            data: folder or file of the data, for built-in tasks that need one
            recipe: a TOML file; single flags win over it
            seed: of the augmentation
            out: the picture (default: TASK.png)
        """

        def action() -> int:
            found = loaded or load_task(TaskSource(name=task, data=data))
            print(
                f"wrote {draw_sheet(found.task, Recipe(seed=seed, samples=samples), out or f'{found.task.name}.png')}"
            )
            return 0

        return action

    return run_command("show", command, words)


def pack(words: Sequence[str]) -> int:
    """decode a folder of images once into arrays that train at memory speed"""

    def command(
        root: Annotated[Positional[Path], arg(metavar="ROOT")],
        out: Annotated[Positional[Path], arg(metavar="OUT")],
        size: int = 0,
        channels: Literal[0, 1, 3] = 0,
        validation: float = 0.1,
        workers: int = 0,
        on_corrupt: Literal["refuse", "skip"] = "refuse",
        quiet: bool = False,
    ) -> Action:
        """Decode a folder of images, one folder a class, into arrays on disk that train at memory speed.

        Args:
            root: holds train/<class>/ and validation/<class>/, or <class>/
            out: the folder of the pack; train with: talweg train images --data OUT
            size: side in pixels: images are resized to cover the square and cut at the centre (0: all have one size)
            channels: 1 (grey) or 3 (colour) converts all images (0: all have the same number)
            validation: fraction held out, where ROOT has no folder for it
            workers: decoding processes (0: one a core)
            on_corrupt: stop at a file that cannot be read, or leave it out and list it
            quiet: no progress bar
        """

        def action() -> int:
            with Bar("packing", quiet=quiet) as bar:
                packed = pack_images(
                    root,
                    out,
                    size=size or None,
                    channels=channels or None,
                    validation=validation,
                    workers=workers,
                    on_corrupt=on_corrupt,
                    progress=bar,
                )
            print(packed.words())
            return 0

        return action

    return run_command("pack", command, words)


def tasks(words: Sequence[str]) -> int:
    """list the built-in tasks"""

    def command() -> Action:
        """List the built-in tasks."""

        def action() -> int:
            for name, task in TASKS.items():
                print(f"{name:<10}{task.about}" + (f"\n{'':<10}needs --data: {task.needs}" if task.needs else ""))
            print(
                "\nYour own: talweg train path/to/file.py:NAME, where NAME is a talweg.Task or a function that makes one."
            )
            return 0

        return action

    return run_command("tasks", command, words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "schedule": schedule,
    "show": show,
    "pack": pack,
    "tasks": tasks,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The `talweg` command: a mistake is one line and exit code 2, no traceback (TALWEG_TRACEBACK=1 shows it)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the output cannot hold an η, a ? stands for it
    try:
        code = _run(words)
        sys.stdout.flush()  # here, where a closed pipe is caught, not when the interpreter ends
        sys.exit(code)
    except UserError as error:
        if os.environ.get("TALWEG_TRACEBACK"):
            raise
        print(f"talweg: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    except KeyboardInterrupt:
        print("talweg: stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _run(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        print(f"talweg {VERSION}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        lines = [f"  {name:<10}{function.__doc__}" for name, function in COMMANDS.items()]
        print("usage: talweg COMMAND ...\n\n" + "\n".join(lines))
        print("\nFirst run: talweg train digits      Help on a command: talweg COMMAND --help")
        return 0 if words else USAGE_ERROR
    if words[0] not in COMMANDS:
        raise unknown("command", words[0], COMMANDS)
    return COMMANDS[words[0]](words[1:])


def _code(run: Run) -> int:
    return EXIT_CODES[run.summary["status"]]
