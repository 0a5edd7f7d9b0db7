"""The page of answers: what it shows, in which order, and that it is well-formed, whatever the instructions say."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from unit.test_cli_train_eval import EverythingSegmenter

from instructseg import cli
from instructseg.core import BadInput
from instructseg.evaluation.tabletop import SlotRecord
from instructseg.evaluation.verdicts import FALSE_ACCEPTANCE, MISSED, POOR_MASK, RIGHT, VERDICTS, WRONG_THING, verdict
from instructseg.rendering.answer_page import GIVEN, TRUTH, WIDTH, AnswerPage, Card, overlay

VOID = {"meta", "img"}


class Read(HTMLParser):
    """Texts, pictures, links and anchors of a page; fails where elements do not close in order."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.open, self.pictures, self.links, self.anchors, self.strong = [], [], [], [], []
        self.tags: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        self.pictures += [given["src"]] if tag == "img" else []
        self.links += [given["href"]] if tag == "a" else []
        self.anchors += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "strong":
            self.strong.append(data)


def record(present: bool, kept: bool, iou: float = 0.0) -> SlotRecord:
    return SlotRecord("attribute", "x", present, kept, 0.9, iou, 0.0, targets=(1,) if present else ())


def test_verdicts_tell_failures_apart() -> None:
    ids = np.zeros((4, 8), np.uint8)
    ids[:, :2], ids[:, 6:] = 1, 2
    nothing, other, background, half = (np.zeros((4, 8), bool) for _ in range(4))
    other[:, 5:], background[:, 3:5], half[:, 1:4] = True, True, True
    assert verdict(record(True, True), ids, other) == WRONG_THING
    assert verdict(record(True, True), ids, background) == WRONG_THING
    assert verdict(record(True, True, 0.25), ids, half) == POOR_MASK
    assert verdict(record(True, True, 0.51), ids, half) == RIGHT
    assert verdict(record(True, False), ids, nothing) == verdict(record(True, True), ids, nothing) == MISSED
    assert verdict(record(False, True), ids, other) == FALSE_ACCEPTANCE
    assert verdict(record(False, False), ids, nothing) == RIGHT


def fill(folder: Path, cards: list[Card], limit: int = 100) -> Read:
    page = AnswerPage(folder, VERDICTS, limit)
    for card in cards:
        page.add(card, np.full((6, 8, 3), 90, np.uint8), np.eye(6, 8, dtype=bool), np.eye(6, 8, dtype=bool))
    assert page.write("a <title>", ["made & asked"], [["type", "J&F"], ["b", "<1>"]]) == folder / "index.html"
    read = Read(folder / "index.html")
    assert {Path(name) for name in read.pictures} == {p.relative_to(folder) for p in (folder / "pictures").iterdir()}
    assert {link[1:] for link in read.links} <= set(read.anchors)
    assert not read.tags & {"script", "link", "iframe"}
    return read


def card(name: str, error: float, scene: int, text: str = "", kind: str = "b") -> Card:
    return Card(name, kind, error, scene, text or f"{name} {error}", ("line",))


def test_failures_come_first_and_the_worst_of_them(tmp_path: Path) -> None:
    cards = [card(RIGHT, 0.9, 0), card(POOR_MASK, 0.6, 0), card(MISSED, 0.1, 1), card(MISSED, 0.8, 1),
             card(WRONG_THING, 0.5, 0), card(FALSE_ACCEPTANCE, 0.7, 2)]  # fmt: skip
    read = fill(tmp_path, cards)
    assert read.strong == ["wrong thing 0.5", "missed 0.8", "missed 0.1", "false acceptance 0.7", "poor mask 0.6",
                           "right 0.9"]  # fmt: skip
    assert len(set(read.pictures)) == 6 + 3


def test_beyond_the_limit_only_the_worst_stay_on_disk(tmp_path: Path) -> None:
    errors = np.random.default_rng(0).permutation(40)
    cards = [card(MISSED if e % 2 else RIGHT, float(e), int(e) // 4) for e in errors]
    read = fill(tmp_path, cards, limit=3)
    assert read.strong == ["missed 39.0", "missed 37.0", "missed 35.0"]
    assert len(set(read.pictures)) == 3 + 2
    assert "missed: 20, 3 shown" in (tmp_path / "index.html").read_text()
    assert fill(tmp_path, cards[:1]).strong == [cards[0].text], "pictures of an earlier page are gone"


def test_what_people_write_stays_text(tmp_path: Path) -> None:
    text = '<script>alert("x")</script> & </strong> "the red\' ball" Würfel'
    read = fill(tmp_path, [card(MISSED, 1.0, 0, text, kind='a"><img src=x>')])
    assert "".join(read.strong) == text
    assert len(read.pictures) == 2


def test_the_overlay_shows_truth_and_answer_in_their_colours() -> None:
    truth, given = np.zeros((60, 2 * WIDTH), bool), np.zeros((60, 2 * WIDTH), bool)
    truth[10:50, 100:300], given[10:50, 900:1200] = True, True
    drawn = overlay(truth, given)
    assert drawn.shape == (30, WIDTH, 4)
    assert tuple(drawn[15, 50]) == (*TRUTH[::-1], 255)
    assert tuple(drawn[15, 525, :3]) == GIVEN[::-1] and 0 < drawn[15, 525, 3] < 255
    assert drawn[15, 100, 3] == drawn[2, 5, 3] == 0


def evaluate(benchmark: str, *words: object) -> int:
    size = ["--width", "160", "--height", "120", "--episodes", "2", "--split", "val"]
    arguments = cli.build_parser().parse_args(["eval", benchmark, *size, *map(str, words)])
    return arguments.run(arguments, EverythingSegmenter())


@pytest.mark.parametrize("words", [("tabletop2",), ("tabletop", "--source", "flat")])
def test_eval_writes_the_page(tmp_path: Path, capsys, words: tuple[str, ...]) -> None:
    assert evaluate(*words, "--page", tmp_path / "page") == 0
    assert f"written: {tmp_path / 'page' / 'index.html'}" in capsys.readouterr().out
    read = Read(tmp_path / "page" / "index.html")
    assert len(read.pictures) == 2 * len(read.strong) >= 20
    assert all(cv2.imread(str(tmp_path / "page" / name), cv2.IMREAD_UNCHANGED).any() for name in read.pictures)
    assert evaluate(*words, "--page", tmp_path / "page", "--page-limit", 5) == 0
    assert len(Read(tmp_path / "page" / "index.html").strong) == 5


def test_pages_that_cannot_be_are_refused_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for benchmark in ("tabletop", "tabletop2"):
        with pytest.raises(BadInput, match="--page .*is a file; give a folder"):
            evaluate(benchmark, "--page", tmp_path / "file")
        with pytest.raises(BadInput, match="leave out --stream"):
            evaluate(benchmark, "--page", tmp_path, "--stream")
