"""Pictures and words about a run, from plain data: rows of `history.jsonl` and the content of `summary.json`.

`console` shows a training while it runs, `curves` draws it, `words` says what happened, `page` puts it all in one file.
"""

from talweg.report.console import Progress
from talweg.report.curves import plot_curves
from talweg.report.page import write_page
from talweg.report.words import verdict

__all__ = ["Progress", "plot_curves", "verdict", "write_page"]
