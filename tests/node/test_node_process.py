"""The executable as a process: starts, refuses bad parameters in words, ends cleanly on signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from instructseg_node.conversions import fill_image
from instructseg_node.main import main

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "instructseg_node.main"]


def environment(**more: str) -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "model"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)} | more


@contextmanager
def running(
    *arguments: str, command: Sequence[str] = COMMAND, environ: dict[str, str] | None = None
) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [*command, *arguments],
        env=environ or environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@pytest.mark.process
@pytest.mark.parametrize("sent", [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
def test_signals_end_the_process_without_a_traceback(ros, sent) -> None:
    with running("--ros-args", "-r", "__node:=eyes") as process:
        client = ros.node("peer").create_client(GetState, "/eyes/get_state")
        assert client.wait_for_service(60.0)
        assert client.call(GetState.Request(), timeout_sec=60.0).current_state.label == "unconfigured"
        for number in sent:
            process.send_signal(number)
            time.sleep(0.05)
        output, _ = process.communicate(timeout=60)
    assert "Traceback" not in output, output
    assert process.returncode == 0, output


@pytest.mark.process
def test_a_failing_autostart_leaves_the_process_alive(ros) -> None:
    arguments = ["-p", "autostart:=true", "-p", "recipe:=no_such_recipe", "-r", "__node:=eyes"]
    with running("--ros-args", *arguments) as process:
        client = ros.node("peer").create_client(GetState, "/eyes/get_state")
        assert client.wait_for_service(60.0)
        assert client.call(GetState.Request(), timeout_sec=60.0).current_state.label == "unconfigured"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "configure failed" in output
    assert "no_such_recipe" in output
    assert process.returncode == 0, output


HANGING = """
import sys, time
import instructseg
from instructseg.streaming import engine
from instructseg_node.main import main
from unit.fakes import ColourSegmenter

class Hanging(ColourSegmenter):
    def encode(self, frames):
        if self.encoded:  # after the warm-up
            print("inside", flush=True)
            time.sleep(600)
        return super().encode(frames)

engine.STOP_TIMEOUT_S = 0.2
instructseg.load = lambda *arguments, **named: Hanging()
sys.exit(main(["--ros-args", "-p", "autostart:=true", "-r", "__node:=eyes"]))
"""


@pytest.mark.process
def test_a_model_that_does_not_return_cannot_hold_the_process(ros) -> None:
    environ = environment()
    environ["PYTHONPATH"] += os.pathsep + str(ROOT / "tests")
    command = [sys.executable, "-c", HANGING]
    with running(command=command, environ=environ) as process:
        publisher = ros.node("peer").create_publisher(Image, "image", 1)
        ros.wait(publisher.get_subscription_count, "the node", 60.0)
        heard = threading.Event()

        def read() -> None:
            while "inside" not in process.stdout.readline() and process.poll() is None:
                pass
            heard.set()

        threading.Thread(target=read, daemon=True).start()
        picture = np.zeros((48, 64, 3), np.uint8)
        for second in range(600):
            publisher.publish(fill_image(Image(), picture, "rgb8", Header(stamp=Time(sec=second))))
            if heard.wait(0.1):
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert "still inside the segmenter" in output
    assert "Traceback" not in output, output
    assert process.returncode == 0, output


BROKEN_WAIT = """
import sys
import rclpy
from instructseg_node import main

def spin(self):
    if "signal" in sys.argv:
        rclpy.shutdown()  # what the signal handler does between the executor's check and its wait
    raise main.RCLError("failed to initialize wait set")

main.SingleThreadedExecutor.spin = spin
sys.exit(main.main([]))
"""


@pytest.mark.process
@pytest.mark.parametrize("cause", ["signal", "fault"])
def test_a_wait_that_a_signal_breaks_is_an_end_and_any_other_is_a_fault(cause: str) -> None:
    with running(command=[sys.executable, "-c", BROKEN_WAIT, cause]) as process:
        output, _ = process.communicate(timeout=60)
    assert ("Traceback" in output, process.returncode) == ((False, 0) if cause == "signal" else (True, 1)), output


LOADING = """
import os, signal, sys, threading, time
from instructseg_node import main, node
def load(settings):
    os.kill(os.getpid(), signal.SIGTERM)
    while made[0].context.ok():
        time.sleep(0.01)
    from unit.fakes import ColourSegmenter
    return ColourSegmenter()
made = []
kind = node.InstructSegNode
main.InstructSegNode = lambda: made.append(kind(segmenter_factory=load)) or made[0]
sys.exit(main.main(["--ros-args", "-p", "autostart:=true"]))
"""


@pytest.mark.process
def test_an_end_while_the_model_is_loading_is_no_fault() -> None:
    paths = environment(PYTHONPATH=os.pathsep.join(map(str, (ROOT, ROOT / "model", ROOT / "tests"))))
    with running(command=[sys.executable, "-c", LOADING], environ=paths) as process:
        output, _ = process.communicate(timeout=60)
    assert "failed" not in output.replace("Failed to publish log message", ""), output
    assert process.returncode == 0, output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-p", "present_threshold:=5.0"], "present_threshold"),
        (["-p", "max_rate:=5"], "max_rate; write it with a decimal point, as in 1.0"),
        (["-p", "cameras:=head"], "cameras; write it as a list, as in [head, wrist]"),
        (["-p", "frame_policy:=every", "-p", "max_rate:=3.0"], "'every' drops none"),
        (["-p", "broken"], "broken"),
    ],
)
def test_arguments_that_cannot_be_taken_end_with_the_reason(arguments, words, capsys) -> None:
    assert main(["--ros-args", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("instructseg_node cannot start: ")
    assert words in said


def test_an_unknown_dds_profile_ends_before_ros_begins(monkeypatch, capsys) -> None:
    monkeypatch.setenv("INSTRUCTSEG_DDS_PROFILE", "open")
    assert main([]) == 2
    assert "unknown DDS profile 'open'" in capsys.readouterr().err
