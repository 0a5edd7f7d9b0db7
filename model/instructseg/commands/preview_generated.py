"""``instructseg data preview tabletop`` and ``tabletop2``: generated scenes with their questions as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from PIL import Image

from ..core import BadInput
from ..data import scene
from ..data.scene import Episode

GENERATED = ("tabletop", "tabletop2")
QUESTIONS = 8  # of each scene of version 1
WIDTH, HEIGHT = 640, 480


def preview(arguments: argparse.Namespace) -> int:
    """Write one picture a scene. Raises BadInput for a root, an unknown split or more scenes than it has."""
    from ..rendering.scene_sheet import draw_scene  # brings the drawing libraries

    a = arguments
    if a.root is not None:
        raise BadInput(f"{a.benchmark} is generated and reads no folder; leave out {a.root}")
    cases = _first_version(a) if a.benchmark == "tabletop" else _second_version(a)
    for index, split, episode, questions in cases:
        a.out.mkdir(parents=True, exist_ok=True)
        path = a.out / f"{a.benchmark}_{split}_{index:06d}.png"
        Image.fromarray(draw_scene(episode, questions, f"{a.benchmark} {split} {index}")).save(path)
        print(f"{path}: {len(questions)} instructions")
    return 0


def _first_version(a: argparse.Namespace) -> Iterator[tuple[int, str, Episode, list]]:
    from ..data.instructions import QuestionWriter, SceneFacts
    from ..data.tabletop import Tabletop
    from ..training.bank import CLIP_TIMES, KEY

    split = a.split or "held_out"
    if split not in scene.SPLITS:
        raise BadInput(f"splits of tabletop are {', '.join(scene.SPLITS)}; got {split!r}")
    tabletop = Tabletop(WIDTH, HEIGHT)
    for index in range(a.count):
        rng = np.random.default_rng([1, index, len(split)])  # the scenes of `eval tabletop --seed 1`
        episode = tabletop.sample(rng, split, CLIP_TIMES, KEY)
        writer, facts = QuestionWriter(rng, split), SceneFacts(episode)
        yield index, split, episode, [writer.ask(facts) for _ in range(QUESTIONS)]


def _second_version(a: argparse.Namespace) -> Iterator[tuple[int, str, Episode, tuple]]:
    from ..data.tabletop2.benchmark import draw_case, size_of
    from ..data.tabletop2.rendering import WorldRenderer

    split = a.split or "held_out"
    size = a.count if split == "train" else size_of(split)  # training draws as many as it wants
    with WorldRenderer(WIDTH, HEIGHT) as renderer:
        for index in np.unique(np.linspace(0, size - 1, min(a.count, size)).round().astype(int)).tolist():
            case = draw_case(split, index)
            yield index, split, renderer.episode(case.world), case.questions
