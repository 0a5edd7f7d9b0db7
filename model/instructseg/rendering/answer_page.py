"""A page of answers to be read in a browser: ``index.html`` with pictures beside it, without scripts and without a
network. Pictures go to disk as they come; of the words only what the page shows is kept in memory.

A type is chosen by following a link to its anchor, which style sheets can see (``:target``).
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from ..core import InstructSegError

WIDTH = 640  # pixels of a picture; smaller frames stay as they are
TRUTH, GIVEN, AGREED = (40, 255, 70), (255, 20, 60), (255, 225, 0)  # truth, answer, right pixels of the answer
_ALPHA = 150
_PICTURES = "pictures"


@dataclasses.dataclass(frozen=True)
class Card:
    """One answer. verdict, kind: names of its section and its type. error: the larger, the earlier in its section.
    scene: whose key frame it is about. lines: what is said below the instruction ``text``."""

    verdict: str
    kind: str
    error: float
    scene: int
    text: str
    lines: tuple[str, ...]


Cells = Sequence[Sequence[str]]  # a table as texts: the first row is its heading, the first text of a row names it


class AnswerPage:
    """Collects answers scene by scene, then writes the page.

    folder: made where it is not there; an earlier page in it is replaced. verdicts: sections in their order, what each
    means. limit: how many answers are shown at most; of more, those of earlier sections with larger errors.
    """

    def __init__(self, folder: Path, verdicts: Mapping[str, str], limit: int) -> None:
        self._folder, self._verdicts, self._limit = folder, dict(verdicts), limit
        self._order = {name: place for place, name in enumerate(self._verdicts)}
        self._kept: list[tuple[tuple[float, float, int], Card]] = []  # a heap, the least worth showing first
        self._of_scene: Counter[int] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()  # (kind, verdict), also of what is not shown
        self._number = 0
        (folder / _PICTURES).mkdir(parents=True, exist_ok=True)
        (folder / "index.html").unlink(missing_ok=True)  # a run that ends early leaves no page with other pictures
        for pattern in ("scene_*.jpg", "answer_*.png"):
            for old in (folder / _PICTURES).glob(pattern):
                old.unlink()

    def add(self, card: Card, image: np.ndarray, truth: np.ndarray, given: np.ndarray) -> None:
        """image ``(H, W, 3)`` uint8 RGB; truth, given ``(H, W)`` bool. Raises InstructSegError where nothing can be
        written."""
        self._counts[card.kind, card.verdict] += 1
        worth = (-self._order[card.verdict], card.error, -self._number)
        if len(self._kept) == self._limit and worth < self._kept[0][0]:
            self._number += 1
            return
        if not self._of_scene[card.scene]:
            save_picture(self._path(_scene_name(card.scene)), cv2.cvtColor(_smaller(image), cv2.COLOR_RGB2BGR))
        self._of_scene[card.scene] += 1
        save_picture(self._path(_answer_name(self._number)), overlay(truth, given))
        heapq.heappush(self._kept, (worth, card))
        self._number += 1
        if len(self._kept) > self._limit:
            self._drop_least()

    def write(self, title: str, lines: Sequence[str], figures: Cells) -> Path:
        """title, lines: what was asked, in words; figures: the table to be shown above the answers."""
        path, partial = self._folder / "index.html", self._folder / "index.html.partial"
        with partial.open("w", encoding="utf-8") as file:
            for piece in self._pieces(title, lines, figures):
                file.write(piece + "\n")
        partial.replace(path)
        return path

    def _drop_least(self) -> None:
        (_, _, number), card = heapq.heappop(self._kept)
        self._path(_answer_name(-number)).unlink()
        self._of_scene[card.scene] -= 1
        if not self._of_scene[card.scene]:
            self._path(_scene_name(card.scene)).unlink()

    def _path(self, name: str) -> Path:
        return self._folder / _PICTURES / name

    def _pieces(self, title: str, lines: Sequence[str], figures: Cells) -> Iterator[str]:
        given = [row[0] for row in figures]
        kinds = sorted({kind for kind, _ in self._counts}, key=lambda k: (given.index(k) if k in given else -1, k))
        yield f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>'
        yield '<meta name="viewport" content="width=device-width">'
        yield f"<style>{_STYLE}{_filters(kinds)}</style></head>\n<body>\n<h1>{escape(title)}</h1>"
        yield "".join(f"<p>{escape(line)}</p>" for line in lines)
        yield f"<h2>Figures</h2>\n{_table(figures)}\n<h2>Answers</h2>\n{self._overview(kinds)}"
        yield "".join(f'<b class="anchor" id="{_anchor(kind)}"></b>' for kind in ("all", *kinds))
        links = "".join(f'<a href="#{_anchor(kind)}">{escape(kind)}</a>' for kind in ("all", *kinds))
        yield f'<nav>type: {links}</nav>\n<p class="legend">{_LEGEND}</p>\n<main>'
        ordered = sorted(self._kept, key=lambda kept: kept[0], reverse=True)
        for name, words in self._verdicts.items():
            cards = [(-worth[2], card) for worth, card in ordered if card.verdict == name]
            total = sum(self._counts[kind, name] for kind in kinds)
            shown = "" if len(cards) == total else f", {len(cards)} shown"
            is_open = "" if name == list(self._verdicts)[-1] else " open"
            yield f'<details id="{_section(name)}"{is_open}><summary>{escape(name)}: {total}{shown}</summary>'
            yield f'<p>{escape(words)}</p><div class="cards">'
            for number, card in cards:
                yield _card(number, card)
            yield "</div></details>"
        yield "</main>\n</body>\n</html>"

    def _overview(self, kinds: Sequence[str]) -> str:
        """How many answers of each type got each verdict, linked to types and sections."""
        heads = "".join(f'<th><a href="#{_section(name)}">{escape(name)}</a></th>' for name in self._verdicts)
        rows = []
        for kind in (*kinds, "all"):
            of = [k for k in kinds if kind in (k, "all")]
            cells = "".join(f"<td>{sum(self._counts[k, name] for k in of)}</td>" for name in self._verdicts)
            rows.append(f'<tr><th><a href="#{_anchor(kind)}">{escape(kind)}</a></th>{cells}</tr>')
        return f"<table><tr><th>type</th>{heads}</tr>\n" + "\n".join(rows) + "</table>"


def overlay(truth: np.ndarray, given: np.ndarray) -> np.ndarray:
    """``(h, w, 4)`` uint8 BGRA to lie over a frame: the answer's pixels, right and wrong ones, and both outlines.
    truth, given: ``(H, W)`` bool."""
    truth, given = _smaller(truth.astype(np.uint8)), _smaller(given.astype(np.uint8))
    canvas = np.zeros((*truth.shape, 4), np.uint8)
    canvas[(given > 0) & (truth == 0)] = (*GIVEN[::-1], _ALPHA)
    canvas[(given > 0) & (truth > 0)] = (*AGREED[::-1], _ALPHA)
    thickness = max(1, truth.shape[1] // 320)
    for mask, colour, edge in ((given, GIVEN, 255), (truth, TRUTH, 0)):  # edges: seen on things of every colour
        lines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, lines, -1, (edge, edge, edge, 255), thickness + 2)
        cv2.drawContours(canvas, lines, -1, (*colour[::-1], 255), thickness)
    return canvas


def save_picture(path: Path, picture: np.ndarray) -> None:
    """picture: as OpenCV wants it; the name's ending says the format."""
    if not cv2.imwrite(str(path), picture):
        raise InstructSegError(f"{path} cannot be written; is there space, and may this folder be written to?")


def _smaller(picture: np.ndarray) -> np.ndarray:
    """A frame or a mask at most :data:`WIDTH` wide."""
    height, width = picture.shape[:2]
    if width <= WIDTH:
        return picture
    size = WIDTH, max(1, round(height * WIDTH / width))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST)


def _card(number: int, card: Card) -> str:
    frame, mask = f"{_PICTURES}/{_scene_name(card.scene)}", f"{_PICTURES}/{_answer_name(number)}"
    lines = "".join(f"<div>{escape(line)}</div>" for line in card.lines)
    return (
        f'<figure class="{_anchor(card.kind)}" tabindex="0"><div class="picture">'
        f'<img src="{frame}" loading="lazy" alt="key frame of scene {card.scene}">'
        f'<img class="mask" src="{mask}" loading="lazy" alt=""></div>'
        f"<figcaption><strong>{escape(card.text)}</strong>{lines}</figcaption></figure>"
    )


def _table(table: Cells) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in table[0]) + "</tr>"]
    for name, *rest in table[1:]:
        lines.append(f"<tr><th>{escape(name)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>")
    return "<table>" + "\n".join(lines) + "</table>"


def _filters(kinds: Sequence[str]) -> str:
    """Style rules: where a type's anchor is the target of the address, the cards of all others are left out."""
    rules = [f"#{_anchor(kind)}:target~main figure:not(.{_anchor(kind)}){{display:none}}" for kind in kinds]
    rules += [f'#{_anchor(kind)}:target~nav a[href="#{_anchor(kind)}"]{{font-weight:bold}}' for kind in ("all", *kinds)]
    return "\n".join(rules)


def _anchor(kind: str) -> str:
    return "type-" + _word(kind)


def _section(verdict: str) -> str:
    return "answers-" + _word(verdict)


def _word(name: str) -> str:
    """A name as part of an HTML id and of a CSS selector."""
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _scene_name(scene: int) -> str:
    return f"scene_{scene:06d}.jpg"


def _answer_name(number: int) -> str:
    return f"answer_{number:06d}.png"


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + "".join(f"{c:02x}" for c in colour)


_LEGEND = "".join(
    f'<span style="background:{_hex(colour)}"></span>{words} '
    for colour, words in (
        (TRUTH, "line: what is asked for"), (AGREED, "answer where it is right"), (GIVEN, "answer where it is wrong"),
    )
) + "&middot; point at a picture to see it without them"  # fmt: skip
_STYLE = """
:root{color-scheme:light dark} body{font:14px/1.4 system-ui,sans-serif;margin:1.5em}
table{border-collapse:collapse} td,th{padding:.15em .7em;text-align:right;border-bottom:1px solid #8884}
th:first-child{text-align:left} nav a{margin:0 .4em}
.legend span{display:inline-block;width:1em;height:1em;margin:0 .4em 0 1em}
summary{font-size:1.3em;margin:.8em 0;cursor:pointer}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(320px,1fr));gap:1em}
figure{margin:0;content-visibility:auto;contain-intrinsic-size:320px 340px} .picture{position:relative}
img{display:block;width:100%} .mask{position:absolute;inset:0;height:100%}
figure:hover .mask,figure:focus .mask{visibility:hidden} figcaption div{opacity:.8}
"""
