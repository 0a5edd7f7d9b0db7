"""The demo as a whole, on a tiny recording and with a colour segmenter: the node in its process, then the verdicts."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import av
import cv2
import pytest
from replay.tiny_bag import FRAMES, write_tiny_bag

from instructseg_node.demo import run as demo
from instructseg_node.demo.records import DemoBag, ResultsBag
from instructseg_node.replay.processes import Child, RunFailed, child_environment
from instructseg_node.replay.session import node_arguments
from instructseg_node.replay.source import Source

COLOUR_NODE = (sys.executable, str(Path(__file__).with_name("colour_node.py")))
# A loaded machine may hold frames back for half a second; this test is not about that.
PATIENT = ("-p", "stale_after:=5.0", "-p", "ground_period:=0.1")


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bag(tmp_path_factory.mktemp("bags") / "tiny")


@pytest.mark.process
def test_every_frame_is_accounted_for_and_every_verdict_right(bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    options = demo.Options(bag, out, rate=0.5, start_timeout=60.0, node_arguments=PATIENT)
    report = demo.run(options, COLOUR_NODE)

    assert [(c.expectation.text, c.expected, c.given) for c in report.commands] == [
        ("the red square", "PRESENT", "PRESENT"),
        ("the blue square", "NO_TARGET", "NO_TARGET"),
    ]
    assert report.commands[0].iou == pytest.approx(1.0), "a mask belongs to exactly the frame whose stamp it carries"
    assert report.passed

    recorded, results = DemoBag(bag), ResultsBag(out / "results.mcap")
    assert set(results.frames) <= set(recorded.stamps)
    frames = report.frames
    assert frames["in_recording"] == FRAMES
    assert frames["not_delivered_to_node"] + frames["dropped"] + frames["published"] == FRAMES
    assert frames["not_delivered_to_recorder"] == frames["published_twice"] == frames["unknown_stamp"] == 0
    assert frames["masks_not_recorded"] == 0
    for where in ("node", "received"):
        assert 0.0 <= report.ages_ms[where]["p50"] <= report.ages_ms[where]["p99"]

    kept = {"targets", "grounding", "rejection", "instructions", "instance_mask/compressed", "label_mask"}
    assert kept <= {topic.removeprefix("/instructseg/") for topic in results.messages}
    assert json.loads((out / "report.json").read_text())["passed"] is True
    with av.open(str(out / "overlay.mp4")) as video:
        times = [frame.time for frame in video.decode(video=0)]
    assert times == pytest.approx([recorded.seconds(s) for s in sorted(results.frames)], abs=2e-3)
    height, width = cv2.imread(str(out / "contact_sheet.png")).shape[:2]
    assert width == 4 * 320
    assert height == 2 * (240 + 52)


@pytest.mark.process
def test_a_node_that_cannot_start_ends_the_demo_at_once(
    bag: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR_NODE_BREAKS", "1")
    with pytest.raises(RunFailed, match=r"node could not start; its log is .*node\.log(.|\n)*no weights on purpose"):
        demo.run(demo.Options(bag, tmp_path / "demo", start_timeout=60.0), COLOUR_NODE)


@pytest.mark.process
def test_a_node_that_ends_is_named_with_its_log(bag: Path, tmp_path: Path) -> None:
    broken = (sys.executable, "-c", "print('out of order'); raise SystemExit(3)")
    with pytest.raises(RunFailed, match=r"node ended with exit code 3; its log is .*node\.log(.|\n)*out of order"):
        demo.run(demo.Options(bag, tmp_path / "demo", start_timeout=60.0), broken)
    assert not (tmp_path / "demo" / "results.mcap").exists()


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    with Child(
        "deaf", (sys.executable, "-c", stubborn), tmp_path / "log", child_environment(tmp_path), tmp_path
    ) as child:
        while child.last_line() != "deaf":
            assert child.exit_code is None
        assert child.stop(0.1) == -9


def test_paths_and_rate_are_checked_before_anything_starts(bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    for options, words in (
        (demo.Options(tmp_path / "none", out), "no recording at"),
        (demo.Options(bag, out, parameters=tmp_path / "none.yaml"), "no parameter file at"),
        (demo.Options(bag, out, rate=0.0), "rate is 0"),
    ):
        with pytest.raises(RunFailed, match=words):
            demo.run(options)
    assert not out.exists()


def test_command_line_says_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert demo.main(["--bag", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "demo failed: no recording at" in capsys.readouterr().err


def test_an_interruption_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def interrupt(options: demo.Options) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupt)
    assert demo.main([]) == 130
    assert capsys.readouterr().err == "\ndemo: interrupted\n"


def test_command_line_hands_ros_arguments_to_the_node(bag: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(options: demo.Options) -> None:
        asked.append(options)
        raise RunFailed("not run")

    monkeypatch.setattr(demo, "run", refuse)
    assert demo.main(["--rate", "0.5", "--params", "p.yaml", "--", "-p", "device:=cpu"]) == 2
    assert asked[0].rate == 0.5
    asked_of_the_node = demo.replay_options(asked[0])
    with Source(dataclasses.replace(asked_of_the_node, bag=bag)) as source:
        arguments = node_arguments(asked_of_the_node, source)
    assert arguments[:3] == ["--ros-args", "--params-file", str(Path("p.yaml").resolve())]
    assert arguments[-2:] == ["-p", "device:=cpu"], "the user's own come last and win"
    assert "use_sim_time:=true" in arguments
