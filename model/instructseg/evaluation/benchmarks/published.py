"""Figures in print, to stand beside one's own: by recipe, benchmark and split, in percent.

Each carries the size or training it was published for; nothing is said where no figure is known. Sources: the
publications' tables and repositories. Figures of VISA are as later papers quote them.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """figures: in percent, by row and by name of the figure as in our tables. of: which model they are for."""

    of: str
    figures: dict[str, dict[str, float]]


def published_figures(recipe: str, benchmark: str, split: str) -> list[Published]:
    return list(_TABLE.get((recipe, benchmark, split), ()))


_TABLE: dict[tuple[str, str, str], list[Published]] = {}


def _add(recipe: str, benchmark: str, split: str, of: str, row: str = "overall", **figures: float) -> None:
    """One row of one model; several rows of the same model come together."""
    known = _TABLE.setdefault((recipe, benchmark, split), [])
    named = {_NAMES.get(key, key): value for key, value in figures.items()}
    for entry in known:
        if entry.of == of:
            entry.figures[row] = named
            return
    known.append(Published(of, {row: named}))


_NAMES = {"jf": "J&F", "n_acc": "N-acc", "t_acc": "T-acc", "box": "box P@0.5", "r": "R (published)",
    "giou_background": "gIoU (ignored as background)", "ciou_background": "cIoU (ignored as background)"}  # fmt: skip
_RES = (
    ("refcoco", "val"), ("refcoco", "testA"), ("refcoco", "testB"),
    ("refcoco+", "val"), ("refcoco+", "testA"), ("refcoco+", "testB"),
    ("refcocog", "val"), ("refcocog", "test"),
)  # fmt: skip


def _res(recipe: str, of: str, figure: str, *values: float) -> None:
    """The eight columns of a referring table."""
    for (benchmark, split), value in zip(_RES, values, strict=True):
        entries = _TABLE.get((recipe, benchmark, split), [])
        old = next((entry.figures["overall"] for entry in entries if entry.of == of), {})
        _add(recipe, benchmark, split, of, **{**old, figure: value})


_res("gsva", "7B pt", "cIoU", 76.4, 77.4, 72.8, 64.5, 67.7, 58.6, 71.1, 72.0)
_res("gsva", "7B ft-res", "cIoU", 77.2, 78.9, 73.5, 65.9, 69.6, 59.8, 72.7, 73.3)
_res("gsva", "13B pt", "cIoU", 77.7, 79.9, 74.2, 68.0, 71.5, 61.5, 73.2, 73.9)
_res("lisa", "7B", "cIoU", 74.1, 76.5, 71.1, 62.4, 67.4, 56.5, 66.4, 68.5)
_res("videolisa", "3.8B", "cIoU", 73.8, 76.6, 68.8, 63.4, 68.8, 56.2, 68.3, 68.8)
_res("mllmseg", "8B", "cIoU", 81.0, 82.4, 78.7, 76.4, 79.1, 72.5, 79.9, 80.8)
_res("mllmseg", "8B", "box P@0.5", 93.5, 95.0, 90.3, 89.4, 92.3, 85.2, 91.1, 91.3)
_res("instructseg", "3B", "cIoU", 85.8, 86.6, 84.0, 80.1, 83.8, 75.6, 79.3, 80.3)
for _benchmark, _value in (("refcoco", 72.4), ("refcoco+", 59.8), ("refcocog", 65.5)):
    _add("visa", _benchmark, "val", "7B", cIoU=_value)

for _split, _pt, _ft in (
    ("val", (63.47, 61.65, 56.98, 99.54), (66.43, 63.19, 62.56, 99.62)),
    ("testA", (69.99, 69.17, 63.39, 98.46), (71.06, 69.87, 65.72, 98.69)),
    ("testB", (61.34, 60.26, 58.68, 98.95), (62.20, 60.35, 60.72, 99.10)),
):
    for _of, _row in (("7B pt", _pt), ("7B ft-gres", _ft)):
        _add("gsva", "grefcoco", _split, _of, gIoU=_row[0], cIoU=_row[1], n_acc=_row[2], t_acc=_row[3])
for _split, _row in (("val", (75.1, 71.6, 73.2)), ("testA", (77.0, 76.9, 72.4)), ("testB", (69.7, 68.5, 65.5))):
    _add("mllmseg", "grefcoco", _split, "8B", gIoU=_row[0], cIoU=_row[1], n_acc=_row[2])

_add("videolisa", "reasonseg", "val", "3.8B", gIoU=61.4, cIoU=67.1)
_add("videolisa", "reasonseg", "test", "3.8B", "phrases", gIoU=43.8, cIoU=42.7)
_add("videolisa", "reasonseg", "test", "3.8B", "sentences", gIoU=56.9, cIoU=57.7)
_add("videolisa", "reasonseg", "test", "3.8B", gIoU=53.8, cIoU=54.4)
_add("instructseg", "reasonseg", "val", "3B", giou_background=61.9, ciou_background=65.2)

_add("videolisa", "reasonvos", "test", "3.8B", jf=45.1, J=43.1, F=47.1)
_add("videolisa", "reasonvos", "test", "3.8B, post-optimised", jf=47.5, J=45.1, F=49.9)
_add("videolisa", "mevis", "valid", "3.8B", jf=42.3, J=39.4, F=45.2)
_add("videolisa", "mevis", "valid", "3.8B, post-optimised", jf=44.4, J=41.3, F=47.6)
_add("videolisa", "mevis", "valid_u", "3.8B, ablation of 3,000 steps", jf=51.7, J=48.4, F=54.9)
_add("videolisa", "ref-youtube-vos", "valid", "3.8B", jf=61.7, J=60.2, F=63.3)
_add("videolisa", "ref-youtube-vos", "valid", "3.8B, post-optimised", jf=63.7, J=61.7, F=65.7)
_add("videolisa", "ref-davis17", "valid", "3.8B", jf=67.7, J=63.8, F=71.5)
_add("videolisa", "ref-davis17", "valid", "3.8B, post-optimised", jf=68.8, J=64.9, F=72.7)
_add("instructseg", "ref-youtube-vos", "valid", "3B", J=65.4, F=69.5, jf=67.5)
_add("instructseg", "ref-davis17", "valid", "3B", J=67.3, F=74.9, jf=71.1)
_add("visa", "mevis", "valid", "7B", jf=43.5)
_add("visa", "mevis", "valid", "13B", J=41.8, F=47.1, jf=44.5)
_add("visa", "ref-youtube-vos", "valid", "7B", jf=61.5)
_add("visa", "ref-youtube-vos", "valid", "13B", jf=63.0)
_add("visa", "ref-davis17", "valid", "7B", jf=69.4)
_add("visa", "ref-davis17", "valid", "13B", jf=70.4)

for _recipe, _of, _referring, _reasoning, _overall, _r in (
    ("visa", "7B", (51.1, 54.7, 52.9), (36.7, 41.7, 39.2), (43.9, 48.2, 46.1), None),
    ("visa", "13B", (52.3, 55.8, 54.1), (38.3, 43.5, 40.9), (45.3, 49.7, 47.5), None),
    ("visa", "7B, trained on ReVOS", (49.2, 52.6, 50.9), (40.6, 45.4, 43.0), (44.9, 49.0, 46.9), 15.5),
    ("visa", "13B, trained on ReVOS", (55.6, 59.1, 57.4), (42.0, 46.7, 44.3), (48.8, 52.9, 50.9), 14.5),
    ("instructseg", "3B", (54.8, 59.2, 57.0), (49.2, 54.7, 51.9), (52.0, 56.9, 54.5), None),
):
    for _row, _values in (("referring", _referring), ("reasoning", _reasoning), ("overall", _overall)):
        _extra = {"r": _r} if _row == "overall" and _r is not None else {}
        _add(_recipe, "revos", "valid", _of, _row, J=_values[0], F=_values[1], jf=_values[2], **_extra)
