"""Where a checkpoint may lie, and its JSON files."""

from __future__ import annotations

import pytest

from instructseg.checkpoints import read_json, resolve_checkpoint
from instructseg.core import BadInput


def test_where_a_checkpoint_may_lie(tmp_path):
    file = tmp_path / "gsva.bin"
    file.write_bytes(b"weights")
    assert resolve_checkpoint(tmp_path) == resolve_checkpoint(str(tmp_path)) == tmp_path
    assert resolve_checkpoint(file, allow_file=True) == file
    with pytest.raises(BadInput, match=r"gsva\.bin' is a file; give the folder"):
        resolve_checkpoint(file)
    with pytest.raises(BadInput, match="does not exist; give a folder, or a hub id"):
        resolve_checkpoint(tmp_path / "nowhere")
    for empty in ("", "  "):  # not the folder one happens to stand in
        with pytest.raises(BadInput, match="name is empty"):
            resolve_checkpoint(empty)
    for strange in ("~nobody-of-that-name/weights", "a" * 5000, "a\0b"):
        with pytest.raises(BadInput, match="cannot be looked up|does not exist"):
            resolve_checkpoint(strange)
    with pytest.raises(BadInput, match="no local folder and could not be fetched"):  # the tests run without network
        resolve_checkpoint("nobody/no-such-checkpoint")


def test_json_files_are_named_in_errors(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadInput, match=r"config\.json is not valid JSON"):
        read_json(tmp_path / "config.json")
    with pytest.raises(BadInput, match=rf"generation\.json is missing from the checkpoint {tmp_path}"):
        read_json(tmp_path / "generation.json")
    with pytest.raises(BadInput, match="cannot be read"):
        read_json(tmp_path)
