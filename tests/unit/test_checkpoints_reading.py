"""Checkpoint files as users have them: whole, in shards, damaged, half fetched, of another kind, or with code in
them. Each bad one ends in one BadInput that names the file."""

from __future__ import annotations

import json
import os
import pickle
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from unit.fakes import unhurried

from instructseg.checkpoints import building, open_tensors, read_tensors
from instructseg.core import BadInput

TENSORS = {
    "layer.weight": torch.arange(12, dtype=torch.float32).reshape(3, 4),
    "layer.bias": torch.tensor([1.5, -2.0, 0.25], dtype=torch.bfloat16),
    "steps": torch.tensor(7),
}


def save_legacy(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """The format of torch before 1.6, which is no zip archive."""
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


SAVERS: dict[str, tuple[str, Callable]] = {
    "safetensors": ("model.safetensors", save_file),
    "bin": ("pytorch_model.bin", torch.save),
    "legacy bin": ("pytorch_model.bin", save_legacy),
}


def write_sharded(folder: Path, kind: str, weight_map: dict | None = None) -> Path:
    """One shard per tensor, with the index (``weight_map`` in place of the right one); returns the index."""
    name, save = SAVERS[kind]
    stem, suffix = name.rsplit(".", 1)
    right = {}
    for number, (key, tensor) in enumerate(TENSORS.items(), start=1):
        right[key] = f"{stem}-{number:05}-of-{len(TENSORS):05}.{suffix}"
        save({key: tensor}, folder / right[key])
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": right if weight_map is None else weight_map}))
    return index


def same(found, expected=TENSORS) -> None:
    assert dict(found.shapes) == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    assert set(found) == set(expected) and len(found) == len(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


# What can be read


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("sharded", [False, True])
def test_folders_of_one_file_or_of_shards(tmp_path, kind, sharded):
    name, save = SAVERS[kind]
    if sharded:
        write_sharded(tmp_path, kind)
    else:
        save(TENSORS, tmp_path / name)
    found = open_tensors(tmp_path)
    same(found)
    assert str(tmp_path) in str(found.source)


@pytest.mark.parametrize("kind", SAVERS)
def test_one_file_of_any_name(tmp_path, kind):
    name, save = SAVERS[kind]
    path = tmp_path / f"gsva-7b{Path(name).suffix}"
    save(TENSORS, path)
    same(open_tensors(path))
    same(open_tensors(tmp_path))  # the only weights of the folder
    assert open_tensors(tmp_path).source == path


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "module"])
def test_a_state_dict_under_one_key_is_unwrapped(tmp_path, wrapper):
    torch.save({wrapper: TENSORS}, tmp_path / "pytorch_model.bin")
    same(open_tensors(tmp_path))


def test_the_safer_format_is_read_where_both_are_there(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80 never opened")
    write_sharded(tmp_path, "bin")
    save_file(TENSORS, tmp_path / "model.safetensors")
    found = open_tensors(tmp_path)
    same(found)
    assert found.source.name == "model.safetensors"


def test_an_index_goes_before_a_single_file(tmp_path):
    write_sharded(tmp_path, "safetensors")
    save_file({"leftover": torch.zeros(1)}, tmp_path / "model.safetensors")
    same(open_tensors(tmp_path))


# Damaged files


@pytest.mark.parametrize("kind", SAVERS)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_named(tmp_path, kind, kept):
    name, save = SAVERS[kind]
    save(TENSORS, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    os.truncate(tmp_path / name, int(len(content) * kept))
    with pytest.raises(BadInput, match=f"{name} is not a readable .* fetched completely"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("kind", SAVERS)
def test_a_shard_cut_short_is_named(tmp_path, kind):
    index = write_sharded(tmp_path, kind)
    shard = sorted(json.loads(index.read_text())["weight_map"].values())[1]
    os.truncate(tmp_path / shard, (tmp_path / shard).stat().st_size - 1)
    with pytest.raises(BadInput, match=f"{shard} is not a readable"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_to_the_weights_is_recognised(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 13476939516\n")
    with pytest.raises(BadInput, match=f"{name} is a Git LFS pointer .* 'git lfs pull'"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_web_page_in_place_of_the_weights_is_named(tmp_path, name):
    (tmp_path / name).write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    with pytest.raises(BadInput, match=f"{name} is .* fetched completely"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 99]}}',
        b'{"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
        b'{"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}',
    ],
)
def test_headers_that_lie_are_refused(tmp_path, header):
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(BadInput, match="not a readable safetensors file"):
        open_tensors(tmp_path)
    with pytest.raises(BadInput, match="not a readable safetensors file"):
        read_tensors(path)
    path.write_bytes(struct.pack("<Q", 2**62) + header)
    with pytest.raises(BadInput, match="not a readable safetensors file"):
        open_tensors(tmp_path)


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> list[tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("whole")
    files = []
    for name, save in SAVERS.values():
        save(TENSORS, folder / name)
        files.append((Path(name).suffix, (folder / name).read_bytes()))
        (folder / name).unlink()
    return files


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@unhurried
@given(seed=st.integers(0, 2**32 - 1))
def test_damaged_bytes_are_read_or_refused_and_nothing_else(seed, whole_files, tmp_path_factory):
    rng = random.Random(seed)
    for suffix, content in whole_files:
        damaged = bytearray(content[: rng.randrange(len(content))] if rng.random() < 0.3 else content)
        for _ in range(rng.randint(1, 4)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path = tmp_path_factory.mktemp("damaged") / f"weights{suffix}"
        path.write_bytes(damaged)
        try:
            found = open_tensors(path)
        except BadInput as error:
            assert str(path) in str(error)
        else:
            assert all(tuple(found[name].shape) == shape for name, shape in found.shapes.items())


# Files that hold more than tensors


class Planted:
    """Pickled, it makes a folder when it is unpickled without care."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "write",
    [
        lambda content, path: torch.save(content, path),
        lambda content, path: save_legacy(content, path),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
        lambda content, path: path.write_bytes(pickle.dumps(content)),
    ],
    ids=["zip", "legacy", "pickle protocol 2", "pickle"],
)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "weights.pth"])
def test_code_in_a_pickle_is_not_run(tmp_path, write, name):
    planted = tmp_path / "planted"
    write({**TENSORS, "payload": Planted(planted)}, tmp_path / name)
    with pytest.raises(BadInput, match=f"{name} holds more than tensors.*safetensors") as caught:
        open_tensors(tmp_path)
    assert not planted.exists()
    assert "weights_only" not in str(caught.value)  # no advice to switch the safeguard off


def test_the_pickled_name_that_was_refused_is_told(tmp_path):
    torch.save({"where": Path("somewhere")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"more than tensors, namely pathlib\S+, and was not loaded"):
        open_tensors(tmp_path)


def test_code_in_a_shard_is_not_run(tmp_path):
    index = write_sharded(tmp_path, "bin")
    shard = json.loads(index.read_text())["weight_map"]["steps"]
    planted = tmp_path / "planted"
    torch.save({"steps": Planted(planted)}, tmp_path / shard)
    with pytest.raises(BadInput, match=f"{shard} holds more than tensors"):
        open_tensors(tmp_path)
    assert not planted.exists()


@pytest.mark.parametrize(
    "content", [{}, [torch.zeros(1)], {"epoch": 3}, {0: torch.zeros(1)}, {"model": {"a": {"b": torch.zeros(1)}}}]
)
def test_a_file_that_is_no_flat_table_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"pytorch_model\.bin is no flat table of tensors"):
        open_tensors(tmp_path)


# Indexes


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_missing_shard_is_named(tmp_path, kind):
    index = write_sharded(tmp_path, kind)
    shard = json.loads(index.read_text())["weight_map"]["steps"]
    (tmp_path / shard).unlink()
    with pytest.raises(BadInput, match=f"{shard} is missing from the checkpoint {tmp_path}"):
        open_tensors(tmp_path)
    (tmp_path / shard).symlink_to(tmp_path / "blob-that-was-removed")  # as in a hub cache that was cleaned
    with pytest.raises(BadInput, match=f"{shard} is missing from the checkpoint {tmp_path}"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not valid JSON"),
        (b"{'weight_map': {}}", "is not valid JSON"),
        (b'{"weight_map": {"a": "model-0', "is not valid JSON"),
        (b"\xff\xfe\x00", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
        (b"[]", "has no 'weight_map'"),
        (b"null", "has no 'weight_map'"),
        (b"{}", "has no 'weight_map'"),
        (b'{"weight_map": {}}', "has no 'weight_map'"),
        (b'{"weight_map": ["a"]}', "has no 'weight_map'"),
        (b'{"weight_map": {"a": 1}}', "has no 'weight_map'"),
        (b'{"weight_map": {"a": "../outside.safetensors"}}', "only files of the same folder"),
        (b'{"weight_map": {"a": "/etc/passwd"}}', "only files of the same folder"),
        (b'{"weight_map": {"a": ""}}', "only files of the same folder|is missing"),
    ],
)
def test_an_index_that_is_none_is_named(tmp_path, content, said):
    save_file({"a": torch.zeros(1)}, tmp_path.parent / "outside.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content)
    with pytest.raises(BadInput, match=said):
        open_tensors(tmp_path)


def test_a_tensor_that_its_shard_lacks_is_named(tmp_path):
    right = json.loads(write_sharded(tmp_path, "safetensors").read_text())["weight_map"]
    write_sharded(tmp_path, "safetensors", right | {"head.weight": right["steps"]})
    with pytest.raises(BadInput, match=rf"{right['steps']} lacks 1 tensor.*'head\.weight'"):
        open_tensors(tmp_path)


def test_a_tensor_in_two_shards_is_named(tmp_path):
    right = json.loads(write_sharded(tmp_path, "safetensors").read_text())["weight_map"]
    save_file({"steps": torch.tensor(8), "layer.bias": TENSORS["layer.bias"]}, tmp_path / right["layer.bias"])
    with pytest.raises(BadInput, match=rf"{right['layer.bias']} holds 1 tensor.*does not name.*'steps'"):
        open_tensors(tmp_path)


def test_an_index_of_another_checkpoint_is_noticed(tmp_path):
    right = json.loads(write_sharded(tmp_path, "bin").read_text())["weight_map"]
    swapped = dict(zip(right, reversed(right.values()), strict=True))
    write_sharded(tmp_path, "bin", swapped)
    with pytest.raises(BadInput, match="lacks 1 tensor"):
        open_tensors(tmp_path)


# Folders


def test_a_folder_without_weights_says_what_it_should_hold(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"holds no weights; it should hold model\.safetensors or pytorch_model\.bin"):
        open_tensors(tmp_path)
    with pytest.raises(BadInput, match="nowhere holds no weights"):
        open_tensors(tmp_path / "nowhere")


def test_several_files_without_index_are_not_guessed_at(tmp_path):
    save_file(TENSORS, tmp_path / "first.safetensors")
    torch.save(TENSORS, tmp_path / "second.bin")
    with pytest.raises(BadInput, match=r"several weight files and no index: \['first.safetensors', 'second.bin'\]"):
        open_tensors(tmp_path)


def test_a_folder_in_place_of_the_weights_is_refused(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        open_tensors(tmp_path)
    with pytest.raises(BadInput, match=r"model\.safetensors"):
        read_tensors(tmp_path / "model.safetensors")


def test_a_pickle_of_another_protocol_is_refused_without_the_library_speaking(tmp_path, recwarn):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": os.system}, protocol=4))
    with pytest.raises(BadInput, match="pytorch_model.bin holds more than tensors"):
        open_tensors(tmp_path)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (KeyError("zelu"), "config.json: .*'zelu' is not known"),
        (TypeError("Validation error:\n    expected int, got str"), "config.json: .*: expected int, got str"),
        (RuntimeError(), "config.json: .*RuntimeError"),
        (BadInput("depth must be odd; got 2"), "config.json: depth must be odd; got 2"),
    ],
)
def test_what_no_network_can_be_built_from_is_named(fault, words):
    with pytest.raises(BadInput, match=words), building("folder/config.json"):
        raise fault


def test_other_errors_pass_while_building():
    with pytest.raises(MemoryError), building("folder/config.json"):
        raise MemoryError
