"""All sentences about one thing as one instruction, as InstructSeg evaluates RefCOCO."""

from __future__ import annotations

import dataclasses
import itertools

from ...core import BadInput
from ...data.samples import Dataset, Sample


class JoinedReferences(Dataset):
    """One sample a reference: ``s1. s2. s3.``. Sentences of one reference stand together in the data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.name, self.split, self._dataset = dataset.name, dataset.split, dataset
        runs = itertools.groupby(range(len(dataset)), key=self._reference)
        self._runs = [tuple(indices) for _, indices in runs]

    def __len__(self) -> int:
        return len(self._runs)

    def __getitem__(self, index: int) -> Sample:
        parts = [self._dataset[i] for i in self._runs[index]]
        texts = " ".join(f"{part.instruction}." for part in parts)
        reference = str(parts[0].extra["ref_id"])
        return dataclasses.replace(parts[0], id=reference, instruction=texts, expression=reference)

    def _reference(self, index: int) -> object:
        try:
            return self._dataset[index].extra["ref_id"]
        except BadInput:
            return f"broken {index}"  # stays a sample of its own, which is an error when it is looked at
