"""What RefCOCO's family and gRefCOCO share: references to annotations of COCO images, one sample a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...core import BadInput
from ..samples import Dataset, Kind, Sample
from .coco_index import CocoIndex, CocoTruth, open_index, whole, words
from .image_files import one_image
from .json_files import shown

COCO_2014 = ("images/mscoco/images/train2014", "images/train2014", "train2014", "coco/train2014")
_MOST_SENTENCES = 5_000_000  # in the published files: 142,000 at most; a file can repeat its parts without growing


@dataclasses.dataclass(frozen=True)
class Sentence:
    id: int
    text: str  # in lower case and without punctuation, as all systems are trained on
    raw: str


@dataclasses.dataclass(frozen=True)
class Reference:
    """annotations: empty where the sentences name nothing that is there. fault: why it cannot be used."""

    id: int
    image_id: int
    annotations: tuple[int, ...]
    sentences: tuple[Sentence, ...]
    fault: str = ""


class ReferringImages(Dataset):
    """One split: its references, and the index of the annotations that they name. A broken one counts as a sample."""

    def __init__(self, folder: Path, references: list[Reference], images: Path) -> None:
        self.index: CocoIndex = open_index(folder / "instances.json")
        self.references, self._images = references, images
        counts = [max(1, len(reference.sentences)) for reference in references]
        self._of = np.repeat(np.arange(len(references)), counts)  # (samples,): the reference of each
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._of)

    def __getitem__(self, index: int) -> Sample:
        """Raises BadInput for a broken reference, and for one to an image or annotation that ``instances.json``
        lacks."""
        index = range(len(self))[index]
        reference = self.references[self._of[index]]
        if reference.fault:
            raise BadInput(reference.fault)
        sentence = reference.sentences[index - self._first[self._of[index]]]
        image = self.index.image(reference.image_id)
        rows = tuple(self.index.place(number) for number in reference.annotations)
        for row in rows:
            if self.index.image_of[row] != reference.image_id:
                raise BadInput(
                    f"{self.index.path}: annotation {self.index.ids[row]} belongs to image {self.index.image_of[row]}, "
                    f"reference {reference.id} is about image {reference.image_id}"
                )
        picture = self._images / image.file_name
        categories = [int(self.index.category_of[row]) for row in rows]
        return Sample(
            id=f"{reference.id}/{sentence.id}",
            footage=one_image(picture),
            instruction=sentence.text,
            objects=tuple(str(number) for number in reference.annotations),
            truth=CocoTruth(self.index, reference.image_id, picture, tuple((row,) for row in rows)),
            kind=Kind.REFERRING if rows else Kind.NO_TARGET,
            expression=str(sentence.id),
            extra={
                "ref_id": reference.id,
                "image_id": reference.image_id,
                "raw": sentence.raw,
                "categories": [self.index.categories.get(number, str(number)) for number in categories],
                "boxes": self.index.boxes[list(rows)].tolist() if rows else [],  # x, y, width, height
            },
        )


def image_folder(root: Path, places: tuple[str, ...] = COCO_2014) -> Path:
    """The folder of the images under a root: COCO's of 2014, as ``refer`` lays them out or as COCO does.

    Raises BadInput naming the places that were looked at.
    """
    for name in places:
        if (root / name).is_dir():
            return root / name
    raise BadInput(f"{root} has no folder of the images; looked for {', '.join(places)}")


def parse_references(rows: Any, split: str, path: Path, several: bool) -> list[Reference]:
    """The references of a split from the rows of a reference file.

    several: ``ann_id`` is a list, ``[-1]`` for no target (gRefCOCO); else one number. Where a row of the split is
    broken, its reference says why. Raises BadInput naming the file and the row where a row is of no split at all.
    """
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path} must hold a list of references; got {type(rows).__name__} of no use")
    total = sum(
        len(row["sentences"]) for row in rows if isinstance(row, dict) and isinstance(row.get("sentences"), list)
    )
    if total > _MOST_SENTENCES:
        raise BadInput(f"{path} has {total} sentences, more than {_MOST_SENTENCES}: no file of this benchmark")
    references = []
    for index, row in enumerate(rows):
        where = f"{path}: reference [{index}]"
        if not isinstance(row, dict):
            raise BadInput(f"{where} must be a dictionary; got {shown(row)!r}")
        if words(row, "split", where) == split:
            references.append(_reference(row, several, where))
    if not references:
        there = sorted({row["split"][:20] for row in rows})
        raise BadInput(f"{path} has no references of the split {split!r}; it has: {', '.join(there[:12])}")
    return references


def _reference(row: dict, several: bool, where: str) -> Reference:
    try:
        sentences = tuple(_sentences(row.get("sentences"), where))
        annotations = _annotations(row.get("ann_id"), several, where)
        return Reference(whole(row, "ref_id", where), whole(row, "image_id", where), annotations, sentences)
    except BadInput as error:
        return Reference(-1, -1, (), (), str(error))


def _sentences(sentences: Any, where: str) -> Iterator[Sentence]:
    if not isinstance(sentences, list) or not sentences:
        raise BadInput(f"{where}: 'sentences' must be a list of at least one; got {shown(sentences)}")
    for index, sentence in enumerate(sentences):
        here = f"{where}: 'sentences'[{index}]"
        if not isinstance(sentence, dict):
            raise BadInput(f"{here} must be a dictionary; got {shown(sentence)!r}")
        text = words(sentence, "sent", here)
        raw = sentence.get("raw")
        yield Sentence(whole(sentence, "sent_id", here), text, raw if isinstance(raw, str) else text)


def _annotations(value: Any, several: bool, where: str) -> tuple[int, ...]:
    if not several:
        return (whole({"ann_id": value}, "ann_id", where),)
    if not isinstance(value, list) or not value:
        raise BadInput(f"{where}: 'ann_id' must be a list of ids, [-1] for no target; got {shown(value)}")
    numbers = tuple(whole({"ann_id": number}, "ann_id", where) for number in value)
    if numbers == (-1,):
        return ()
    if -1 in numbers or len(set(numbers)) < len(numbers):
        raise BadInput(f"{where}: 'ann_id' names one twice, or none beside some: {shown(value)}")
    return numbers
