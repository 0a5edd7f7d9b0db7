"""Rerun recordings of ``instructseg segment --rerun``, read back: frames, masks, names, verdicts and figures."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from unit.fakes import colour_frame
from unit.rerun_reading import mask, names, read_recording, scalars, texts
from unit.test_cli_segment import TIMES_MS, segment, write_video

from instructseg.core import InstructSegError, State
from instructseg.rendering.rerun_recording import RerunRecording, Shown

RED = (colour_frame(0.0, "red").image == (255, 0, 0)).all(axis=-1)


def test_segment_writes_what_was_seen_said_and_scored(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    video, file = write_video(tmp_path / "in.mkv", "red", "blue"), tmp_path / "deep" / "run.rrd"
    options = ("--instruction", "the green one", "--out", tmp_path / "out", "--rerun", file)
    assert segment(video, "the red square", *options) == 0
    assert str(file) in capsys.readouterr().out
    rows = read_recording(file)
    times = [time * 1_000_000 for time in TIMES_MS]

    pictures = [row for row in rows["/camera/image"] if "blob" in row.values]
    assert [row.time for row in pictures] == times
    jpeg = np.array(pictures[0].values["blob"][0], np.uint8)
    picture = cv2.cvtColor(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(picture.astype(int) - colour_frame(0.0, "red", "blue").image).mean() < 10

    masks = rows["/camera/image/masks"]
    assert [row.time for row in masks] == times
    for row in masks:
        np.testing.assert_array_equal(mask(row) != 0, RED)
    instance = int(mask(masks[0]).max())
    assert names(rows["/camera/image"]) == {0: "nothing", instance: f"{instance}: red"}

    assert [text.split(": ")[:2] for text in texts(rows["/states/1"])] == [["red", "PRESENT"]]  # once: it stays so
    assert texts(rows["/states/2"])[-1].startswith("green: NO_TARGET: rejection score 0.95")
    assert [row.values["level"][0] for row in rows["/states/2"]][-1] == "WARN"
    assert scalars(rows[f"/scores/camera/1/{instance}"]) == pytest.approx([0.9] * len(times))
    assert scalars(rows["/rejection/camera/2/0"])[-1] == pytest.approx(0.95)


def test_names_with_any_characters_and_times_of_day(tmp_path: Path) -> None:
    stamp = 1_700_000_000_123_456_789
    one = Shown("a/b c:ü", "the mug", 3, State.PRESENT, 0.5, 0.25)
    with RerunRecording(tmp_path / "x.rrd", clock=True) as recording:
        recording.add_masks("rig/left", stamp, np.full((16, 16), 3, np.uint16))
        recording.add_targets("rig/left", stamp, [one, one._replace(instance_id=0, state=State.ERROR, reason="broke")])
    recording.close()  # a second time
    rows = read_recording(tmp_path / "x.rrd")
    assert {row.time for found in rows.values() for row in found} == {None, stamp}
    said = next(found for entity, found in rows.items() if entity.startswith("/states/"))
    assert texts(said) == ["the mug: PRESENT", "the mug: ERROR: broke"]
    assert [row.values["level"][0] for row in said] == ["INFO", "ERROR"]
    assert [mask(found[0]).max() for entity, found in rows.items() if entity.endswith("masks")] == [3]


def test_without_the_package_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    video, out = write_video(tmp_path / "in.mkv", "red"), tmp_path / "out"
    with pytest.raises(
        InstructSegError, match=r"needs the package rerun-sdk .*pip install 'instructseg_node\[rerun\]'"
    ):
        segment(video, "red", "--out", out, "--rerun", tmp_path / "run.rrd")
    assert segment(video, "red", "--out", out) == 0  # nothing else needs it


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InstructSegError, match=r"recording .*x\.rrd cannot be written"):
        RerunRecording(tmp_path / "file" / "x.rrd")
