"""Pickles of plain values: what is admitted, and that nothing else is executed, resolved or given memory."""

from __future__ import annotations

import copyreg
import datetime
import os
import pickle
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructseg.core import BadInput
from instructseg.data.readers.plain_pickles import read_plain_pickle

ROWS = [{"ref_id": 3, "sent": "the caf\u00e9", "box": [1.5, -2], "none": None, "yes": True, "pair": (1, 2, 3, 4)}] * 2
PYTHON_2 = (  # pickle.dumps([{'sent': 'caf\xe9', u'raw': u'caf\xe9', 'ids': [1L, True]}]) of Python 2, protocol 0
    b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsVraw\np4\nVcaf\xe9\np5\nsS'ids'\np6\n(lp7\nL1L\naI01\nasa."
)


class Harmful:
    """Leaves a file behind where it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps(ROWS, protocol))
    assert read_plain_pickle(path) == ROWS


def test_text_of_python_2_is_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(PYTHON_2)
    assert read_plain_pickle(path) == [{"sent": "caf\u00e9", "raw": "caf\u00e9", "ids": [1, True]}]


@pytest.mark.parametrize("protocol", range(6))
def test_a_program_within_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    path, trace = tmp_path / "refs.p", tmp_path / "trace"
    path.write_bytes(pickle.dumps([{"ref_id": 1}, Harmful(trace)], protocol))
    with pytest.raises(BadInput, match=r"refs\.p is refused: at byte \d+ it holds (STACK_)?GLOBAL"):
        read_plain_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "GLOBAL .os system."),
        (b"(S'true'\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'true'\no.", "GLOBAL"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Pname\n.", "PERSID"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"]}b.", "BUILD"),
        (pickle.dumps(datetime.date(2020, 1, 1)), "STACK_GLOBAL"),
        (pickle.dumps({1, 2}, 4), "EMPTY_SET"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
    ],
)
def test_every_way_to_more_than_values_is_refused(content: bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=f"refs.p is refused: at byte \\d+ it holds {named}"):
        read_plain_pickle(path)


def test_a_registered_extension_is_refused(tmp_path: Path) -> None:
    copyreg.add_extension("os", "getcwd", 77)
    try:
        (tmp_path / "refs.p").write_bytes(b"\x80\x02\x82\x4d)R.")
        with pytest.raises(BadInput, match="EXT1"):
            read_plain_pickle(tmp_path / "refs.p")
    finally:
        copyreg.remove_extension("os", "getcwd", 77)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # a place so far on that its table would take 16 GB
        b"]p99999999999\n.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",  # a frame of 8 exabytes
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"abc.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
        b"L" + b"9" * 10_000 + b"L\n.",
    ],
    ids=["memo", "text memo", "frame", "bytes", "text", "long", "digits"],
)
def test_sizes_that_are_only_claimed_take_no_memory(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="refs.p is (no pickle or is cut off|a damaged pickle)"):
        read_plain_pickle(path)


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\x80\x63.", b"a.", b"]s.", b"g5\n.", b"0.", b"\x80\x02h\x05."])
def test_what_is_no_pickle_or_out_of_order_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="refs.p is "):
        read_plain_pickle(path)


@pytest.mark.parametrize("protocol", (0, 2, 4))
def test_a_cut_off_pickle_is_named_wherever_it_ends(protocol: int, tmp_path: Path) -> None:
    path, whole = tmp_path / "refs.p", pickle.dumps(ROWS, protocol)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(BadInput, match="refs.p is "):
            read_plain_pickle(path)


def test_a_missing_file_a_folder_and_a_git_lfs_pointer_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="refs.p is missing"):
        read_plain_pickle(tmp_path / "refs.p")
    with pytest.raises(BadInput, match="cannot be read"):
        read_plain_pickle(tmp_path)
    (tmp_path / "refs.p").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(BadInput, match="pointer of Git LFS"):
        read_plain_pickle(tmp_path / "refs.p")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=60), protocol=st.sampled_from((0, 2, 4)), at=st.integers(0, 10_000))
def test_damage_never_gives_another_error(data: bytes, protocol: int, at: int, tmp_path_factory) -> None:
    whole = pickle.dumps(ROWS, protocol)
    at %= len(whole)
    path = tmp_path_factory.getbasetemp() / "damaged.p"
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    try:
        value = read_plain_pickle(path)
    except BadInput as error:
        assert "damaged.p" in str(error)
    else:
        _assert_plain(value)


def _assert_plain(value: object, depth: int = 0) -> None:
    assert type(value) in (dict, list, tuple, str, bytes, int, float, bool, type(None))
    if isinstance(value, (dict, list, tuple)) and depth < 6:
        for inner in value.items() if isinstance(value, dict) else value:
            _assert_plain(inner, depth + 1)
