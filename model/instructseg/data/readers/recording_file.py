"""The annotation of one recording, ``recording.yaml`` (or ``.json``) beside its bag:

.. code-block:: yaml

    recording: 1                                    # version of this form
    bag: bag                                        # folder of the bag, or one .mcap or .db3 file
    image_topic: /camera/image_raw/compressed       # sensor_msgs Image or CompressedImage
    masks: {topic: /ground_truth/instance_mask/compressed}
    objects: {1: red block, 2: blue mug}            # the ids in the masks, in words
    splits: {train: [[0, 20]], val: [[20, 30]]}     # seconds after the first image; or: split: train
    expressions:
      - {text: the red block, objects: [1]}
      - {text: what could I drink from?, objects: [2], from: 3.5, to: 30, kind: reasoning, is_sentence: true}
      - {text: the green ball, objects: [], kind: no target}

``masks`` is a topic of label images (16UC1, mono8, or PNG; id 0 is the background), in the same bag or in one named by
``bag``; or ``file``, a JSON file of COCO run lengths, ``{"<stamp>": {"<id>": {"size": [H, W], "counts": "..."}}}`` with
the image's stamp in nanoseconds. An image counts as annotated where there is a mask of exactly its stamp.
Paths are relative to the file.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import yaml

from ...core import BadInput
from ..samples import Kind
from .json_files import read_text, shown

VERSION = 1
NAMES = ("recording.yaml", "recording.yml", "recording.json")
SPLITS = ("train", "val", "test")
KINDS = {kind.value: kind for kind in (Kind.REFERRING, Kind.REASONING, Kind.NO_TARGET, Kind.SEMANTIC)}
LARGEST_ID = 2**31 - 1
_KEYS = {"recording", "bag", "image_topic", "masks", "objects", "split", "splits", "expressions"}
_EXPRESSION_KEYS = {"text", "objects", "from", "to", "kind", "is_sentence"}

Interval = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class RecordedExpression:
    """What somebody would say, which objects (ids in the masks) that means, and from when to when it is right, in
    seconds after the first image; end is not included."""

    text: str
    objects: tuple[int, ...]
    start: float = 0.0
    end: float = math.inf
    kind: Kind = Kind.REFERRING
    is_sentence: bool = False


@dataclasses.dataclass(frozen=True)
class RecordingFile:
    """One annotation file. mask_topic is empty where mask_file holds the masks. splits: intervals of each, in seconds
    after the first image."""

    path: Path
    bag: Path
    image_topic: str
    mask_bag: Path
    mask_topic: str
    mask_file: Path | None
    objects: dict[int, str]
    splits: dict[str, tuple[Interval, ...]]
    expressions: tuple[RecordedExpression, ...]


def read_recording(path: Path) -> RecordingFile:
    """Raises BadInput naming file and key."""
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise error if isinstance(error, BadInput) else BadInput(f"{path} is no YAML: {error}") from error
    facts = _mapping(content, f"{path}", _KEYS)
    if facts.get("recording") != VERSION:
        raise BadInput(f"{path}: 'recording' is {_short(facts.get('recording'))}; this program reads form {VERSION}")
    folder = path.parent
    bag = folder / _text(facts, "bag", path)
    masks = _mapping(facts.get("masks"), f"{path}: 'masks'", {"topic", "bag", "file"})
    if ("topic" in masks) == ("file" in masks) or ("bag" in masks and "topic" not in masks):
        raise BadInput(f"{path}: 'masks' must have 'topic' (and 'bag' where it is another one), or 'file'")
    objects = _objects(facts.get("objects"), path)
    listed = facts.get("expressions")
    if not isinstance(listed, list) or not listed:
        raise BadInput(f"{path}: 'expressions' must list at least one expression; got {_short(listed)}")
    return RecordingFile(
        path=path,
        bag=bag,
        image_topic=_text(facts, "image_topic", path),
        mask_bag=folder / _text(masks, "bag", path) if "bag" in masks else bag,
        mask_topic=_text(masks, "topic", path) if "topic" in masks else "",
        mask_file=folder / _text(masks, "file", path) if "file" in masks else None,
        objects=objects,
        splits=_splits(facts, path),
        expressions=tuple(_expression(e, objects, f"{path}: expressions[{i}]") for i, e in enumerate(listed)),
    )


def as_yaml(recording: RecordingFile) -> str:
    """The text of the file, paths relative to its folder."""
    folder = recording.path.parent
    masks: dict[str, str] = {}
    if recording.mask_file is not None:
        masks["file"] = str(recording.mask_file.relative_to(folder))
    else:
        masks["topic"] = recording.mask_topic
        if recording.mask_bag != recording.bag:
            masks["bag"] = str(recording.mask_bag.relative_to(folder))
    facts = {
        "recording": VERSION,
        "bag": str(recording.bag.relative_to(folder)),
        "image_topic": recording.image_topic,
        "masks": masks,
        "objects": dict(recording.objects),
        "splits": {name: [list(part) for part in parts] for name, parts in recording.splits.items()},
        "expressions": [_plain(expression) for expression in recording.expressions],
    }
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=1000, default_flow_style=None)


def _plain(expression: RecordedExpression) -> dict[str, Any]:
    facts: dict[str, Any] = {"text": expression.text, "objects": list(expression.objects)}
    if expression.start > 0:
        facts["from"] = expression.start
    if expression.end < math.inf:
        facts["to"] = expression.end
    if expression.kind is not Kind.REFERRING:
        facts["kind"] = expression.kind.value
    return facts | ({"is_sentence": True} if expression.is_sentence else {})


def _expression(content: Any, objects: dict[int, str], where: str) -> RecordedExpression:
    facts = _mapping(content, where, _EXPRESSION_KEYS)
    kind = facts.get("kind", Kind.REFERRING.value)
    if kind not in KINDS:
        raise BadInput(f"{where}['kind'] is {_short(kind)}; allowed: {', '.join(KINDS)}")
    named = facts.get("objects")
    if not isinstance(named, list) or bool(named) is (KINDS[kind] is Kind.NO_TARGET):
        wanted = "an empty list" if kind == Kind.NO_TARGET.value else "a list of at least one id"
        raise BadInput(f"{where}['objects'] must be {wanted} for the kind {kind!r}; got {_short(named)}")
    for number in named:
        if isinstance(number, bool) or not isinstance(number, int) or number not in objects:
            raise BadInput(f"{where}['objects'] names {_short(number)}; ids in 'objects': {_listed(objects)}")
    sentence = facts.get("is_sentence", False)
    if not isinstance(sentence, bool):
        raise BadInput(f"{where}['is_sentence'] must be true or false; got {_short(sentence)}")
    start = _seconds(facts.get("from", 0.0), f"{where}['from']")
    end = _seconds(facts["to"], f"{where}['to']") if "to" in facts else math.inf
    if end <= start:
        raise BadInput(f"{where}: 'to' is {end:g}, which is not after 'from' ({start:g})")
    return RecordedExpression(_text(facts, "text", where).strip(), tuple(named), start, end, KINDS[kind], sentence)


def _objects(content: Any, path: Path) -> dict[int, str]:
    if not isinstance(content, dict) or not content:
        raise BadInput(f"{path}: 'objects' must give the ids in the masks with a name each; got {_short(content)}")
    objects = {}
    for key, name in content.items():
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) < 11 else key
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= LARGEST_ID:
            raise BadInput(f"{path}: 'objects' has the id {_short(key)}; ids are whole numbers from 1")
        objects[number] = str(name)
    return objects


def _splits(facts: dict[str, Any], path: Path) -> dict[str, tuple[Interval, ...]]:
    if ("split" in facts) == ("splits" in facts):
        raise BadInput(f"{path}: either 'split' (of the whole recording) or 'splits' (by time) is needed")
    if "split" in facts:
        _known_split(facts["split"], f"{path}: 'split'")
        return {facts["split"]: ((0.0, math.inf),)}
    content = facts["splits"]
    if not isinstance(content, dict) or not content:
        raise BadInput(f"{path}: 'splits' must give intervals for at least one split; got {_short(content)}")
    splits: dict[str, tuple[Interval, ...]] = {}
    taken: list[tuple[float, float, str]] = []
    for name, parts in content.items():
        where = f"{path}: 'splits'[{name!r}]"
        _known_split(name, where)
        if not isinstance(parts, list) or not all(isinstance(part, list) and len(part) == 2 for part in parts):
            raise BadInput(f"{where} must list intervals [from, to] in seconds; got {_short(parts)}")
        splits[name] = tuple((_seconds(a, where), _seconds(b, where, endless=True)) for a, b in parts)
        taken += [(start, end, name) for start, end in splits[name]]
    taken.sort()
    for (start, end, name), (following, _, other) in zip(taken, [*taken[1:], (math.inf, math.inf, "")], strict=True):
        if end <= start or following < end:
            fault = "ends before it begins" if end <= start else f"overlaps with one of {other!r} from {following:g} s"
            raise BadInput(f"{path}: 'splits'[{name!r}]: the interval [{start:g}, {end:g}] {fault}")
    return splits


def _known_split(name: Any, where: str) -> None:
    if name not in SPLITS:
        raise BadInput(f"{where}: {_short(name)} is no split; allowed: {', '.join(SPLITS)}")


def _seconds(value: Any, where: str, endless: bool = False) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (0 <= value < math.inf or (endless and value == math.inf)):
        raise BadInput(f"{where} must be seconds after the first image, at least 0; got {_short(value)}")
    return float(value)


def _mapping(content: Any, where: str, allowed: set[str]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise BadInput(f"{where} must have the keys {', '.join(sorted(allowed))}; got {_short(content)}")
    unknown = [key for key in content if key not in allowed]
    if unknown:
        raise BadInput(f"{where} has the unknown key {_short(unknown[0])}; allowed: {', '.join(sorted(allowed))}")
    return content


def _text(facts: dict[str, Any], key: str, where: Any) -> str:
    value = facts.get(key)
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise BadInput(f"{where}: {key!r} must be a text; got {_short(value)}")
    return value


def _listed(objects: dict[int, str]) -> str:
    return ", ".join(str(number) for number in sorted(objects)[:20])


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, str) and len(value) < 60 else shown(value)
