"""What a tabletop scene is made of, and the split that holds compositions out.

Both generators (``flat_scenes`` in 2-D, ``tabletop`` in MuJoCo) return an :class:`Episode`; instructions are asked
of it by ``instructions.py`` from the objects and the instance images alone, so that a new generator needs nothing else.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SHAPES = ("block", "ball", "can", "cone", "mug", "bowl", "bottle", "plate")
CLUTTER = "clutter"  # things without a name in the vocabulary: seen, never asked for by class
COLORS: dict[str, tuple[int, int, int]] = {  # sRGB of the nominal colour; generators vary it
    "red": (205, 32, 32),
    "green": (40, 150, 50),
    "blue": (35, 70, 200),
    "yellow": (235, 205, 30),
    "orange": (240, 125, 20),
    "purple": (125, 45, 160),
    "white": (238, 238, 235),
    "black": (28, 28, 30),
}
SIZES = ("small", "large")
MOTIONS = ("still", "left", "right", "toward", "away")  # as the camera sees it, relative to the table

# Never drawn in training: the held-out split draws at least one of them in every episode.
HELD_OUT_PAIRS = frozenset(
    {("red", "bottle"), ("green", "mug"), ("blue", "cone"), ("yellow", "bowl"), ("purple", "ball"), ("white", "block")}
)
SPLITS = ("train", "val", "held_out")  # val: training compositions, other seeds


@dataclasses.dataclass(frozen=True)
class SceneObject:
    """One thing on the table. id: its value (1..254) in the instance images."""

    id: int
    shape: str
    color: str
    size: str = "large"


@dataclasses.dataclass(frozen=True, eq=False)
class Episode:
    """A few frames of one scene with ground truth.

    images ``(T, H, W, 3)`` uint8 RGB; instances ``(T, H, W)`` uint8, 0 = no object; times ``(T,)`` seconds, ascending;
    motions ``(T, N)`` index into :data:`MOTIONS`, what each object is doing at that time; key: index of the frame
    that the instructions are asked about (later frames test that a target is still found).
    """

    images: np.ndarray
    instances: np.ndarray
    times: np.ndarray
    motions: np.ndarray
    objects: tuple[SceneObject, ...]
    key: int


def allowed_pairs(split: str) -> list[tuple[str, str]]:
    """(colour, shape) pairs that a split may draw; ``held_out`` draws from all of them."""
    pairs = [(color, shape) for color in COLORS for shape in SHAPES]
    return pairs if split == "held_out" else [pair for pair in pairs if pair not in HELD_OUT_PAIRS]


def draw_objects(rng: np.random.Generator, split: str, count: int, clutter: int = 0) -> tuple[SceneObject, ...]:
    """``count`` named objects and ``clutter`` unnamed ones, with repeats of colour and shape so that words must
    combine."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}; got {split!r}")
    pairs = allowed_pairs(split)
    drawn = [pairs[rng.integers(len(pairs))] for _ in range(count)]
    for i in range(1, count):  # share a colour or a shape with an earlier object half of the time
        color, shape = drawn[i]
        other_color, other_shape = drawn[rng.integers(i)]
        wish = [(other_color, shape), (color, other_shape), (color, shape), (color, shape)][rng.integers(4)]
        drawn[i] = wish if wish in pairs else drawn[i]
    if split == "held_out" and not HELD_OUT_PAIRS.intersection(drawn):
        drawn[0] = sorted(HELD_OUT_PAIRS)[rng.integers(len(HELD_OUT_PAIRS))]
    objects = [SceneObject(i + 1, s, c, SIZES[rng.integers(2)]) for i, (c, s) in enumerate(drawn)]
    names = list(COLORS)
    for i in range(clutter):
        objects.append(SceneObject(count + i + 1, CLUTTER, names[rng.integers(len(names))], "small"))
    return tuple(objects)
