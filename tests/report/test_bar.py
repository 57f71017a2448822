"""The bar: drawn in a terminal, silent in a pipe."""

import io

import pytest
from rich.console import Console

from talweg.report.bar import Bar


@pytest.mark.parametrize(
    ("terminal", "quiet", "drawn"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_a_bar_is_drawn_in_a_terminal_only(terminal, quiet, drawn):
    file = io.StringIO()
    with Bar("packing", quiet=quiet, console=Console(file=file, force_terminal=terminal, width=80)) as bar:
        bar(30, 120)
        bar(60, 120)
    text = file.getvalue()
    assert ("packing" in text and "60/120" in text) is drawn
    assert bool(text) is drawn
