"""MLLMSeg now and then with a memory tracker between: who makes which mask, and what happens when they disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from unit.tiny_mllmseg import tiny_checkpoint
from unit.tiny_sam2 import film, original_checkpoint, tiny_sam

import instructseg
from instructseg.core import BadInput, Clip, Frame, Instruction, State
from instructseg.streaming.engine import StreamingEngine
from instructseg.tracking.following import FollowedToken, FollowingSegmenter

SECOND = 1_000_000_000
IMAGES, _ = film(8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("following")
    return tiny_checkpoint(root / "mllmseg"), original_checkpoint(root / "sam2", tiny_sam(presence=6.0))


def load(folders: tuple[Path, Path], period_s: float = 1.0) -> FollowingSegmenter:
    options = {"masks": "tracker", "tracker_checkpoint": str(folders[1]), "mask_period_s": str(period_s)}
    segmenter = instructseg.load("mllmseg", folders[0], "cpu", "float32", options)
    segmenter.recipe.model.decoder.smooth.bias.data.add_(6.0)  # random weights: sure of their masks
    return segmenter


class Calls:
    """Counts what the tracker and the language model are asked, in order."""

    def __init__(self, segmenter: FollowingSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        model = segmenter.recipe.model
        for owner, names in ((segmenter.tracker, ("start", "refresh", "step")), (model, ("read_commands",))):
            for name in names:
                inner = getattr(owner, name)
                monkeypatch.setattr(owner, name, lambda *a, n=name, i=inner, **k: self.made.append(n) or i(*a, **k))

    def taken(self) -> list[str]:
        made, self.made[:] = list(self.made), []
        return made


def frame(number: int, seconds: float) -> Frame:
    return Frame(IMAGES[number % len(IMAGES)], round(seconds * SECOND))


def begin(segmenter: FollowingSegmenter) -> list[FollowedToken]:
    encoded = segmenter.encode([frame(0, 1.0)])[0]
    (grounding,) = segmenter.ground(Clip((encoded,)), [Instruction("a", "the yellow block; the ground")])
    return [target.token for target in grounding.targets]


def test_masks_of_its_own_once_a_period(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = load(folders)
    calls = Calls(segmenter, monkeypatch)
    tokens = begin(segmenter)
    assert calls.taken() == ["read_commands", "start", "start"]
    for number, (seconds, expected) in enumerate(
        ((1.4, ["step"]), (1.8, ["step"]), (2.1, ["read_commands", "refresh", "refresh"]), (2.9, ["step"])), 1
    ):
        encoded = segmenter.encode([frame(number, seconds)])[0]
        masks = segmenter.segment(encoded, tokens)
        assert calls.taken() == expected
        assert all(mask.mask.shape == encoded.frame.size and 0 <= mask.score <= 1 for mask in masks)
        tokens = [mask.token for mask in masks]
    assert encoded.features.tracked.known and not encoded.features.own.features.image.known, (
        "only the tracker saw the last frame"
    )


def test_its_own_masks_are_those_of_every_frame(folders: tuple[Path, Path]) -> None:
    """With a period of 0 the tracker changes nothing."""
    segmenter, plain = load(folders, 0.0), instructseg.load("mllmseg", folders[0], "cpu", "float32")
    plain.model.decoder.smooth.bias.data.add_(6.0)
    encoded, other = segmenter.encode([frame(2, 2.0)])[0], plain.encode([frame(2, 2.0)])[0]
    own = segmenter.segment(encoded, begin(segmenter))
    theirs = plain.segment(other, [token.own for token in begin(segmenter)])
    for a, b in zip(own, theirs, strict=True):
        assert np.array_equal(a.confidence, b.confidence) and a.score == b.score


def test_a_target_that_is_not_seen_when_read_scores_low(folders: tuple[Path, Path]) -> None:
    """The tracker still follows something; the language model and its decoder see nothing: nothing is reported."""
    segmenter = load(folders)
    tokens = begin(segmenter)
    between = segmenter.segment(segmenter.encode([frame(1, 1.5)])[0], tokens)
    segmenter.recipe.model.decoder.smooth.bias.data.fill_(-30.0)
    read = segmenter.segment(segmenter.encode([frame(2, 2.5)])[0], [mask.token for mask in between])
    later = segmenter.segment(segmenter.encode([frame(3, 2.6)])[0], [mask.token for mask in read])
    assert max(mask.score for mask in later) < 0.01, "not reported between two looks either"
    assert min(mask.score for mask in between) > 0.3 and max(mask.score for mask in read) < 0.01
    assert all(mask.token.looked_ns == round(2.5 * SECOND) and mask.token.memory is not None for mask in read)


def test_nothing_to_follow_is_read_again(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A first mask too weak to be remembered leaves the next frame to the recipe itself."""
    segmenter = load(folders)
    weights = segmenter.recipe.model.decoder.smooth.bias.data
    bias = weights.clone()
    weights.fill_(-30.0)
    tokens = begin(segmenter)
    assert [token.memory for token in tokens] == [None, None]
    weights.copy_(bias)
    calls = Calls(segmenter, monkeypatch)
    masks = segmenter.segment(segmenter.encode([frame(1, 1.1)])[0], tokens)
    assert calls.taken() == ["read_commands", "start", "start"]
    assert all(mask.token.memory is not None for mask in masks)


def test_a_clock_that_went_back_is_no_reason_to_wait(folders: tuple[Path, Path]) -> None:
    segmenter = load(folders)
    masks = segmenter.segment(segmenter.encode([frame(1, 0.5)])[0], begin(segmenter))
    assert [mask.token.looked_ns for mask in masks] == [SECOND // 2] * 2


def test_the_engine_follows_with_it(folders: tuple[Path, Path]) -> None:
    engine = StreamingEngine(load(folders, 0.3))
    engine.add_instruction(Instruction("a", "the yellow block"))
    states = []
    for number in range(8):
        result = engine.process(frame(number, 1 + 0.1 * number))
        states += [target.state for target in result.targets]
    assert State.PRESENT in states and State.ERROR not in states


def test_a_tracker_that_is_none_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=str(tmp_path / "nowhere")):
        load((folders[0], tmp_path / "nowhere"))
