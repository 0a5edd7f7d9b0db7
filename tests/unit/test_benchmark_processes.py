"""Runs that are killed, split and merged: the table is that of one undisturbed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from unit import miniature_data, miniature_videos
from unit.fakes import eventually
from unit.known_answers import KnownSegmenter, exact_images, exact_videos, with_known_recipe

from instructseg import cli
from instructseg.core import BadInput
from instructseg.evaluation.benchmarks.predictions import PredictionFile
from instructseg.evaluation.benchmarks.shards import Shard, Together, parse_shard
from instructseg.registry import RECIPES


@pytest.fixture(autouse=True)
def known_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructseg.registry.RECIPES", dict(RECIPES))
    with_known_recipe()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return exact_videos(tmp_path / "data", miniature_videos.ref_youtube_vos(tmp_path / "data"))


def words_for(root: Path, out: Path, *more: object) -> list[str]:
    asked = ["eval", "ref-youtube-vos", "--root", root, "--split", "train", "--recipe", "known", "--out", out]
    return [str(word) for word in (*asked, *more)]


def run(segmenter: KnownSegmenter | None, words: list[str]) -> int:
    arguments = cli.build_parser().parse_args(words)
    return arguments.run(arguments, segmenter)


def table(out: Path) -> dict:
    """Without what may differ between two runs: the seconds they took."""
    content = json.loads((out / "scores.json").read_text())
    return {key: value for key, value in content.items() if key != "seconds_per_sample"}


def start(words: list[str], **environment: str) -> subprocess.Popen:
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    shared = {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
    command = [sys.executable, "-m", "unit.known_answers", *words]
    return subprocess.Popen(command, env=os.environ | shared, stderr=subprocess.PIPE, text=True)


@pytest.mark.process
def test_a_killed_run_goes_on_where_it_stopped(root: Path, tmp_path: Path) -> None:
    """It is killed while it asks about the second video; what was being written is half a line."""
    slow = ("--option", "slow_after=1", "--option", "slow_s=120")
    killed = start(words_for(root, tmp_path / "killed", *slow))
    kept = tmp_path / "killed" / "predictions-0-of-1.jsonl"
    try:
        assert eventually(lambda: kept.exists() and kept.read_bytes().count(b"\n") == 5, timeout_s=60)  # header and 4
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.communicate(timeout=30)
    with kept.open("ab") as file:
        file.write(b'{"index":4,"id":"01baa5')
    segmenter = KnownSegmenter()
    assert run(segmenter, words_for(root, tmp_path / "killed", *slow)) == 0
    assert segmenter.asked == [[f"Thing {i} on the {i // 2 + 1}. row" for i in range(4)]]  # about one video only
    assert run(KnownSegmenter(), words_for(root, tmp_path / "whole", *slow)) == 0
    assert table(tmp_path / "killed") == table(tmp_path / "whole")


def test_shards_of_two_machines_give_the_table_of_one(root: Path, tmp_path: Path, capsys) -> None:
    first, second = KnownSegmenter(), KnownSegmenter()
    assert run(first, words_for(root, tmp_path / "out", "--shard", "0/2")) == 0
    assert not (tmp_path / "out" / "scores.json").exists()
    assert "the same command without --shard scores them" in capsys.readouterr().out
    assert run(second, words_for(root, tmp_path / "out", "--shard", "1/2")) == 0
    assert len(first.asked) == len(second.asked) == 1  # a video each
    nobody = KnownSegmenter()
    assert run(nobody, words_for(root, tmp_path / "out")) == 0
    assert nobody.asked == []
    assert run(KnownSegmenter(), words_for(root, tmp_path / "whole")) == 0
    assert table(tmp_path / "out") == table(tmp_path / "whole")


def test_a_machine_that_never_came_counts_as_zero_and_is_reported(root: Path, tmp_path: Path, capsys) -> None:
    run(KnownSegmenter(), words_for(root, tmp_path / "out", "--shard", "0/2"))
    assert run(None, words_for(root, tmp_path / "out", "--score")) == 1
    printed = capsys.readouterr().out
    assert "4 without a prediction, counted as zero:\n  01baa5a4e1/0\n" in printed
    scores = table(tmp_path / "out")
    assert scores["missing"] == [f"01baa5a4e1/{i}" for i in range(4)]
    assert scores["table"]["overall"]["J&F"] == pytest.approx(0.5)


def test_what_failed_is_asked_again_only_on_request(root: Path, tmp_path: Path) -> None:
    broken = KnownSegmenter(broken=["Thing 0 on the 1. row"])
    assert run(broken, words_for(root, tmp_path / "out")) == 1
    again = KnownSegmenter()
    assert run(again, words_for(root, tmp_path / "out")) == 1
    assert again.asked == []
    assert run(again, words_for(root, tmp_path / "out", "--retry")) == 0
    assert again.asked == [["Thing 0 on the 1. row"]] * 2
    assert table(tmp_path / "out")["failed"] == {}


def test_an_answer_counts_before_an_earlier_failure_in_the_file_of_a_shard(root: Path, tmp_path: Path) -> None:
    """The answer lies in predictions-0-of-1, which is read first."""
    broken = KnownSegmenter(broken=["Thing 0 on the 1. row"])
    for shard in ("0/2", "1/2"):
        run(broken, words_for(root, tmp_path / "out", "--shard", shard))
    assert run(KnownSegmenter(), words_for(root, tmp_path / "out", "--retry")) == 0
    assert table(tmp_path / "out")["failed"] == {}


def test_a_full_disk_is_named_and_the_next_run_goes_on(root: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Half of the third answer's line fits; what is left in the buffer is not written by closing either."""
    out, append = tmp_path / "out", PredictionFile._append
    lines = []

    def until_full(file: PredictionFile, value: dict) -> None:
        lines.append(value)
        if len(lines) == 4:
            file._file.write(b'{"index":2,"id":"0065')
            file._file.flush()
            file._file = _Full(file._file)
        append(file, value)

    with monkeypatch.context() as patch:
        patch.setattr(PredictionFile, "_append", until_full)
        assert cli.main(words_for(root, out)) == 2
    assert f"No space left on device: {out / 'predictions-0-of-1.jsonl'}" in capsys.readouterr().err
    again = KnownSegmenter()
    assert run(again, words_for(root, out)) == 0
    assert [text for texts in again.asked for text in texts][:2] == [f"Thing {i} on the 2. row" for i in (2, 3)]
    assert table(out)["table"]["overall"]["J&F"] == pytest.approx(1.0)


class _Full:
    """An open file on a full disk."""

    def __init__(self, file) -> None:
        self._file = file

    def write(self, line: bytes) -> int:
        return len(line)

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        self._file.close()
        self.flush()


def test_sentences_of_one_conversation_are_asked_again_together(tmp_path: Path) -> None:
    """Where answers depend on each other, as in GSVA's protocol, half a conversation is none."""
    root = exact_images(tmp_path / "data", miniature_data.refcoco(tmp_path / "data"))
    words = ["eval", "refcoco", "--root", str(root), "--split", "val", "--recipe", "gsva", "--out", str(tmp_path / "o")]
    first = KnownSegmenter()
    run(first, words)
    assert first.asked == [["the red box; red thing; two blue parts;"]]
    kept = tmp_path / "o" / "predictions-0-of-1.jsonl"
    kept.write_bytes(b"\n".join(kept.read_bytes().split(b"\n")[:3]) + b"\n")
    again = KnownSegmenter()
    assert run(again, words) == 0
    assert again.asked == first.asked


@pytest.mark.process
def test_two_processes_of_one_machine(root: Path, tmp_path: Path) -> None:
    """As accelerate starts them, over gloo on the loopback interface: each asks about one video, the first reports."""
    together = {"WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", "MEETING": str(tmp_path / "meeting")}
    together |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # asked for, not used
    words = words_for(root, tmp_path / "out", "--device", "cpu")
    started = [start(words, **together, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(errors)
    files = sorted((tmp_path / "out").glob("predictions-*.jsonl"))
    assert [file.name for file in files] == ["predictions-0-of-2.jsonl", "predictions-1-of-2.jsonl"]
    assert [len(file.read_text().splitlines()) for file in files] == [5, 5]
    assert run(KnownSegmenter(), words_for(root, tmp_path / "whole", "--device", "cpu")) == 0
    assert table(tmp_path / "out") == table(tmp_path / "whole")


@pytest.mark.process
def test_scoring_by_several_processes_gives_the_same_table(root: Path, tmp_path: Path) -> None:
    run(KnownSegmenter(broken=["Thing 0 on the 1. row"]), words_for(root, tmp_path / "out", "--shard", "0/2"))
    run(None, words_for(root, tmp_path / "out", "--score"))
    alone = table(tmp_path / "out")
    assert len(alone["missing"]) == 4 and len(alone["failed"]) == 1
    run(None, words_for(root, tmp_path / "out", "--score", "--jobs", "2"))
    assert table(tmp_path / "out") == alone


def test_parts_of_parts_cover_everything_once() -> None:
    for total in (1, 7, 100):
        parts = [Shard(i, 6).part(total) for i in range(6)]
        assert [index for part in parts for index in part] == list(range(total))
    assert parse_shard("2/8") == Shard(2, 8)
    for text in ("8/8", "1/0", "-1/2", "1", "a/b", "1/2/3"):
        with pytest.raises(BadInput, match="--shard must be I/N"):
            parse_shard(text)


def test_a_device_for_many_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="with 2 processes --device must be auto, cpu or cuda; got 'cuda:1'"):
        Together("cuda:1")
