"""Answers on disk: one line of JSON a sample, masks as COCO run lengths, written as they come.

A folder holds one file a shard, ``predictions-0-of-4.jsonl``. The first line of a file says what was asked of whom; a
run that goes on must be the same one. A process may be killed at any time: the line it was writing is dropped, the
others count. Files of several machines are merged by lying in one folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core import BadInput

log = logging.getLogger(__name__)
PATTERN = "predictions-*.jsonl"
_FORM = 1
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """What makes two runs the same: their predictions may be mixed. samples: how many of the split are asked."""

    benchmark: str
    split: str
    samples: int
    recipe: str
    checkpoint: str
    protocol: str
    settings: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """The answer about one sample.

    masks: COCO run lengths of each frame (of an image: one), None for no mask. refused: the system says that nothing
    of the kind is there; its masks, if it gave any, are kept. score: its confidence in [0, 1]. seconds: of computing.
    soft: probabilities as grey PNG in base64, where the protocol merges them. error: what went wrong; then there are no
    masks. figures: of the streaming protocol.
    """

    index: int
    id: str
    masks: tuple[dict[str, Any] | None, ...] = ()
    refused: bool = False
    score: float = 0.0
    seconds: float = 0.0
    soft: tuple[str | None, ...] = ()
    error: str = ""
    figures: dict[str, float | None] = dataclasses.field(default_factory=dict)


class PredictionFile:
    """The file of one shard, open for appending. As a context: closed at the end."""

    def __init__(self, folder: Path, run: RunDescription, shard: tuple[int, int] = (0, 1)) -> None:
        """Raises BadInput where the folder holds another run's predictions, or a process that writes the same file."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, header in _headers(folder):
            _same_run(header, run, path)
        self.path = folder / f"predictions-{shard[0]}-of-{shard[1]}.jsonl"
        self._file = self.path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise BadInput(f"{self.path} is being written by another process; give another --out or --shard") from None
        except OSError:
            log.debug("%s: this file system has no locks", self.path)
        self._drop_broken_end()
        if self._file.seek(0, os.SEEK_END) == 0:
            self._append({"instructseg_predictions": _FORM, **dataclasses.asdict(run)})

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # After a failed write the rest of the line waits in the buffer, and closing fails as the write did.
        with contextlib.suppress(OSError) if kind is not None else contextlib.nullcontext():
            self._file.close()

    def write(self, prediction: Prediction) -> None:
        given = dataclasses.asdict(prediction)
        self._append({key: value for key, value in given.items() if value or key in ("index", "id", "masks")})

    def _append(self, value: dict[str, Any]) -> None:
        line = json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as error:  # a full disk: half a line, which the next run drops
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _drop_broken_end(self) -> None:
        """What a killed process was writing."""
        self._file.seek(0)
        content = self._file.read()
        if content and not content.endswith(b"\n"):
            self._file.truncate(content.rfind(b"\n") + 1)


def read_predictions(folder: Path, run: RunDescription | None = None) -> dict[int, Prediction]:
    """By index of the sample, from all files of a folder. Of several lines about one sample an answer counts before a
    failure, which may lie in the file of an earlier shard, and otherwise the later one.

    Raises BadInput naming file and line, and where a file belongs to another run than ``run``.
    """
    found: dict[int, Prediction] = {}
    for path in sorted(folder.glob(PATTERN)):
        lines = _lines(path)
        number, header = next(lines, (0, None))
        if header is None:
            continue  # killed while it wrote the first line
        kept = _description(header, f"{path}: line {number}")
        if run is not None:
            _same_run(kept, run, path)
        for number, line in lines:
            prediction = _prediction(line, kept.samples, f"{path}: line {number}")
            known = found.get(prediction.index)
            if known is None or known.error or not prediction.error:
                found[prediction.index] = prediction
    return found


def described_run(folder: Path) -> RunDescription | None:
    """Whose predictions a folder holds; None: none yet."""
    return next((run for _, run in _headers(folder)), None)


def check_not_newer(folder: Path, checkpoint: str | Path | None) -> None:
    """Raises BadInput where weights were written after the last answer: of weights that were trained on under the same
    name, old answers would be scored. A hub id has no date here."""
    path = Path(checkpoint) if checkpoint else None
    if path is None or not path.exists():
        return
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in _WEIGHTS]
    written = max((file.stat().st_mtime_ns for file in files), default=0)
    for answers in sorted(folder.glob(PATTERN)):
        if answers.stat().st_mtime_ns < written:
            raise BadInput(
                f"{checkpoint} was written after the answers in {answers}; give another --out or delete the folder "
                f"to ask again, add --score to score the old answers, or `touch {answers}` if the weights are the same"
            )


def _headers(folder: Path) -> Iterator[tuple[Path, RunDescription]]:
    """Of every file that has one: a process may have been killed before."""
    for path in sorted(folder.glob(PATTERN)):
        for number, header in itertools.islice(_lines(path), 1):
            yield path, _description(header, f"{path}: line {number}")


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    return
                yield number, _object(line, f"{path}: line {number}")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is no JSON ({error}); delete that line to have its sample asked again") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be an object; got {str(value)[:60]}; delete it to have its sample asked again")
    return value


def _description(header: dict[str, Any], where: str) -> RunDescription:
    if header.pop("instructseg_predictions", None) != _FORM:
        raise BadInput(f"{where} must be the header of a predictions file of form {_FORM}; got {str(header)[:80]}")
    try:
        run = RunDescription(**header)
    except TypeError as error:
        raise BadInput(f"{where} is no header of a predictions file: {error}") from None
    if not isinstance(run.samples, int) or run.samples < 1 or not isinstance(run.settings, dict):
        raise BadInput(f"{where} is no header of a predictions file: {str(header)[:80]}")
    return run


def _same_run(kept: RunDescription, run: RunDescription, path: Path) -> None:
    for field in dataclasses.fields(RunDescription):
        old, new = getattr(kept, field.name), getattr(run, field.name)
        if old != new:
            raise BadInput(
                f"{path} holds predictions of another run: its {field.name} is {old!r}, now it is {new!r}; "
                "give another --out, or delete the folder"
            )


_TYPES = {"refused": bool, "score": (int, float), "seconds": (int, float), "error": str, "figures": dict}
_KNOWN = {field.name for field in dataclasses.fields(Prediction)}


def _prediction(line: dict[str, Any], samples: int, where: str) -> Prediction:
    index, name = line.get("index"), line.get("id")
    if type(index) is not int or not 0 <= index < samples or not isinstance(name, str) or set(line) - _KNOWN:
        raise BadInput(f"{where} must have 'index' below {samples}, 'id' and known keys only; got {str(line)[:80]}")
    for key in ("masks", "soft"):
        if not isinstance(line.setdefault(key, []), list):
            raise BadInput(f"{where}: {key!r} must be a list, one entry a frame; got {str(line[key])[:60]}")
        line[key] = tuple(line[key])
    for key, kinds in _TYPES.items():
        if key in line and not isinstance(line[key], kinds):
            raise BadInput(f"{where}: {key!r} has a value of the wrong kind: {str(line[key])[:60]!r}")
    return Prediction(**line)
