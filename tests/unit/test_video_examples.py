"""What VideoLISA, VISA and InstructSeg are shown and told in training, and which samples are refused."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from unit import miniature_data, miniature_videos
from unit.films import Film, about
from unit.miniature_videos import draw_video
from unit.tiny_learners import DENSE, RECIPES, SPARSE, learner_of, options_of, tiny_checkpoints

from instructseg.core import BadInput
from instructseg.data.benchmarks import open_dataset
from instructseg.data.readers.recordings import RecordedExpression, write_recording
from instructseg.data.samples import Footage, Kind, Sample
from instructseg.preprocessing import clip_pixels
from instructseg.recipes.instructseg.images import frame_pixels
from instructseg.recipes.instructseg.splicing import QUERIES
from instructseg.recipes.videolisa.learner import conversation_of
from instructseg.recipes.visa.frame_choice import TRAINING_FRAMES
from instructseg.sentencepieces import IMAGE_PLACEHOLDER
from instructseg.training.finetuning.mixture import source_of
from instructseg.training.learner import Learner, LoraSettings, build_learner
from instructseg.training.video_samples import FrameReader

EXPLAINED = {"explanation": "a mug can hold water", "texts": ["What holds water?", "Where is the tea?"]}


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Learner]:
    bases = tiny_checkpoints(tmp_path_factory.mktemp("tiny"))
    return {recipe: learner_of(recipe, base) for recipe, base in bases.items()}


def places(film: Film, pixels: torch.Tensor, prepare: Callable[[np.ndarray, int], torch.Tensor]) -> list[int]:
    """Which frames of a film these are."""
    frames = [prepare(film.read(i), pixels.shape[-1]) for i in range(len(film))]
    return [next(i for i, frame in enumerate(frames) if torch.equal(frame, one)) for one in pixels]


def test_videolisa_is_shown_a_clip_and_masks_of_its_dense_frames(learners: dict[str, Learner]) -> None:
    learner, film = learners["videolisa"], Film("film", 30)
    for seed in range(8):
        example = learner.example([about(film=film)], random.Random(seed))
        shown = [places(film, example.clip_pixels, clip_pixels)[i] for i in example.shown]
        dense = [shown[i] for i in example.dense]
        assert len(shown) == SPARSE and shown == sorted(shown) and len(dense) == DENSE
        assert np.array_equal(example.masks.bool(), film.video.masks[1][dense])
        assert len(example.sam_pixels) == len(set(dense)) and example.resized == (48, 64)
        assert (example.ids == learner.tokens.seg_id).sum() == (example.labels == learner.tokens.seg_id).sum() == 1
    still = learner.example([about(film=Film("still", 1))], random.Random(0))
    assert len(still.clip_pixels) == len(still.sam_pixels) == 1 and still.dense.tolist() == list(range(DENSE))
    assert torch.equal(still.masks[0], still.masks[1])


def test_videolisa_takes_frames_with_annotations_and_such_that_show_something(learners: dict[str, Learner]) -> None:
    film = Film("film", 12)
    sparsely = about(film=film, truth={"annotated": tuple(range(0, 12, 2)), "visible": (4, 6)})
    for seed in range(12):
        example = learners["videolisa"].example([sparsely], random.Random(seed))
        assert example.masks.shape[0] == DENSE and example.masks.any()


def test_all_instances_of_a_class_are_one_target_of_videolisa(learners: dict[str, Learner]) -> None:
    learner, film = learners["videolisa"], Film("film")
    objects = [about("Fish", film, (n,), kind=Kind.FIRST_FRAME) for n in (1, 2)]
    other = about("boat", film, (1,), kind=Kind.FIRST_FRAME)
    data = Samples([*objects, other, about("", film, kind=Kind.FIRST_FRAME), about("a fish", objects=())])
    assert source_of(data, 1.0, learner.scene_of, learner.takes).scenes == ((0, 1), (2,))
    example = learner.example(objects, random.Random(0))
    shown = [places(film, example.clip_pixels, clip_pixels)[i] for i in example.shown]
    both = film.video.masks[1] | film.video.masks[2]
    assert np.array_equal(example.masks.bool(), both[[shown[i] for i in example.dense]])


def test_videolisas_words() -> None:
    draw = random.Random(0)
    phrases = {conversation_of(about("The Red Mug"), draw) for _ in range(200)}
    assert len(phrases) == 4 * 5 and all("the red mug" in question for question, _, _ in phrases)
    sentences = {conversation_of(about("Where is the Tea?", kind=Kind.REASONING), draw)[0] for _ in range(50)}
    assert sentences == {
        "Where is the Tea? Please respond with segmentation mask.",
        "Where is the Tea? Please output segmentation mask.",
    }
    explained = [conversation_of(about(is_sentence=True, extra=EXPLAINED), draw) for _ in range(400)]
    alone = [one for one in explained if not one[2]]
    beside = [one for one in explained if one[2] and EXPLAINED["explanation"] in one[1]]
    assert 20 < len(alone) < 65 and 130 < len(beside) < 230
    assert {question for question, _, _ in alone} == set(EXPLAINED["texts"])
    assert all("[SEG]" in answer and "expla" in question for question, answer, _ in beside)


def test_visa_is_shown_a_frame_of_each_stretch_and_the_target_once_more(learners: dict[str, Learner]) -> None:
    learner, film = learners["visa"], Film("film", 30)
    asked = [about("the Red thing", film), about("what could be moved?", film, (1, 2)), about("a cat", film, ())]
    for seed in range(6):
        example = learner.example(asked, random.Random(seed))
        *shown, target = places(film, example.sample.clip_pixels, clip_pixels)
        assert target in shown and shown == sorted(shown) and len(shown) in TRAINING_FRAMES
        masks = film.video.masks
        expected = np.stack([masks[1][target], (masks[1] | masks[2])[target], np.zeros((24, 32), bool)])
        assert np.array_equal(example.sample.masks.bool(), expected)
        assert ((example.sample.input_ids == IMAGE_PLACEHOLDER).sum(1) == len(shown) + 1).all()
        assert ((example.sample.labels == learner.seg_id).sum(1) == 1).all()
        assert [level.shape[0] for level in example.noise] == [len(shown) + 1] * 3
    said = [learner.tokenizer.decode([i for i in row.tolist() if i > 0]) for row in example.sample.input_ids]
    assert "the Red thing" in said[0] and "what could be moved? Please find it" in said[1]


def test_visa_reads_an_image_as_a_video_of_one_frame_in_lower_case(learners: dict[str, Learner]) -> None:
    example = learners["visa"].example([about(film=Film("still", 1))], random.Random(0))
    assert len(example.sample.clip_pixels) == 2 and len(example.sample.masks) == 1
    assert "the red thing" in learners["visa"].tokenizer.decode(example.sample.input_ids[0].clamp_min(0).tolist())


def test_visa_learns_now_and_then_that_nothing_is_there(learners: dict[str, Learner]) -> None:
    learner, film, other = learners["visa"], Film("film"), Film("other", 3)
    other.video.images[:] = 7
    assert learner.strangers == 0.05
    example = learner.example_beside([about(film=film)], about(film=other), random.Random(0))
    assert places(other, example.sample.clip_pixels[-1:], clip_pixels) == [0]
    assert example.sample.masks.shape == (1, 24, 32) and not example.sample.masks.any()
    losses = learner.losses([example])
    assert float(losses["bce"].detach()) > 0
    same = learner.example_beside([about(film=film)], about("the ball", film), random.Random(0))
    assert torch.equal(same.sample.masks, learner.example([about(film=film)], random.Random(0)).sample.masks)


def test_visa_answers_in_words_alone_now_and_then(learners: dict[str, Learner]) -> None:
    learner, still = learners["visa"], Film("still", 1)
    explained = about("What holds water?", still, is_sentence=True, extra=EXPLAINED)
    made = [learner.example([explained], random.Random(seed)) for seed in range(40)]
    alone = [example for example in made if not len(example.sample.masks)]
    assert 0 < len(alone) < 12 and float(learner.losses(alone[:1])["bce"].detach()) == 0


def test_instructseg_is_shown_a_key_frame_between_its_references(learners: dict[str, Learner]) -> None:
    learner, film = learners["instructseg"], Film("film", 20)
    for seed in range(6):
        example = learner.example([about(film=film)], random.Random(seed))
        key, *references = places(film, example.frames, frame_pixels)
        assert [*references[:2], key, *references[2:]] in (sorted([key, *references]), sorted([key, *references])[::-1])
        side = example.mask.shape[-1]
        assert example.mask.shape == (1, side, side) and 0 < example.mask.mean() < 0.5 and not example.with_text
        rows, columns = np.nonzero(film.video.masks[1][key])
        centre = np.argwhere(example.mask[0].numpy()).mean(0) * 32 / side  # the longer side fills the square
        assert np.allclose(centre, [rows.mean(), columns.mean()], atol=1)
    # Only where the target is seen on all five; frames without annotation may be references.
    late = about(film=film, truth={"visible": tuple(range(8, 20)), "annotated": tuple(range(0, 20, 2))})
    for seed in range(6):
        key, *references = places(film, learner.example([late], random.Random(seed)).frames, frame_pixels)
        assert key >= 8 and key % 2 == 0 and all(i >= 8 for i in references if i % 2 == 0)


def test_all_that_is_said_about_an_object_is_one_instruction_of_instructseg(learners: dict[str, Learner]) -> None:
    learner, film = learners["instructseg"], Film("film")
    said = [about("the red thing.", film), about("it moves", film), about("the other", film, (2,))]
    asked = [about("what could move(s)?", film, kind=Kind.REASONING), about("a cat", film, ())]
    source = source_of(Samples([*said, *asked]), 1.0, learner.scene_of, learner.takes)
    assert source.scenes == ((0, 1), (2,), (3,))
    words = {
        learner.tokens.decode(learner.example(list(order), random.Random(0)).instruction.tolist())
        for order in (said[:2], said[1::-1])
    }
    assert {text.replace("[SEG]", "").strip() for text in words} == {"it moves. the red thing."}
    question = learner.example(asked[:1], random.Random(0))
    assert "what could move?" in learner.tokens.decode(question.instruction.tolist())
    revos = about("the red thing", film, extra={"type_id": 0})
    assert learner.scene_of(revos) is None, "ReVOS asks one expression at a time"


def test_instructseg_learns_words_from_reasoning_on_images_only(learners: dict[str, Learner]) -> None:
    learner, still = learners["instructseg"], Film("still", 1)
    explained = about("What holds water?", still, is_sentence=True, extra=EXPLAINED)
    made = [learner.example([explained], random.Random(seed)) for seed in range(20)]
    longest, shortest = max(made, key=lambda e: len(e.ids)), min(made, key=lambda e: len(e.ids))
    assert EXPLAINED["explanation"] in learner.tokens.decode([i for i in longest.ids.tolist() if i >= 0])
    assert shortest.with_text and QUERIES in shortest.ids and len(longest.ids) > len(shortest.ids) + 3
    plain = learner.example([about(film=still)], random.Random(0))
    torch.manual_seed(0)
    alone, mixed = learner.losses([longest]), learner.losses([longest, plain])
    assert float(mixed["text"].detach()) == pytest.approx(float(alone["text"].detach()) / 2, rel=1e-4)
    assert float(learner.losses([plain])["text"]) == 0


class Samples(list):
    name, split = "samples", "train"


@dataclasses.dataclass
class NoFrames(Footage):
    name: str = "empty"
    frames: tuple[str, ...] = ()

    def read(self, index: int) -> np.ndarray:
        raise IndexError(index)


HALF = dict.fromkeys(range(0, 9, 2), (16, 32))
BAD: list[tuple[tuple[str, ...], Sample, str]] = [
    (RECIPES, about(film=Film("changing", 9, HALF)), "sample changing/.*: frame 0.* of changing is 32 x (16|24) pix"),
    (RECIPES, about(truth={"size": (12, 16)}), "sample film/.* of film is 16 x 12 pixels, the frame 32 x 24"),
    (RECIPES, about(truth={"visible": ()}), "sample film/the Red thing: .* film"),
    (RECIPES, about(truth={"annotated": ()}), "sample film/the Red thing: .* film"),
    (RECIPES, about(film=Film("still", 1), truth={"visible": ()}), "sample still/the Red thing: .* still"),
    (RECIPES, dataclasses.replace(about(), footage=NoFrames()), "sample film/.*: the video empty has no frame"),
    (("instructseg",), about(film=Film("short", 4)), "short has 4 frames; a key frame with its references needs 5"),
    (("videolisa", "visa"), about("a [SEG] mug", is_sentence=True), r"sample film/a \[SEG\] mug: its conversation"),
    (("videolisa", "visa"), about("an <image>"), "sample film/an <image>: its conversation"),
    (("visa",), about("<video> of a mug"), "its conversation has .* of"),
    (("visa",), about("ASSISTANT: a mug"), "the name of a speaker"),
    (("videolisa",), about("very " * 2000 + "red"), "tokens has 0 .SEG. for 1 mask"),
    (("visa",), about("very " * 2000 + "red"), "positions, 2048 are allowed"),
    (("instructseg",), about("very " * 2000 + "red"), "positions, 2048 are allowed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "sample", "said"), [(name, sample, said) for names, sample, said in BAD for name in names]
)
def test_a_sample_that_cannot_be_used_is_named(
    learners: dict[str, Learner], recipe: str, sample: Sample, said: str
) -> None:
    for seed in range(2):
        with pytest.raises(BadInput, match=said):
            learners[recipe].example([sample], random.Random(seed))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_has_no_words_or_no_public_truth_is_never_drawn(learners: dict[str, Learner], recipe: str) -> None:
    learner = learners[recipe]
    assert learner.takes(about()) and not learner.takes(about(" "))
    assert not learner.takes(dataclasses.replace(about(), truth=None))
    assert learner.takes(about(objects=())) is (recipe == "visa"), "the others have no way to refuse"


def recording(folder: Path) -> None:
    """A bag of ten pictures, every second of them annotated."""
    video = draw_video("drive", 10)
    frames = [(10**8 * i, video.images[i], None if i % 2 else video.labels[i].astype(np.uint16)) for i in range(10)]
    said = [RecordedExpression("the red thing", (1,)), RecordedExpression("what moves?", (1, 2), kind=Kind.REASONING)]
    write_recording(folder / "drive", frames, said, {1: "red", 2: "blue"}, {"train": [(0.0, 9.0)]})


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Roots of data sets with videos of nine frames or more."""
    root = tmp_path_factory.mktemp("data")
    roots = {name: root / name for name in ("ref-youtube-vos", "mevis", "revos", "reasonseg", "recordings")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(miniature_videos.draw_video, "__defaults__", (9, 2, 5))
        miniature_videos.ref_youtube_vos(roots["ref-youtube-vos"])
        miniature_videos.mevis(roots["mevis"])
        miniature_videos.revos(roots["revos"])
    miniature_data.reason_seg(roots["reasonseg"])
    recording(roots["recordings"])
    return roots


@pytest.mark.parametrize("recipe", RECIPES)
def test_data_sets_on_disk_become_examples(learners: dict[str, Learner], recipe: str, on_disk: dict[str, Path]) -> None:
    learner, made = learners[recipe], []
    for name, root in on_disk.items():
        data = open_dataset(name, root, "train")
        for scene in source_of(data, 1.0, learner.scene_of, learner.takes).scenes:
            made.append(learner.example([data[i] for i in scene[: learner.together]], random.Random(0)))
    assert len(made) > len(on_disk)
    assert all(bool(torch.isfinite(loss)) for loss in learner.losses(made).values())


def test_too_few_frames_for_a_clip_of_videolisa_are_refused(learners: dict[str, Learner]) -> None:
    base = learners["videolisa"].source
    options = options_of("videolisa", base) | {"sparse_frames": "2"}
    with pytest.raises(BadInput, match="training shows 3 or more sparse frames, .*; got sparse_frames 2"):
        build_learner("videolisa", base, torch.device("cpu"), None, options, LoraSettings())


def test_a_reader_reads_each_frame_once() -> None:
    film = Film("film", 3)
    reads = []
    film.read = lambda index: reads.append(index) or film.video.images[index]
    reader = FrameReader([about(film=film), about("both", film, (1, 2)), about("none", film, ())])
    assert [reader.seen(1), reader.seen(1)] == [[True, True, False]] * 2 and reads == []
    assert reader.masks(1, [0, 2]).shape == (2, 24, 32) and torch.equal(reader.union(1), reader.masks(1, [1]))
    assert reads == [1] and "film, 3 frames" in repr(reader)
