"""What every data set gives: an instruction about an image or a video, with its truth, read when it is looked at.

One type for all benchmarks, for training and for evaluation. A sample holds where things are, not what they are: images
and masks are read by ``footage.read(i)`` and ``truth(i)``, so that a list of a hundred thousand samples stays small.
Everything here can be pickled (workers of a data loader are processes).
"""

from __future__ import annotations

import abc
import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from ..core import BadInput


class NotOnDisk(BadInput):
    """A split of a data set is not there at all (nobody needs all of them), as opposed to broken."""


class Kind(enum.Enum):
    """What sort of expression it is; benchmarks report these apart (ReVOS: three of them)."""

    REFERRING = "referring"
    REASONING = "reasoning"
    NO_TARGET = "no target"  # names what is not there; ReVOS calls it hallucination
    SEMANTIC = "semantic"  # a class name
    FIRST_FRAME = "first frame"  # semi-supervised: the object is given by its mask on the first frame


class Footage(abc.ABC):
    """The frames of one image (a video of one frame) or one video."""

    name: str  # of the video or image, unique in its data set
    frames: tuple[str, ...]  # names of the frames in order, as the benchmark's results name them

    def __len__(self) -> int:
        return len(self.frames)

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Frame ``index`` as ``(H, W, 3)`` uint8 RGB. Raises BadInput naming the file."""

    def stamp_ns(self, index: int) -> int | None:
        """When frame ``index`` was taken, in nanoseconds; None where the data set does not say."""
        return None

    def missing(self) -> list[str]:
        """Files of it that are not there, found without reading any; for ``instructseg data check``."""
        return []


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """What is right on one frame.

    masks ``(n, H, W)`` bool, one an object of ``Sample.objects`` in that order (all False where an object is not in
    view), ``n = 0`` where nothing is named. ignore ``(H, W)`` bool, pixels that count neither way, or None.
    """

    masks: np.ndarray
    ignore: np.ndarray | None = None

    @property
    def union(self) -> np.ndarray:
        """``(H, W)`` bool: all objects together, as most benchmarks score them."""
        return self.masks.any(axis=0)


class Truths(abc.ABC):
    """The truth of one sample, frame by frame."""

    @abc.abstractmethod
    def __call__(self, index: int) -> Truth | None:
        """Of frame ``index``; None where this frame has no annotation. Raises BadInput naming the file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sample:
    """One instruction about one footage.

    id: unique in its split, made of the benchmark's own names (``video/expression``). objects: ids of the objects it
    names; empty: no target. truth: None where the benchmark keeps it on its server. is_sentence: the instruction is a
    sentence of its own rather than a noun phrase (ReasonSeg, ReasonVOS), which changes the prompt. expression: the
    benchmark's name of the expression, for result archives. extra: what only one benchmark has (``annotator``,
    ``ref_id``, ``explanation``, ``key_frame`` …), plain values only.
    """

    id: str
    footage: Footage
    instruction: str
    objects: tuple[str, ...]
    truth: Truths | None
    kind: Kind = Kind.REFERRING
    is_sentence: bool = False
    expression: str = ""
    extra: dict[str, str | int | float | bool | list] = dataclasses.field(default_factory=dict)


class Dataset(Sequence[Sample]):
    """One split of one benchmark as it lies on disk."""

    name: str  # as in the registry
    split: str

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def __getitem__(self, index: int) -> Sample: ...


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One row of the registry: how a data set is opened, and what is known of it.

    reader: ``module:function`` with ``open(root: Path, split: str) -> Dataset``, which raises BadInput. counts: for
    each split the published number of samples by what is counted (``{"val": {"expressions": 10834, "images": 1500}}``).
    metric: name of the protocol in ``evaluation/benchmarks``. marks: what shows that a folder is a root of this
    benchmark: patterns (``*`` within a name) of files or folders under it, any of them. shared_marks: those that roots
    of other benchmarks may show too: enough where the benchmark is asked for by name.
    """

    name: str
    title: str
    reader: str
    splits: tuple[str, ...]
    video: bool
    metric: str
    licence: str
    where: str  # where its owners offer it
    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    local: tuple[str, ...] = ()  # splits whose truth is public; others go to a server
    marks: tuple[str, ...] = ()
    shared_marks: tuple[str, ...] = ()
