"""VISA from the command line: ``segment`` and ``inspect`` on small random weights."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
from unit.tiny_sam2 import original_checkpoint, tiny_sam
from unit.tiny_unified import noise_frame
from unit.tiny_visa import tiny_checkpoint

from instructseg import cli


@pytest.mark.parametrize("tracked", [False, True], ids=["token", "tracker"])
def test_segment_command(tmp_path: Path, tracked: bool) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(3):
        image = cv2.cvtColor(noise_frame(48, 80, seed=i).image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(frames / f"{i}.png"), image)
    model = ["--recipe", "visa", "--checkpoint", str(tiny_checkpoint(tmp_path / "visa")), "--device", "cpu"]
    if tracked:
        model.append(f"--option=tracker_checkpoint={original_checkpoint(tmp_path / 'sam2', tiny_sam())}")
    assert cli.main(["segment", str(frames), "the red mug", "--out", str(tmp_path / "out"), *model]) == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert len(report["frames"]) == 3
    for frame in report["frames"]:
        assert len(frame["targets"]) == 1 and (tmp_path / "out" / frame["mask"]).is_file()


def test_inspect_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tiny_checkpoint(tmp_path / "dump", "dump")
    assert cli.main(["inspect", "--recipe", "visa", "--checkpoint", str(folder), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert "4 with LoRA merged; 3 ignored, 0 missing, 0 unexpected" in said
    assert "ignored, rotary frequencies, computed anew in float32" in said
    assert "note: a dump of training: its own CLIP tower is used" in said


def test_options_are_listed(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["recipes", "visa"]) == 0
    said = capsys.readouterr().out
    assert "frame_sampler" in said and "tracker_checkpoint" in said and "max_image_token" in said
