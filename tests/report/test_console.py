"""What a training prints: in a terminal, in a pipe, without colour, in little space, and nothing when quiet."""

from __future__ import annotations

import io
import math
import re
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from talweg.report import Progress, console

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    time = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(console, "perf_counter", lambda: time.now)
    return time


def terminal(width=80, **options):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system="standard", **options)


def play(progress, summary, rows, clock, seconds_per_step=0.01):
    """A whole run, with evaluations that take five seconds each."""
    total, best = summary["steps"], -math.inf
    evaluations = {row["step"]: row for row in rows if row["kind"] == "validation"}
    with progress:
        progress.start(summary, notes=["checkpoint 7 is damaged, went on from checkpoint 6"])
        for index in range(1, total + 1):
            clock.now += seconds_per_step
            progress.step(index, total, index / 23, SimpleNamespace(loss=1 / index, lr=0.01))
            if index in evaluations:
                clock.now += 5.0
                row = evaluations[index]
                progress.evaluation(row, is_best=row["accuracy"] > best)
                best = max(best, row["accuracy"])
        progress.finish("It went well. " * 20, "runs/digits-1", ["report.html", "curves.png"])


@pytest.fixture
def run(story):
    return story(epochs=5, accuracy=lambda e: 0.98 - 0.01 * abs(e - 3))


def test_a_pipe_gets_plain_rows(run, clock):
    file = io.StringIO()
    play(Progress(file=file), *run, clock)
    text = file.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "━" not in text
    assert "  device         cpu      no CUDA or MPS device found\n" in text
    assert "5 epochs × 23 updates of 64 samples" in text
    assert "note: checkpoint 7 is damaged" in text
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if "val loss" in line)
    assert lines[head].split() == ["epoch", "train", "loss", "val", "loss", "accuracy", "lr", "time"]
    table = [line.split() for line in lines[head + 1 : head + 6]]
    assert [row[0] for row in table] == ["1", "2", "3", "4", "5"]
    assert ["★" in row for row in table] == [True, True, True, False, False]
    assert table[2] == ["3", "0.2916", "0.3316", "98.00", "%", "★", "0.01", "1.5", "s"]
    assert all(line == line.rstrip() for line in lines)
    assert "Run folder: runs/digits-1\n  report.html  curves.png\n" in text


def test_a_terminal_gets_a_bar_and_colours_and_its_cursor_back(run, clock):
    screen = terminal()
    play(Progress(console=screen), *run, clock)
    text = screen.file.getvalue()
    assert "━" in text
    assert "\x1b[1;32m  98.00 % ★" in text.replace("   98.00", "  98.00")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert "It went well." in text.split("\x1b[?25h")[1]


def test_the_rate_leaves_evaluations_out_and_the_time_left_does_not(run, clock):
    screen = terminal()
    play(Progress(console=screen), *run, clock)
    lines = [line for line in ESCAPE.sub("", screen.file.getvalue()).splitlines() if "samples/s" in line]
    rates = [float(re.search(r"([\d,.]+) samples/s", line).group(1).replace(",", "")) for line in lines]
    assert rates == pytest.approx([6400] * len(rates), rel=0.02)  # 64 samples each 0.01 s
    # After update 47 of 115, the 46 since the first one took 0.46 s and the two evaluations 10 s.
    at = [line for line in lines if "epoch 2.0/5" in line][-1]
    assert int(re.search(r"(\d+) s left", at).group(1)) == round(68 * 10.46 / 46)


def test_no_color_keeps_the_mark(run, clock, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal()
    play(Progress(console=screen), *run, clock)
    styles = {code for codes in re.findall(r"\x1b\[([\d;]*)m", screen.file.getvalue()) for code in codes.split(";")}
    assert styles <= {"", "0", "1", "2"}, "only bold and dim"
    assert "98.00 % ★" in ESCAPE.sub("", screen.file.getvalue())


@pytest.mark.parametrize("width", [30, 40, 60, 80, 200])
@pytest.mark.parametrize("tty", [False, True])
def test_no_line_is_wider_than_the_terminal(run, clock, width, tty):
    screen = terminal(width) if tty else Console(file=io.StringIO(), width=width)
    play(Progress(console=screen), *run, clock)
    lines = ESCAPE.sub("", screen.file.getvalue()).replace("\r", "\n").splitlines()
    assert max(len(line) for line in lines) <= width
    assert sum("★" in line for line in lines) == 3, "the monitored column stays"


def test_quiet_prints_nothing(run, clock, capsys):
    screen = terminal()
    play(Progress(quiet=True, console=screen), *run, clock)
    play(Progress(quiet=True), *run, clock)
    assert screen.file.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_a_silent_pipe_hears_from_a_long_epoch_once_a_minute(clock):
    file = io.StringIO()
    with Progress(file=file) as progress:
        progress.start({"task": "slow", "batch": 8, "epochs": 2})
        for index in range(1, 201):
            clock.now += 1.0
            progress.step(index, 1000, index / 500, SimpleNamespace(loss=0.5, lr=0.1))
    lines = file.getvalue().splitlines()[3:]
    assert lines == [
        "  epoch 0.1/2    6 %  loss 0.5000  8 samples/s  15:39 left",
        "  epoch 0.2/2   12 %  loss 0.5000  8 samples/s  14:39 left",
        "  epoch 0.4/2   18 %  loss 0.5000  8 samples/s  13:39 left",
    ]


class Counting:
    """An update that counts how often its loss is looked at."""

    lr = 0.1
    looks = 0

    @property
    def loss(self) -> float:
        type(self).looks += 1
        return 0.5


def test_the_loss_is_looked_at_only_when_the_bar_is_redrawn(clock):
    update = Counting()
    with Progress(console=terminal()) as progress:
        for index in range(1, 1001):
            clock.now += 0.001
            progress.step(index, 1000, 0.5, update)
    assert 9 <= Counting.looks <= 11  # one second at ten a second


@pytest.mark.parametrize("kind", ["quiet", "pipe", "terminal"])
def test_a_step_that_does_not_redraw_costs_at_most_two_microseconds(kind):
    options = {"quiet": {"quiet": True}, "pipe": {"file": io.StringIO()}, "terminal": {"console": terminal()}}
    update, best = SimpleNamespace(loss=0.5, lr=0.1), math.inf
    with Progress(**options[kind]) as progress:
        progress.step(1, 10**6, 0.1, update)
        for _ in range(30):
            begin = time.perf_counter()
            for index in range(1000):
                progress.step(index, 10**6, 0.1, update)
            best = min(best, time.perf_counter() - begin)
    assert best / 1000 <= 2e-6


def test_an_error_leaves_the_terminal_in_order(clock):
    screen = terminal()

    def interrupted() -> None:
        with Progress(console=screen) as progress:
            progress.step(1, 10, 0.1, SimpleNamespace(loss=0.5, lr=0.1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert screen.file.getvalue().count("\x1b[?25l") == screen.file.getvalue().count("\x1b[?25h") == 1


class ClosedPipe(io.StringIO):
    def write(self, text):
        raise BrokenPipeError


def test_a_reader_who_goes_away_does_not_end_the_training(run, clock):
    play(Progress(file=ClosedPipe()), *run, clock)
    assert clock.now > 1020, "it ran to its end"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_another_encoding_gets_its_letters(run, clock, encoding):
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding)
    play(Progress(file=file), *run, clock)
    file.flush()
    text = buffer.getvalue().decode(encoding)
    assert "98.00 % *" in text
    assert "5 epochs x 23 updates" in text


def test_markup_in_names_is_shown_as_it_is(clock):
    file = io.StringIO()
    with Progress(file=file) as progress:
        progress.start({"task": "[bold]x[/bold] :smile:", "decisions": [{"name": "[a]", "value": "[b]", "why": "[c]"}]})
    assert file.getvalue() == "[bold]x[/bold] :smile:\n  [a]  [b]  [c]\n\n"


def test_a_new_metric_gets_a_new_heading_and_a_loss_that_is_nan_is_shown(clock):
    file = io.StringIO()
    with Progress(file=file) as progress:
        progress.start({"monitor": {"name": "loss", "higher_is_better": False}})
        progress.evaluation({"epoch": 1.0, "loss": 0.5}, is_best=True)
        progress.evaluation({"epoch": 2.0, "loss": math.nan})
        progress.evaluation({"epoch": 3.0, "loss": 0.4, "a_metric_with_a_long_name": 7.0})
    assert [line.split() for line in file.getvalue().splitlines()[2:]] == [
        ["epoch", "val", "loss"],
        ["1", "0.5000", "★"],
        ["2", "nan"],
        ["epoch", "val", "loss", "a_metric_with…"],
        ["3", "0.4000", "7"],
    ]
