"""Semi-supervised video object segmentation: objects given by their masks where they come into view.

DAVIS 2017: ``ImageSets/2017/{train,val}.txt``, ``JPEGImages/480p/<video>/*.jpg``, ``Annotations/480p/<video>/*.png``
(palette; all objects are in the first frame). YouTube-VOS: ``{train,valid}/{JPEGImages,Annotations}/<video>`` and
``{train,valid}/meta.json``; objects may appear later, and valid has masks only in the frames where one does.

A sample is one object. Its mask on frame ``extra["key_frame"]`` is what a method is given; a frame before that does
not count. The instruction is the category in YouTube-VOS, empty in DAVIS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ...core import BadInput
from ..samples import Benchmark, Dataset, Kind, Sample
from .image_files import ImageFiles
from .json_files import read_text
from .label_truths import VOID, LabelTruths, frame_labels
from .ref_youtube_vos import seen_in
from .sample_list import SampleList
from .video_index import known_split, local_name, read_videos, require, whole

DAVIS_SPLITS, YOUTUBE_SPLITS = ("train", "val"), ("train", "valid")
DAVIS, YOUTUBE = "DAVIS 2017", "YouTube-VOS"

BENCHMARKS = (
    Benchmark(
        name="davis2017",
        title=DAVIS,
        reader=f"{__name__}:open_davis",
        splits=DAVIS_SPLITS,
        video=True,
        metric="davis_semi",
        licence="terms on its page",
        where="https://davischallenge.org/davis2017/code.html",
        counts={"train": {"videos": 60}, "val": {"videos": 30}},  # DAVIS 2017, arXiv 1704.00675
        local=DAVIS_SPLITS,
        marks=("ImageSets/2017",),
        shared_marks=("JPEGImages/480p",),
    ),
    Benchmark(
        name="youtube-vos",
        title=YOUTUBE,
        reader=f"{__name__}:open_youtube",
        splits=YOUTUBE_SPLITS,
        video=True,
        metric="davis_semi",
        licence="terms on its page",
        where="https://youtube-vos.org/dataset/vos/",
        local=("train",),
        marks=("train/Annotations/003234408d", "valid/Annotations/0062f687f1"),
        shared_marks=("train/meta.json", "valid/meta.json"),
    ),
)


def open_davis(root: Path, split: str) -> Dataset:
    known_split(split, DAVIS_SPLITS, DAVIS)
    listed = f"ImageSets/2017/{split}.txt"
    require(root, DAVIS, listed, "JPEGImages/480p", "Annotations/480p")
    videos = [line.strip() for line in read_text(root / listed).splitlines() if line.strip()]
    for number, video in enumerate(videos, start=1):
        local_name(video, f"{root / listed}: line {number}", depth=1)
    return SampleList("davis2017", split, _each(_davis_objects, root, videos))


def open_youtube(root: Path, split: str) -> Dataset:
    known_split(split, YOUTUBE_SPLITS, YOUTUBE)
    require(root, YOUTUBE, f"{split}/meta.json", f"{split}/JPEGImages", f"{split}/Annotations")
    videos = read_videos(root / split / "meta.json")
    items = _each(lambda folder, video: _youtube_objects(folder, video, videos[video]), root / split, list(videos))
    return SampleList("youtube-vos", split, items)


def _each(
    objects_of: Callable[[Path, str], list[Sample]], root: Path, videos: list[str]
) -> Iterator[Sample | BadInput]:
    for video in videos:
        try:
            yield from objects_of(root, video)
        except BadInput as error:
            yield BadInput(str(error))


def _davis_objects(root: Path, video: str) -> list[Sample]:
    """One sample for each value of the first frame's annotation."""
    frames = listed_frames(root / "JPEGImages/480p" / video)
    folder = root / "Annotations/480p" / video
    needed = frozenset(frames.frames)
    first = frame_labels(frames, folder, 0, needed)
    numbers = [int(number) for number in np.unique(first) if number not in (0, VOID)]
    if not numbers:
        raise BadInput(f"{folder / frames.frames[0]}.png shows no object; the first frame of DAVIS gives them all")
    return [_sample(frames, "", number, LabelTruths(frames, folder, (number,), needed, VOID), 0) for number in numbers]


def _youtube_objects(folder: Path, video: str, entry: dict) -> list[Sample]:
    frames = listed_frames(folder / "JPEGImages" / video)
    place = {frame: index for index, frame in enumerate(frames.frames)}
    objects = entry.get("objects")
    where = f"{folder / 'meta.json'}: videos[{video!r}]['objects']"
    if not isinstance(objects, dict) or not objects:
        raise BadInput(f"{where} must be an object with one entry an object")
    samples = []
    for key, about in objects.items():
        number = whole(key, where, 1, VOID - 1)
        in_view = seen_in(about, f"{where}[{key!r}]")
        absent = sorted(in_view - set(place))
        if absent:
            raise BadInput(f"{where}[{key!r}]['frames'] names {absent[0]}, which is not in {frames.paths[0].parent}")
        first = min(place[frame] for frame in in_view)
        # valid holds a file only where an object comes into view
        truths = LabelTruths(frames, folder / "Annotations" / video, (number,), frozenset([frames.frames[first]]))
        samples.append(_sample(frames, str(about.get("category", "")), number, truths, first))
    return samples


def _sample(frames: ImageFiles, words: str, number: int, truths: LabelTruths, first: int) -> Sample:
    key = str(number)
    return Sample(
        f"{frames.name}/{key}", frames, words, (key,), truths, Kind.FIRST_FRAME, expression=key,
        extra={"key_frame": first},
    )  # fmt: skip


def listed_frames(folder: Path) -> ImageFiles:
    """All ``.jpg`` of a video's folder by name."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".jpg" and not path.name.startswith("."))
    except OSError as error:
        raise BadInput(f"the frames of the video {folder.name} are missing: {folder}: {error.strerror}") from error
    if not paths:
        raise BadInput(f"the video {folder.name} is empty: there is no .jpg in {folder}")
    return ImageFiles(folder.name, tuple(path.stem for path in paths), tuple(paths))
