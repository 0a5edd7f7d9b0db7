"""scripts/train_in_parts.py: parts, what is carried from one machine to the next, exit codes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from instructseg import cli

PATH = Path(__file__).parents[2] / "scripts" / "train_in_parts.py"
_spec = importlib.util.spec_from_file_location("train_in_parts", PATH)
parts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parts)


class Training:
    """Stands for `instructseg train`: finished in the third part, wherever that runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, codes: tuple[int, ...] = (75, 75, 0)) -> None:
        self.calls: list[list[str]] = []
        self.codes = codes
        monkeypatch.setattr(cli, "main", self.train)

    def train(self, words: list[str]) -> int:
        self.calls.append(words)
        out = Path(words[words.index("--out") + 1])
        (out / "scenes" / "train").mkdir(parents=True, exist_ok=True)
        (out / "latents").mkdir(exist_ok=True)
        (out / "scenes" / "train" / "images.npy").write_text("pixels")
        (out / "plan.json").write_text("{}")
        state = out / "perception.pt"
        done = int(state.read_text()) + 1 if state.exists() else 1
        state.write_text(str(done))
        (out / "latents" / f"{done}.pt").write_text("latents")
        return self.codes[done - 1]


def test_each_part_goes_on_where_the_one_before_ended_on_another_machine(tmp_path: Path, monkeypatch) -> None:
    training, carry = Training(monkeypatch), tmp_path / "carry.tar"
    codes = []
    for machine in ("a", "b", "c"):
        out = tmp_path / machine
        words = ["--out", str(out), "--minutes", "9", "--carry", str(carry), "--", "--plan", "my.yaml"]
        codes.append(parts.main(words))
        assert (out / "perception.pt").read_text() == str(len(codes))
        assert len(list((out / "latents").iterdir())) == len(codes)
    assert codes == [75, 75, 0]
    assert training.calls[0] == ["train", "--out", str(tmp_path / "a"), "--stop-after", "9.0", "--plan", "my.yaml"]
    parts.unpack(carry, tmp_path / "d")
    assert not (tmp_path / "d" / "scenes").exists()
    assert not (tmp_path / "carry.tar.partial").exists()


def test_what_stands_in_the_folder_is_newer_than_what_is_carried(tmp_path: Path, monkeypatch) -> None:
    Training(monkeypatch)
    words = ["--out", str(tmp_path / "a"), "--minutes", "1"]
    parts.main([*words, "--carry", str(tmp_path / "carry.tar")])
    parts.main(words)
    parts.main([*words, "--carry", str(tmp_path / "carry.tar")])
    assert (tmp_path / "a" / "perception.pt").read_text() == "3"


def test_parts_go_on_until_it_is_finished_or_failed(tmp_path: Path, monkeypatch) -> None:
    training = Training(monkeypatch)
    assert parts.main(["--out", str(tmp_path / "a"), "--minutes", "1", "--parts", "0"]) == 0
    assert len(training.calls) == 3
    training = Training(monkeypatch, (75, 75, 75, 0))
    assert parts.main(["--out", str(tmp_path / "b"), "--minutes", "1", "--parts", "2"]) == 75
    training = Training(monkeypatch, (75, 2))
    carry = tmp_path / "c.tar"
    assert parts.main(["--out", str(tmp_path / "c"), "--minutes", "1", "--parts", "0", "--carry", str(carry)]) == 2
    parts.unpack(carry, tmp_path / "before")
    assert (tmp_path / "before" / "perception.pt").read_text() == "1"  # what failed is not carried


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x00" * 300])
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch, capsys, content: bytes) -> None:
    training = Training(monkeypatch)
    (tmp_path / "carry.tar").write_bytes(content)
    words = ["--out", str(tmp_path / "a"), "--minutes", "1", "--carry", str(tmp_path / "carry.tar")]
    assert parts.main(words) == 2
    assert "carry.tar cannot be read" in capsys.readouterr().err
    assert not training.calls
    with pytest.raises(SystemExit):
        parts.main([*words, "--parts", "-1"])
