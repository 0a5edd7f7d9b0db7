"""Options of a recipe: from text to a typed dataclass, and every way to write one wrongly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from instructseg import cli
from instructseg.core import BadInput
from instructseg.options import describe_options, parse_options, split_assignments


@dataclasses.dataclass(frozen=True)
class Options:
    rule: Literal["mask", "token"] = dataclasses.field(default="mask", metadata={"help": "what decides"})
    frames: int = dataclasses.field(default=4, metadata={"low": 1, "high": 64})
    share: float = 0.5
    clip: str = ""
    lenient: bool = False
    window: Literal[0, 5] = 0
    rank: int = dataclasses.field(default=8, metadata={"low": 1})


def test_texts_become_typed_values() -> None:
    texts = {"rule": "token", "frames": "8", "share": "0.25", "clip": "a/b", "lenient": "yes", "window": "5"}
    assert parse_options(Options, texts, "recipe x") == Options("token", 8, 0.25, "a/b", True, 5)
    assert parse_options(Options, None, "recipe x") == Options()
    assert parse_options(Options, {"frames": 8, "lenient": True, "window": 5}, "recipe x") == Options(
        frames=8, lenient=True, window=5
    )


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rule", "both", r"recipe x option rule must be one of mask, token; got 'both'"),
        ("frames", "many", r"frames must be a whole number in 1..64; got 'many'"),
        ("frames", "65", r"frames must be a whole number in 1..64; got '65'"),
        ("frames", 2.5, r"whole number"),
        ("frames", True, r"whole number"),
        ("rank", "0", r"rank must be a whole number of at least 1; got '0'"),
        ("share", "nan", r"share must be a number; got 'nan'"),
        ("share", "inf", r"must be a number"),
        ("lenient", "maybe", r"lenient must be true or false; got 'maybe'"),
        ("clip", 5, r"clip must be text; got 5"),
        ("frame", "5", r"recipe x has no option 'frame'; it has clip, frames"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: object, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_options(Options, {name: value}, "recipe x")


def test_assignments() -> None:
    assert split_assignments(["a=1", "", "b = x=y "], "--option") == {"a": "1", "b": "x=y"}
    for wrong in ("a", "=1", " =1"):
        with pytest.raises(BadInput, match="must be written key=value"):
            split_assignments([wrong], "--option")
    with pytest.raises(BadInput, match="sets 'a' twice"):
        split_assignments(["a=1", "a=2"], "--option")


def test_every_option_is_described() -> None:
    described = {name: (default, text) for name, default, text in describe_options(Options)}
    assert described["rule"] == ("'mask' (mask, token)", "what decides")
    assert described["frames"][0] == "4 (a whole number in 1..64)"
    assert len(described) == len(dataclasses.fields(Options))


def test_the_command_line_refuses_a_wrong_option(tmp_path: Path, capsys) -> None:
    assert cli.main(["inspect", "--option", "frames"]) == 2
    assert "--option must be written key=value" in capsys.readouterr().err
    assert cli.main(["inspect", "--option", "frames=3"]) == 2
    assert "recipe unified has no option 'frames'; it has none" in capsys.readouterr().err


def test_inspect_accounts_for_the_shipped_checkpoint(capsys) -> None:
    assert cli.main(["inspect", "--device", "cpu"]) == 0
    assert "0 ignored, 0 missing, 0 unexpected" in capsys.readouterr().out
