"""Table-driven key conversion, and the account of what became of every key. Works on names and shapes alone, so that
a published checkpoint of any size can be accounted for without its weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from ..core import BadInput

Shapes = Mapping[str, tuple[int, ...]]
_SHOWN = 8  # keys an error names before it says how many more there are


@dataclasses.dataclass(frozen=True)
class Part:
    """Keys that begin with ``source`` become ``target`` + the rest of the key, after ``renames`` of that rest.

    renames: (pattern, replacement) pairs of :func:`re.sub`, applied in order. copies: (pattern, replacement) pairs; a
    renamed rest that matches the pattern as a whole goes to the replacement as well, for tensors a model holds twice.
    """

    source: str
    target: str
    renames: tuple[tuple[str, str], ...] = ()
    copies: tuple[tuple[str, str], ...] = ()

    def targets(self, key: str) -> tuple[str, ...]:
        """The model's names for a key that begins with ``source``."""
        rest = key[len(self.source) :]
        for pattern, replacement in self.renames:
            rest = re.sub(pattern, replacement, rest)
        further = (re.sub(p, r, rest) for p, r in self.copies if re.fullmatch(p, rest))
        return tuple(self.target + name for name in (rest, *further))


@dataclasses.dataclass(frozen=True)
class Ignored:
    """Keys that match ``pattern`` as a whole are left out on purpose, because of ``reason``."""

    pattern: str
    reason: str


@dataclasses.dataclass(frozen=True)
class KeyAccount:
    """sources: model key -> checkpoint key. ignored: checkpoint key -> reason. misshapen: sentences."""

    sources: dict[str, str]
    ignored: dict[str, str]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def check(self, source: object) -> None:
        """Raise BadInput that names the keys, unless every key has its place."""
        faults = []
        for label, keys in (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of another shape", self.misshapen),
        ):
            if keys:
                more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
                faults.append(f"{len(keys)} {label}: {', '.join(keys[:_SHOWN])}{more}")
        if faults:
            raise BadInput(
                f"{source} does not fit the model ({'; '.join(faults)}); nothing was loaded. "
                "Is it the checkpoint of this recipe and size?"
            )


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of every key of a checkpoint. converted: model key -> checkpoint key of another name. remarks: what
    the weights themselves gave away, in sentences."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    converted: Mapping[str, str] = dataclasses.field(default_factory=dict)
    merged: tuple[str, ...] = ()
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{len(self.loaded)} tensors loaded, {len(self.converted)} of them under another name, {len(self.merged)} "
            f"with LoRA merged; {len(self.ignored)} ignored, {len(self.missing)} missing, "
            f"{len(self.unexpected)} unexpected"
        )

    def describe(self) -> str:
        """Several lines: the counts, the remarks, then every ignored key with its reason."""
        lines = [str(self), *(f"  {remark}" for remark in self.remarks)]
        for reason in dict.fromkeys(self.ignored.values()):
            keys = [key for key, why in self.ignored.items() if why == reason]
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            lines.append(f"  ignored, {reason}: {shown}")
        return "\n".join(lines)

    def __add__(self, other: LoadReport) -> LoadReport:
        """Both checkpoints' keys, for a model that is put together from two (a separate vision tower)."""
        return LoadReport(
            self.loaded + other.loaded,
            self.missing + other.missing,
            self.unexpected + other.unexpected,
            {**self.converted, **other.converted},
            self.merged + other.merged,
            {**self.ignored, **other.ignored},
            self.remarks + other.remarks,
        )


def account(source: Shapes, model: Shapes, parts: Sequence[Part], ignored: Sequence[Ignored] = ()) -> KeyAccount:
    """Give every key of ``source`` its place in ``model``: the first ``ignored`` or part that fits decides."""
    sources: dict[str, str] = {}
    left_out: dict[str, str] = {}
    unexpected, misshapen = [], []
    for key, shape in source.items():
        reason = next((rule.reason for rule in ignored if re.fullmatch(rule.pattern, key)), None)
        if reason is not None:
            left_out[key] = reason
            continue
        part = next((part for part in parts if key.startswith(part.source)), None)
        names = part.targets(key) if part else ()
        if not names or any(name not in model for name in names):
            unexpected.append(key)
            continue
        for name in names:
            if name in sources:
                unexpected.append(key)  # two keys for one place
            elif tuple(model[name]) != tuple(shape):
                misshapen.append(f"{key} is {tuple(shape)}, the model's is {tuple(model[name])}")
            sources.setdefault(name, key)
    missing = tuple(name for name in model if name not in sources)
    return KeyAccount(sources, left_out, missing, tuple(unexpected), tuple(misshapen))
