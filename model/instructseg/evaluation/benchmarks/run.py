"""From a data set to predictions on disk: every sample that is not there yet, a failing one by name and not fatal."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

from ...core import BadInput, Segmenter
from ...data.samples import Dataset, Sample
from .footages import EncodedFootage
from .predictions import Prediction, PredictionFile
from .protocol import Protocol
from .ways import Answer, find_way, options_set

log = logging.getLogger(__name__)
ASKED_TOGETHER = 16  # samples of one footage before something is written


@dataclasses.dataclass(frozen=True)
class Asked:
    index: int
    sample: Sample


Answering = Callable[[Sequence[Asked]], list[Prediction]]


class Offline:
    """Answers about recorded footage, with all of it at hand."""

    def __init__(self, segmenter: Segmenter, protocol: Protocol, rate: float) -> None:
        self.segmenter, self.protocol, self.rate = segmenter, protocol, rate
        self._way = find_way(protocol.frames)
        self._frames: EncodedFootage | None = None

    def __call__(self, asked: Sequence[Asked]) -> list[Prediction]:
        """All of one footage and, where options differ between them, all sentences or all phrases."""
        samples = [a.sample for a in asked]
        started = time.perf_counter()
        changes = self.protocol.sentence if samples[0].is_sentence else self.protocol.phrase
        with options_set(self.segmenter, changes):
            answers = self._way(self.segmenter, self._footage(samples[0]), samples, self.protocol)
        seconds = (time.perf_counter() - started) / len(asked)
        return [_prediction(a, answer, seconds) for a, answer in zip(asked, answers, strict=True)]

    def _footage(self, sample: Sample) -> EncodedFootage:
        if self._frames is None or self._frames.footage.name != sample.footage.name:
            self._frames = None  # before the next one takes memory
            self._frames = EncodedFootage(self.segmenter, sample.footage, self.rate)
        return self._frames


def predict(
    answering: Answering,
    dataset: Dataset,
    groups: Sequence[Sequence[int]],
    file: PredictionFile,
    at_once: int = ASKED_TOGETHER,
    progress: bool = True,
) -> int:
    """Ask about the samples of each group and write what comes; how many failed."""
    failed, total = 0, sum(map(len, groups))
    with tqdm(total=total, desc="asking", unit=" samples", disable=None if progress else True) as bar:
        for group in groups:
            for part in _parts([_look(dataset, index) for index in group], at_once):
                predictions = [part[0]] if isinstance(part[0], Prediction) else _answers(answering, part)
                for prediction in predictions:
                    file.write(prediction)
                    failed += bool(prediction.error)
                bar.update(len(predictions))
    return failed


def _answers(answering: Answering, asked: Sequence[Asked]) -> list[Prediction]:
    """One after the other where they fail together, so that each error belongs to its sample."""
    try:
        return answering(asked)
    except Exception as error:  # whatever a model raises; BadInput of a file or a text among it
        if len(asked) > 1:
            return [answer for one in asked for answer in _answers(answering, [one])]
        return [_failure(asked[0].index, asked[0].sample.id, error)]


def _parts(members: Sequence[Asked | Prediction], at_once: int) -> Iterator[list]:
    """Sentences apart from phrases, a few at a time; what could not be read by itself."""
    for kind in (True, False):
        asked = [m for m in members if isinstance(m, Asked) and m.sample.is_sentence is kind]
        for first in range(0, len(asked), at_once):
            yield asked[first : first + at_once]
    yield from ([member] for member in members if isinstance(member, Prediction))


def _look(dataset: Dataset, index: int) -> Asked | Prediction:
    try:
        return Asked(index, dataset[index])
    except BadInput as error:
        return _failure(index, f"sample {index}", error)


def _failure(index: int, name: str, error: Exception) -> Prediction:
    words = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
    log.warning("%s failed and counts as zero: %s", name, words)
    return Prediction(index, name, error=words[:2000] or type(error).__name__)


def _prediction(asked: Asked, answer: Answer, seconds: float) -> Prediction:
    soft = tuple(answer.soft) if any(text is not None for text in answer.soft) else ()
    return Prediction(
        asked.index, asked.sample.id, tuple(answer.masks), answer.refused, float(answer.score), round(seconds, 4), soft
    )
