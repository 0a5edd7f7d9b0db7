"""The MLLMSeg part of the benchmark: it measures two ways to the same masks. Nothing here looks at time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import __main__ as command
from bench import mllmseg
from bench.figures import Figure
from bench.options import Options
from bench.scenes import make_scene


def test_both_ways_give_the_same_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mllmseg, "INSTRUCTIONS", (1, 2))
    threads = torch.get_num_threads()
    figures, details = mllmseg.measure(Options(quick=True))
    assert torch.get_num_threads() == threads
    names = [figure.name for figure in figures]
    assert names[0] == "1 instruction, frame read once" and "2 instructions, gain" in names
    assert figures[-1].verdict == "met" and figures[-1].median < 1e-5
    assert details["tokens up to the image's end"] > 256


def test_the_difference_sees_a_wrong_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, scene = mllmseg.random_segmenter(), make_scene(rate=2.0)
    decode = segmenter.model.decoder.decode
    monkeypatch.setattr(segmenter.model.decoder, "decode", lambda *given: decode(*given) + 0.1)
    assert mllmseg.difference(segmenter, scene, 1) > 0.01


def test_words_become_ids_of_the_vocabulary() -> None:
    ids = mllmseg.word_ids("the red mug, the red\nmug")  # 6 words, a comma, a line break
    assert len(ids) == 8 and ids[1] == ids[5] and all(2 <= index < mllmseg.WORDS for index in ids)


def test_the_report_names_the_recipe_that_was_measured(tmp_path: Path) -> None:
    measured = [Figure("gain", "times", (2.0,))], {}
    for name, recipe in (("mllmseg", "recipe mllmseg, small random weights"), ("model", "recipe unified")):
        report = command.run_part(name, Options(out=tmp_path), lambda options: measured)
        assert report.checkpoint.startswith(recipe)
    assert command.parse(["mllmseg"])[0] == ["mllmseg"] and "mllmseg" in command.parse([])[0]
    assert command.part("mllmseg") is mllmseg.measure
