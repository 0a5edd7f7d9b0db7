"""Processes beside this one: started with a log of their own, watched, and ended properly. No rclpy."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from instructseg.core import InstructSegError


class RunFailed(InstructSegError):
    """The run did not get as far as a result; the message says which process failed and where its log is."""


class NotDiscovered(RunFailed):
    """The processes ran but did not find each other over DDS."""


class Child:
    """One process with its own log file. Used as a context manager it never outlives the block."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], cwd: Path) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            # A session of its own: Ctrl-C reaches its starter alone, which then ends its processes in the right order.
            self._process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(environment),
                cwd=cwd, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(2.0)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    def stop(self, timeout_s: float) -> int:
        """Ask it to end as Ctrl-C does, and kill it where it has not ended in time; its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._kill()
            except BaseException:  # interrupted once more: not to be left behind by one in a hurry
                self._kill()
                raise
        return self._process.returncode

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def last_line(self) -> str:
        """The newest complete line of its log."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        return lines[-1].strip() if lines else ""

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def failure(self, reason: str) -> RunFailed:
        """An error that says what happened, with the end of the log."""
        tail = "\n".join(f"  | {line}" for line in self.log_text().splitlines()[-12:])
        return RunFailed(
            f"{self.name} {reason}; its log is {self.log}" + (f", which ends with\n{tail}" if tail else "")
        )


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def child_environment(log_folder: Path) -> dict[str, str]:
    """This process's environment (with its DDS settings) for children whose output goes to files."""
    return {**os.environ, "PYTHONUNBUFFERED": "1", "ROS_LOG_DIR": str(log_folder), "RCUTILS_COLORIZED_OUTPUT": "0"}
