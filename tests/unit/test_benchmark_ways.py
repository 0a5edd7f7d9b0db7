"""How recipes are asked: which frames, which wording, which options; with fakes, and with miniature published ones."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from unit.drawn_samples import drawn_video, sample_about
from unit.fake_tracker import FakeTracker
from unit.known_answers import RED, KnownSegmenter, Meaning
from unit.tiny_gsva import tiny_checkpoint as tiny_gsva
from unit.tiny_gsva import tiny_options as tiny_gsva_options
from unit.tiny_instructseg import tiny_checkpoint as tiny_instructseg
from unit.tiny_videolisa import tiny_checkpoint as tiny_videolisa

import instructseg
from instructseg.core import Anchor, BadInput, Clip, Instruction, Sampling, Target, TargetMask
from instructseg.data.benchmarks import benchmark, benchmarks
from instructseg.data.samples import Kind
from instructseg.evaluation.benchmarks.footages import EncodedFootage
from instructseg.evaluation.benchmarks.joined import JoinedReferences
from instructseg.evaluation.benchmarks.masks import decode_mask, decode_soft
from instructseg.evaluation.benchmarks.protocol import FIRST_MASKS, Protocol, find_protocol
from instructseg.evaluation.benchmarks.run import Asked, Offline
from instructseg.evaluation.benchmarks.streaming import Streaming
from instructseg.evaluation.benchmarks.ways import Answer, find_way
from instructseg.evaluation.timed_segmenter import Charges
from instructseg.options import parse_options
from instructseg.recipes.gsva.conversations import CONVERSATIONS
from instructseg.recipes.gsva.prompts import phrases_question
from instructseg.registry import RECIPES
from instructseg.sampling import spread_or_repeat
from instructseg.tracking.following import FollowingSegmenter

RATE = 10.0
LLAVA = CONVERSATIONS["llava_v1"]


@dataclasses.dataclass
class Given:
    """masks ``(T, H, W)`` bool of each text, in order, and what was kept of them."""

    masks: list[np.ndarray]
    kept: list[Answer]

    def __iter__(self):
        return iter(self.masks)


def answers(way: str, segmenter, video, *texts: str, protocol: Protocol | None = None) -> Given:
    footage = EncodedFootage(segmenter, video, RATE)
    found = find_way(way)(segmenter, footage, [sample_about(video, text) for text in texts], protocol or Protocol(way))
    size = video.images.shape[1:3]
    return Given([np.stack([decode_mask(m, size, "") for m in answer.masks]) for answer in found], found)


# Videos


def test_whole_video_looks_at_frames_spread_over_all_of_it() -> None:
    video, segmenter = drawn_video(40), KnownSegmenter()
    red, blue = answers("whole_video", segmenter, video, "red", "blue")
    assert segmenter.clips == [[round(i / RATE * 1e9) for i in spread_or_repeat(40, 3)]]
    np.testing.assert_array_equal(red, video.masks["red"])
    np.testing.assert_array_equal(blue, video.masks["blue"])


def test_a_short_video_is_the_clip() -> None:
    segmenter = KnownSegmenter()
    answers("whole_video", segmenter, drawn_video(2), "red")
    assert [len(clip) for clip in segmenter.clips] == [2]


class Counting(KnownSegmenter):
    """Tokens that count the frames they were carried over, with their stamps."""

    def segment(self, encoded, tokens):
        seen = [(*token.colours[1:], encoded.frame.stamp_ns) for token in tokens]
        self.carried = getattr(self, "carried", []) + [stamps[-1] for stamps in seen]
        assert all(a <= b for stamps in seen for a, b in itertools.pairwise(stamps)), "time ran backwards"
        masks = super().segment(encoded, [Meaning(token.colours[:1]) for token in tokens])
        after = [Meaning((token.colours[0], *stamps)) for token, stamps in zip(tokens, seen, strict=True)]
        return [dataclasses.replace(mask, token=token) for mask, token in zip(masks, after, strict=True)]


def test_from_key_asks_as_a_stream_would_first_and_carries_its_tokens_to_both_ends() -> None:
    """Going back, tokens start from the key frame again and see stamps that grow."""
    video, segmenter = drawn_video(6), Counting()
    (red,) = answers("from_key", segmenter, video, "red")
    assert segmenter.clips == [[0, 100_000_000, 200_000_000]]  # a horizon of 0.2 s
    np.testing.assert_array_equal(red, video.masks["red"])
    tenths = [round(stamp / 1e8) for stamp in segmenter.carried]
    assert tenths == [2, 3, 4, 5, 3, 4]  # frames 2 to 5, then 1 and 0 in mirrored time


def test_each_frame_asks_on_every_frame_and_refuses_only_what_is_refused_everywhere() -> None:
    video = drawn_video(3)

    class SometimesThere(KnownSegmenter):
        def _targets(self, text):
            return super()._targets("zebra" if self.clips[-1] == [0] else text)

    segmenter = SometimesThere()
    given = answers("each_frame", segmenter, video, "red", "zebra")
    red, zebra = given
    assert [len(clip) for clip in segmenter.clips] == [1, 1, 1]
    np.testing.assert_array_equal(red[1:], video.masks["red"][1:])
    assert not red[0].any() and not zebra.any()
    assert [answer.refused for answer in given.kept] == [False, True]


class Choosing(KnownSegmenter):
    """Answers about the frame that its sampler chooses, as VISA does."""

    frame_sampler = "its own"

    def ground(self, clip, instructions):
        chosen = self.frame_sampler.choose(clip.frames, "")
        found = super().ground(clip, instructions)
        masks = [[self._mask(clip.frames[chosen], t.token) for t in g.targets if t.token] for g in found]
        return [
            dataclasses.replace(
                g,
                targets=tuple(
                    dataclasses.replace(t, anchor=Anchor(chosen, m)) for t, m in zip(g.targets, row, strict=True)
                ),
            )
            for g, row in zip(found, masks, strict=True)
        ]


def test_every_frame_is_a_target_frame_in_turn() -> None:
    video, segmenter = drawn_video(4), Choosing()
    (red,) = answers("target_frames", segmenter, video, "red")
    assert [len(clip) for clip in segmenter.clips] == [4] * 4  # all frames are its clip each time
    np.testing.assert_array_equal(red, video.masks["red"])
    assert segmenter.frame_sampler == "its own"


def test_a_tracker_goes_from_the_frame_of_the_answer_to_both_ends() -> None:
    """The fake tracker's mask stands still: it is the answer's frame's everywhere."""

    class Anchored(KnownSegmenter):
        sampling = Sampling(5, 1, 1.0)

        def ground(self, clip, instructions):
            found = super().ground(clip, instructions)
            mask = TargetMask(video.masks["red"][2], 0.9, None)
            return [
                dataclasses.replace(g, targets=(dataclasses.replace(g.targets[0], anchor=Anchor(2, mask)),))
                for g in found
            ]

    video = drawn_video(5)
    tracker = FakeTracker()
    (red,) = answers("both_ways", FollowingSegmenter(Anchored(), tracker), video, "red")
    np.testing.assert_array_equal(red, np.repeat(video.masks["red"][2:3], 5, axis=0))
    assert tracker.calls == ["start", "step", "step"] * 2


def test_a_first_mask_is_carried_on_and_nothing_comes_before_it() -> None:
    video = drawn_video(4)
    sample = sample_about(video, "", kind=Kind.FIRST_FRAME, extra={"key_frame": 1}, truth="red")
    following = FollowingSegmenter(KnownSegmenter(), FakeTracker())
    footage = EncodedFootage(following, video, RATE)
    (answer,) = find_way("given_mask")(following, footage, [sample], Protocol("given_mask"))
    assert [mask is None for mask in answer.masks] == [True, False, False, False]


# Images


def test_sentences_of_one_image_in_one_conversation() -> None:
    video, segmenter = drawn_video(1), KnownSegmenter()
    protocol = Protocol("image", together=2)
    given = answers("image", segmenter, video, "red", "zebra; or cat", "all but green", protocol=protocol)
    red, zebra, both = given
    assert segmenter.asked == [["red; zebra, or cat;"], ["all but green;"]]
    np.testing.assert_array_equal(red, video.masks["red"])
    assert not zebra.any()
    np.testing.assert_array_equal(both, video.masks["red"] | video.masks["blue"])
    assert [answer.refused for answer in given.kept] == [False, True, False]


def test_long_sentences_make_more_conversations() -> None:
    segmenter = KnownSegmenter()
    texts = [f"red {'x' * 400} {i}" for i in range(3)]
    answers("image", segmenter, drawn_video(1), *texts, protocol=Protocol("image", together=100))
    assert [len(asked) for asked in segmenter.asked] == [1, 1]


def test_an_answer_with_another_number_of_targets_is_an_error() -> None:
    segmenter = KnownSegmenter()
    segmenter._targets = lambda text: ()
    with pytest.raises(BadInput, match="2 sentences in one conversation got 0 answers"):
        answers("image", segmenter, drawn_video(1), "red", "blue", protocol=Protocol("image", together=9))


def test_where_refusal_is_the_protocols_business_the_refused_mask_is_kept() -> None:
    class Doubting(KnownSegmenter):
        def _targets(self, text):
            return (Target(Meaning((RED,)), 0.4, 0.6, False),)

    video = drawn_video(1)
    strict = answers("image", Doubting(), video, "red", protocol=Protocol("image", refuse_from=0.5))
    assert strict.kept[0].refused
    np.testing.assert_array_equal(strict.masks[0], video.masks["red"])
    lenient = answers("image", Doubting(), video, "red", protocol=Protocol("image", refuse_from=0.7))
    assert not lenient.kept[0].refused


def test_masks_of_low_score_are_left_out_where_the_protocol_says_so() -> None:
    video = drawn_video(1)
    (shown,) = answers("image", KnownSegmenter(), video, "red", protocol=Protocol("image", show_from=0.95))
    assert not shown.any()


# Samples


def test_sentences_about_one_thing_are_one_sample() -> None:
    video = drawn_video(1)
    listed = [sample_about(video, text, extra={"ref_id": ref}) for ref, text in ((3, "a"), (3, "b c"), (4, "d"))]

    class Listed(list):
        name, split = "refcoco", "val"

    joined = JoinedReferences(Listed(listed))
    assert [(sample.id, sample.instruction) for sample in joined] == [("3", "a. b c."), ("4", "d.")]


def test_only_so_many_encodings_are_kept() -> None:
    video = drawn_video(8)
    footage = EncodedFootage(KnownSegmenter(), video, RATE, kept=2)
    first = footage.encoded(0)
    assert footage.encoded(0) is first
    footage.encoded(1), footage.encoded(2)
    assert footage.encoded(0) is not first


# Protocols


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_protocol_names_a_way_and_options_that_the_recipe_has(recipe: str) -> None:
    for row in benchmarks().values():
        for tracker in (False, True):
            if row.name in FIRST_MASKS and not tracker:
                with pytest.raises(BadInput, match="add --tracker memory"):
                    find_protocol(recipe, row)
                continue
            protocol = find_protocol(recipe, row, tracker)
            find_way(protocol.frames)
            for changes in ({}, protocol.sentence, protocol.phrase):
                parse_options(RECIPES[recipe].options_class, protocol.options | changes, recipe)


def test_the_users_own_options_win_and_are_told() -> None:
    protocol = find_protocol("videolisa", benchmark("reasonvos")).under({"template": "chat", "dense_frames": "2"})
    assert protocol.sentence == protocol.phrase == {}
    assert "option template is the user's own: chat" in protocol.deviations
    assert "option dense_frames is the user's own: 2" in protocol.deviations


def test_a_stream_has_nothing_of_frames_that_come_later() -> None:
    """The same video with another end: until then the same masks, from an answer that takes two frames."""
    video = drawn_video(8)
    changed = dataclasses.replace(video, images=np.concatenate([video.images[:5], np.zeros_like(video.images[5:])]))
    masks = []
    for shown in (video, changed):
        stream = Streaming(KnownSegmenter(), RATE, Charges(0.01, 0.19))
        masks.append(stream([Asked(0, sample_about(shown, "red"))])[0].masks)
    assert masks[0][:5] == masks[1][:5]
    assert masks[0][:2] == (None, None)
    assert masks[0][4] is not None
    assert masks[0][5:] != masks[1][5:]


# Published recipes at tiny size


@pytest.fixture(scope="module")
def videolisa(tmp_path_factory: pytest.TempPathFactory):
    folder = tiny_videolisa(tmp_path_factory.mktemp("videolisa"))
    options = {"sparse_frames": "4", "dense_frames": "2"} | find_protocol("videolisa", benchmark("reasonvos")).options
    return instructseg.load("videolisa", folder, "cpu", "float32", options)


def test_videolisa_is_asked_with_the_published_templates(videolisa) -> None:
    """A sentence and a phrase of ReasonVOS each with their own, whatever the text looks like."""
    video = drawn_video(7)
    offline = Offline(videolisa, find_protocol("videolisa", benchmark("reasonvos")), RATE)
    for is_sentence, template in ((True, "reason_vos_long"), (False, "reason_vos_short")):
        sample = dataclasses.replace(sample_about(video, "what is red?"), is_sentence=is_sentence)
        (given,) = offline([Asked(0, sample)])
        with _template(videolisa, template):
            frames = videolisa.encode([EncodedFootage(videolisa, video, RATE).frame(i) for i in range(7)])
            token = videolisa.ground(Clip(tuple(frames)), [Instruction("a", "what is red?")])[0].targets[0].token
            expected = [videolisa.segment(frame, [token])[0].mask for frame in frames]
        found = [decode_mask(mask, video.images.shape[1:3], "") for mask in given.masks]
        np.testing.assert_array_equal(found, expected)
        assert not given.refused
    assert videolisa.options.template == "auto"


@contextlib.contextmanager
def _template(segmenter, name: str):
    before = segmenter.options
    segmenter.options = dataclasses.replace(before, template=name)
    yield
    segmenter.options = before


def test_gsva_is_asked_with_the_published_question_over_all_sentences(tmp_path: Path) -> None:
    """Every sentence gets a mask, refused or not; refusal is read from its score."""
    protocol = find_protocol("gsva", benchmark("grefcoco"))
    folder = tiny_gsva(tmp_path)
    options = tiny_gsva_options(folder) | protocol.options
    segmenter = instructseg.load("gsva", folder, "cpu", "float32", options)
    texts = ["man with a cup and a plate", "what is left?", "blue ball."]
    (question,) = segmenter.questions("; ".join(texts) + ";")
    expected = phrases_question(["man with a cup and a plate", "what is left", "blue ball"])
    assert question.prompt == tuple(segmenter.vocabulary.pieces.encode_with_images(LLAVA.prompt(expected)))
    video = drawn_video(1)
    given = answers("image", segmenter, video, *texts, protocol=protocol)
    masks = [target.token is not None for target in _targets(segmenter, video, texts)]
    refused = [target.rejection_score >= 0.5 for target in _targets(segmenter, video, texts)]
    assert masks == [True] * 3
    assert [answer.refused for answer in given.kept] == refused


def _targets(segmenter, video, texts: list[str]) -> tuple[Target, ...]:
    frame = EncodedFootage(segmenter, video, RATE).encoded(0)
    return segmenter.ground(Clip((frame,)), [Instruction("a", "; ".join(texts) + ";")])[0].targets


def test_instructseg_gives_probabilities_for_fusing(tmp_path: Path) -> None:
    protocol = find_protocol("instructseg", benchmark("ref-davis17"))
    assert protocol.fusion == "soft"
    segmenter = instructseg.load("instructseg", tiny_instructseg(tmp_path / "c"), "cpu", "float32", protocol.options)
    video = drawn_video(5)
    given = answers("neighbours", segmenter, video, "red", protocol=protocol)
    size = video.images.shape[1:3]
    soft = np.stack([decode_soft(text, size, "") for text in given.kept[0].soft])
    expected = segmenter.segment_video([EncodedFootage(segmenter, video, RATE).frame(i) for i in range(5)], "red")
    np.testing.assert_array_equal(given.masks[0], [mask.mask for mask in expected])
    np.testing.assert_allclose(soft * 255, [mask.confidence for mask in expected], atol=1e-3)
