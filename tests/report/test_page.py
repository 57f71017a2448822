"""The page: whole, safe, self-contained, readable without a mouse or a picture."""

from __future__ import annotations

import base64
import math
import re
from html.parser import HTMLParser

import pytest

from talweg.errors import UserError
from talweg.report import plot_curves, verdict, write_page

VOID = {"meta", "link", "br", "img"}
EVIL = "<script>alert('x')</script> & \"digits\""


class Page(HTMLParser):
    """Checks that tags are balanced, and collects tags, attributes and the text of each kind of tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def page(tmp_path):
    def write(summary, rows, recipe="", png=None):
        path = tmp_path / "report.html"
        write_page(summary, rows, recipe, path, png)
        return path.read_text(encoding="utf-8")

    return write


def test_what_the_page_holds(story, page, tmp_path):
    summary, rows = story(accuracy=lambda e: 0.98 - 0.001 * abs(e - 17))
    png = tmp_path / "curves.png"
    plot_curves(rows, png, title="digits")
    text = page(summary, rows, 'optimizer = "sgd"\nlr = 0.01', png)
    read = Page(text)
    assert verdict(summary, rows) in read.text["p"][0].replace("\u00a0", " ")
    assert read.text["title"] == ["digits · Talweg"]
    assert read.text["pre"] == ['optimizer = "sgd"\nlr = 0.01']
    everything = read.text["body"][0]
    for fact in ("78,042", "98.00 %", "31.2 s", "no CUDA or MPS device found", "1,437 train, 360 validation", "0.1.0"):
        assert fact in everything
    marked = [row for row in read.text["tr"] if "best" in row]
    assert len(marked) == 1
    assert "★" in marked[0]
    assert "98.00 %" in marked[0]
    links = [link["href"] for link in read.all("a")]
    assert [base64.b64decode(link.split(",")[1]) for link in links] == [png.read_bytes()]


def test_it_needs_neither_a_network_nor_a_script(story, page):
    text = page(*story(task="digits", epochs=2))
    read = Page(text)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text)
    assert not read.all("script")
    for _, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_names_are_text_wherever_they_stand(story, page):
    summary, rows = story(
        task=EVIL,
        epochs=2,
        talweg=EVIL,
        status=EVIL,
        reason={"kind": EVIL, "text": EVIL},
        decisions=[{"name": EVIL, "value": EVIL, "why": EVIL}],
        layout={EVIL: EVIL},
        seed=EVIL,
        samples={"train": 5, EVIL: 3},
    )
    rows = [{**row, EVIL: 0.5} for row in rows]
    text = page({**summary, "monitor": {"name": EVIL}, "best": rows[-1]}, rows, EVIL)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert Page(text).text["h1"] == [EVIL]


def test_it_can_be_read_without_seeing_it(story, page):
    summary, rows = story(epochs=3)
    read = Page(page(summary, rows))
    assert read.all("html")[0]["lang"] == "en"
    for svg in read.all("svg"):
        assert svg["role"] == "img"
        assert len(svg["aria-label"]) > 30
    assert all(head["scope"] in ("col", "row") for head in read.all("th"))
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    labels = {attributes["aria-labelledby"] for _, attributes in read.tags if "aria-labelledby" in attributes}
    assert labels == {"evaluations", "decisions", "run", "recipe"} & set(ids)
    uses = {attributes["xlink:href"][1:] for attributes in read.all("use")}
    assert uses <= set(ids)


@pytest.mark.parametrize("kind", ["empty", "nulls", "no validation", "not finite", "only train rows"])
def test_any_piece_may_be_missing(story, page, kind):
    summary, rows = story(epochs=2)
    if kind == "empty":
        summary, rows = {}, []
    elif kind == "nulls":
        summary, rows = dict.fromkeys(summary), []
    elif kind == "no validation":
        summary, rows = story(validation=None, accuracy=None, epochs=2)
    elif kind == "not finite":
        rows = [{**row, "loss": math.nan} for row in rows]
    else:
        rows = [row for row in rows if row["kind"] == "train"]
    text = page(summary, rows)
    assert "None" not in Page(text).text["body"][0]


def test_a_picture_that_is_not_there_is_left_out(story, page, tmp_path):
    assert "curves.png" not in page(*story(epochs=1), "", tmp_path / "curves.png")


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write the report"):
        write_page({}, [], "", tmp_path / "missing" / "report.html")
