"""Where a checkpoint lies: a folder, a file, or a hub id that the user named; nothing else is ever fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import BadInput

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FETCHED = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt", "*.md")


def resolve_checkpoint(checkpoint: str | Path, allow_file: bool = False, fetched: Sequence[str] = FETCHED) -> Path:
    """The local folder of a checkpoint (or its file, where the layout is one file and ``allow_file`` says so).

    A hub id (``owner/name``) is downloaded, because the user asked for it by name. fetched: patterns of the files that
    are taken from there. Raises BadInput.
    """
    if not str(checkpoint).strip():
        raise BadInput("the checkpoint's name is empty; give a folder, or a hub id of the form owner/name")
    try:
        path = Path(checkpoint).expanduser()
        is_folder, is_file, exists = path.is_dir(), path.is_file(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown ~user, a null character
        raise BadInput(f"checkpoint {str(checkpoint)[:200]!r} cannot be looked up: {error}") from error
    if is_folder or (allow_file and is_file):
        return path
    if exists:
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} is a file; give the folder that holds config.json and the weights"
        )
    if not HUB_ID.fullmatch(str(checkpoint)):
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} does not exist; give a folder, or a hub id of the form owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(checkpoint), allow_patterns=list(fetched)))
    except Exception as error:
        raise BadInput(
            f"checkpoint {str(checkpoint)!r} is no local folder and could not be fetched from the hub: {error}"
        ) from error


def read_json(path: Path) -> Any:
    """A parsed JSON file. Raises BadInput where it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path.name} is missing from the checkpoint {path.parent}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:  # the last: nested without end
        raise BadInput(f"{path} is not valid JSON: {error}") from error
