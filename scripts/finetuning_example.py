#!/usr/bin/env python3
"""The complete example of docs/finetuning_example.md: the simulated tabletop is recorded into bags, annotated by the
simulator in a robot team's own words, and what fine-tuning gains is measured on recordings that training never saw.

    scripts/finetuning_example.py record DIR       # DIR/recordings: bags with masks and expressions; DIR/run.yaml
    instructseg train DIR/run.yaml --out DIR/run
    scripts/finetuning_example.py compare DIR      # DIR/comparison.json, DIR/comparison.jpg
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

import instructseg
from instructseg.core import BadInput, Clip, Frame, Instruction, InstructSegError, Segmenter
from instructseg.data.benchmarks import open_dataset
from instructseg.data.readers.recordings import RecordedExpression, write_recording
from instructseg.data.samples import Footage, Kind, Sample
from instructseg.data.scene import Episode
from instructseg.evaluation.refusal import refusal_scores
from instructseg.evaluation.tabletop import mask_iou
from instructseg.sampling import sparse_dense

# What the team calls things; the shipped model knows none of these words.
NAMES = {"block": "crate", "can": "canister", "cone": "pylon", "mug": "beaker", "plate": "tray"}
PLURALS = {shape: f"all {name}s" for shape, name in NAMES.items()}
SIZE = (320, 240)  # width and height of the camera's pictures
FRAMES, PERIOD = 12, 0.25  # of a recording; seconds between two of them
ASKED = (3, 7, 11)  # frames of a held-out recording that are asked about
ABSENT = 3  # expressions of a recording about what is not there, at most
CONFIG = {
    "recipe": "unified",
    "checkpoint": "shipped",
    "data": [{"benchmark": "recordings", "root": "recordings", "split": "train"}],
    "workers": 1,
    "save_every": 100,
    "log_every": 10,
}
IN_ITS_WORDS = "before, asked in its own words"
PANEL = (240, 180)  # width and height of one of the picture's panels
TINT, HEADING = (0, 255, 220), 20  # colour of a mask; pixels of a line of words


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What one checkpoint said of one frame. mask: empty where it refused."""

    text: str
    image: np.ndarray
    truth: np.ndarray  # (H, W) bool
    mask: np.ndarray
    refused: bool

    @property
    def iou(self) -> float:
        return mask_iou(self.mask, self.truth)


def record(folder: Path, train: int, held_out: int, steps: int | None) -> None:
    """Recordings, each of another table, and the configuration. Raises BadInput where they are there already."""
    from instructseg.data.tabletop import Tabletop

    if (folder / "recordings").exists():
        raise BadInput(f"{folder / 'recordings'} exists already; choose another folder or remove it")
    camera, chance = Tabletop(*SIZE), np.random.default_rng(0)
    asked = 0
    for number in range(train + held_out):
        split = "train" if number < train else "val"
        episode = camera.sample(chance, "train", [PERIOD * i for i in range(FRAMES)], FRAMES - 1)
        expressions = expressions_about(episode, chance)
        stamps = [round((1 + time) * 1e9) for time in episode.times]
        write_recording(
            folder / "recordings" / f"{split}_{number:03d}",
            zip(stamps, episode.images, episode.instances, strict=True),
            expressions,
            {thing.id: f"{thing.color} {NAMES.get(thing.shape, thing.shape)}" for thing in episode.objects},
            {split: [(0, math.inf)]},
            pictures="jpeg",
        )
        asked += len(expressions)
    camera.close()
    config = CONFIG | ({} if steps is None else {"steps": steps})
    (folder / "run.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    print(f"{train} recordings to train on, {held_out} held out, {asked} expressions in {folder / 'recordings'}")


def expressions_about(episode: Episode, chance: np.random.Generator) -> list[RecordedExpression]:
    """Every way to name what is there, and some ways to name what is not: other things, and things that are there in
    another colour."""
    present: dict[str, list[int]] = {}
    for thing in episode.objects:
        if thing.shape in NAMES:
            present.setdefault(f"the {NAMES[thing.shape]}", []).append(thing.id)
            present.setdefault(f"the {thing.color} {NAMES[thing.shape]}", []).append(thing.id)
            present.setdefault(PLURALS[thing.shape], []).append(thing.id)
    colors = sorted({thing.color for thing in episode.objects})
    others = [f"the {name}" for name in NAMES.values()]
    others += [f"the {color} {name}" for color in colors for name in NAMES.values()]
    absent = [text for text in others if text not in present]
    chosen = [absent[i] for i in chance.permutation(len(absent))[:ABSENT]]
    found = [
        RecordedExpression(text, tuple(ids))
        for text, ids in present.items()
        if (len(ids) > 1) == text.startswith("all ")  # "the crate" is one, "all crates" are several
    ]
    return found + [RecordedExpression(text, (), kind=Kind.NO_TARGET) for text in chosen]


def compare(folder: Path) -> None:
    """Both checkpoints on the held-out recordings: figures into comparison.json, some answers into comparison.jpg."""
    samples = list(open_dataset("recordings", folder / "recordings", "val"))
    footages: dict[str, list[Sample]] = {}
    for sample in samples:
        footages.setdefault(sample.footage.name, []).append(sample)
    answers = {}
    for when, checkpoint in (("before", None), (IN_ITS_WORDS, None), ("after", folder / "run" / "checkpoint")):
        segmenter = instructseg.load("unified", checkpoint, device="cpu")
        say = in_its_words if when == IN_ITS_WORDS else str
        answers[when] = [answer for about in footages.values() for answer in answers_about(segmenter, about, say)]
    figures = {when: figures_of(given) for when, given in answers.items()}
    (folder / "comparison.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    picture = draw(answers["before"], answers["after"])
    cv2.imwrite(
        str(folder / "comparison.jpg"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80]
    )
    print(json.dumps(figures, indent=2))


def in_its_words(text: str) -> str:
    """The same in words that the shipped model knows: how much of the gain is the words."""
    for shape, name in NAMES.items():
        text = text.replace(name, shape)
    return text


def answers_about(segmenter: Segmenter, samples: Sequence[Sample], say: Callable[[str], str] = str) -> Iterator[Answer]:
    """All expressions about one recording, on each of the frames ``ASKED`` with the clip that led to it."""
    footage: Footage = samples[0].footage
    frames = [Frame(footage.read(i), footage.stamp_ns(i)) for i in range(len(footage))]
    encoded = segmenter.encode(frames)
    for index in ASKED:
        chosen = sparse_dense([frame.stamp_ns for frame in frames[: index + 1]], segmenter.sampling)
        clip = Clip(tuple(encoded[i] for i in chosen.indices))
        asked = [Instruction(sample.id, say(sample.instruction)) for sample in samples]
        for sample, grounding in zip(samples, segmenter.ground(clip, asked), strict=True):
            tokens = [target.token for target in grounding.targets if not target.rejected]
            truth = sample.truth(index).union
            masks = [found.mask for found in segmenter.segment(encoded[index], tokens)]
            mask = np.logical_or.reduce([np.zeros_like(truth), *masks])
            yield Answer(sample.instruction, frames[index].image, truth, mask, not tokens)


def figures_of(answers: Sequence[Answer]) -> dict[str, float | int | None]:
    """Over the targets that are there: mean IoU (refused: 0), share with an IoU over one half, share not refused
    (T-acc); over those that are not: share refused (N-acc)."""
    scores = refusal_scores(
        ((answer.mask[None], answer.truth[None], np.array([answer.refused])) for answer in answers),
        refused_masks="blank",
    )
    ious = [answer.iou for answer in answers if answer.truth.any()]
    return {
        "present": scores.present,
        "mean IoU": round(float(np.mean(ious)), 3),
        "accuracy at IoU 0.5": round(float(np.mean([iou > 0.5 for iou in ious])), 3),
        "T-acc": round(scores.t_acc, 3),
        "absent": scores.absent,
        "N-acc": None if scores.n_acc is None else round(scores.n_acc, 3),
    }


def draw(before: Sequence[Answer], after: Sequence[Answer]) -> np.ndarray:
    """A heading, then one row an answer: before, after, truth."""
    rows = [np.hstack([heading(words) for words in ("before", "after", "truth")])]
    for index in shown(after):
        first, second = before[index], after[index]
        masks = ((first.mask, first.refused), (second.mask, second.refused), (first.truth, not first.truth.any()))
        rows.append(np.hstack([panel(first.image, mask, first.text, refused) for mask, refused in masks]))
    return np.vstack(rows)


def shown(answers: Sequence[Answer]) -> list[int]:
    """Not a choice of the best: from the middle of each third of what is there, from the middle of what is not, and
    the worst of what is there."""
    present = [index for index, answer in enumerate(answers) if answer.truth.any()]
    absent = [index for index, answer in enumerate(answers) if not answer.truth.any()]
    thirds = [present[len(present) * part // 6] for part in (1, 3, 5)] if present else []
    worst = sorted(present, key=lambda index: answers[index].iou)[:1]
    return thirds + absent[len(absent) // 2 :][:1] + worst


def panel(image: np.ndarray, mask: np.ndarray, text: str, refused: bool) -> np.ndarray:
    """``(h + 20, w, 3)``: the words, and whether they were taken to name nothing; the mask on the image."""
    tinted = image.copy()
    tinted[mask] = (0.3 * tinted[mask] + 0.7 * np.array(TINT)).astype(np.uint8)
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tinted, outlines, -1, (0, 0, 0), 1)
    small = cv2.resize(tinted, PANEL, interpolation=cv2.INTER_AREA)
    return np.vstack([heading(f"{text}: not there" if refused else text), small])


def heading(words: str) -> np.ndarray:
    """``(20, w, 3)``: black on white."""
    line = np.full((HEADING, PANEL[0], 3), 255, np.uint8)
    return cv2.putText(line, words, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("record", "compare"):
        step = steps.add_parser(name)
        step.add_argument("folder", type=Path, metavar="DIR")
        if name == "record":
            step.add_argument("--train", type=int, default=60, metavar="N", help="recordings to train on (60)")
            step.add_argument("--held-out", type=int, default=20, metavar="N", help="recordings to compare on (20)")
            step.add_argument("--steps", type=int, metavar="N", help="of training (as the recipe has them)")
    given = parser.parse_args(words)
    try:
        if given.step == "record":
            record(given.folder, given.train, given.held_out, given.steps)
        else:
            compare(given.folder)
    except InstructSegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
