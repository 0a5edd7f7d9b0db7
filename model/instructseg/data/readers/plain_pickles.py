"""Pickles of plain values only: RefCOCO's references come as one, and a pickle can otherwise run any program.

Two locks: every instruction of the file is looked at first (``pickletools``, which executes nothing) and must be one
that builds numbers, text, lists, tuples and dictionaries; then an unpickler without any class reads it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from ...core import BadInput

_MOST_BYTES = 1 << 30
_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE
    INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
_INSTRUCTIONS = frozenset(_PLAIN.split())
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
_PLACES = frozenset(("PUT", "BINPUT", "LONG_BINPUT"))


def read_plain_pickle(path: Path) -> Any:
    """The value in a pickle of Python 2 or 3; text of Python 2 without an encoding is read as Latin-1.

    Raises BadInput naming the file: missing, cut off, no pickle, or one that holds more than plain values.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise BadInput(f"{path} has {size} bytes; references of a benchmark are far smaller")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"{path} is missing") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    if data.startswith(b"version https://git-lfs"):
        raise BadInput(f"{path} is a pointer of Git LFS, not the file itself; fetch it with git lfs pull")
    _look_through(path, data)
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="latin-1").load()
    except BadInput:
        raise
    except Exception as error:  # instructions in an impossible order raise whatever they run into
        raise BadInput(f"{path} is a damaged pickle: {type(error).__name__} ({error})") from error


def _look_through(path: Path, data: bytes) -> None:
    try:
        for opcode, argument, position in _instructions(data):
            if opcode.name not in _INSTRUCTIONS:
                raise BadInput(
                    f"{path} is refused: at byte {position} it holds {opcode.name}"
                    f"{f' ({str(argument)[:60]})' if argument is not None else ''}, more than numbers, text, lists and "
                    "dictionaries, and could run a program; get the file from its owners again"
                )
            # A place in the memory of what was read: the unpickler makes room for all places before it.
            limit = position if opcode.name in _PLACES else len(data) if opcode.name == "FRAME" else None
            if limit is not None and argument > limit:
                raise BadInput(f"{path} is a damaged pickle: {opcode.name} {argument} at byte {position}")
    except BadInput:
        raise
    except Exception as error:  # readers of arguments raise ValueError for most faults, and others for some
        raise BadInput(f"{path} is no pickle or is cut off: {error}") from error


def _instructions(data: bytes) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int]]:
    """As ``pickletools.genops``, which however takes text of Python 2 for ASCII. Raises ValueError and others."""
    file, position = io.BytesIO(data), 0
    while True:
        code = file.read(1)
        if code not in _OPCODES:
            raise ValueError(f"no instruction at byte {position}" if code else "it ends without an end")
        opcode, argument = _OPCODES[code], None
        if opcode.name == "STRING":
            file.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
        yield opcode, argument, position
        if opcode.name == "STOP":
            return
        position = file.tell()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")

    def persistent_load(self, persistent_id: Any) -> NoReturn:
        raise pickle.UnpicklingError("a reference to something outside is no plain value")
