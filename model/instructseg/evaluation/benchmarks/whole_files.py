"""Files that appear when they are whole: a killed process, or a full disk, leaves what was there before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write instead; at the end it takes the place of ``path``. Raises OSError naming ``path``, and then
    nothing new is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """That text as UTF-8."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
