"""The executable: one node, one thread for its callbacks, a clean end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation

from instructseg.core import BadInput

from .dds import use_profile
from .node import InstructSegNode

RCLError = rclpy_implementation.RCLError
InvalidHandle = rclpy_implementation.InvalidHandle


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end. Returns the exit code: 0, or 2 where it could not start.

    The user's DDS settings are left alone unless the environment variable INSTRUCTSEG_DDS_PROFILE names one of this
    package's profiles (shm, loopback), which confine traffic to this host.
    """
    try:
        if profile := os.environ.get("INSTRUCTSEG_DDS_PROFILE"):
            use_profile(profile)
        rclpy.init(args=arguments)
        executor = SingleThreadedExecutor()  # before the node is seen: a signal from then on finds it whole
        node = InstructSegNode()
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    except (BadInput, ParameterException, RuntimeError) as error:  # RuntimeError: what rcl and the DDS profile raise
        print(f"instructseg_node cannot start: {error}{_hint(error)}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor.add_node(node)
    try:
        if node.settings.autostart:
            node.autostart()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (RCLError, InvalidHandle):
        # A signal can invalidate the context between the executor's own check and its wait; that is an end, no fault.
        if rclpy.ok():
            raise
    finally:
        # A second Ctrl-C, as a launcher and its process group both send one, must not break the joining of threads.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    _end_if_a_thread_cannot()
    return 0


def _hint(error: Exception) -> str:
    """How to write what is often written wrongly."""
    hints = {"DOUBLE": "with a decimal point, as in 1.0", "STRING_ARRAY": "as a list, as in [head, wrist]"}
    wanted = [how for kind, how in hints.items() if f"expecting type '{kind}'" in str(error)]
    return f"; write it {wanted[0]}" if wanted else ""


def _end_if_a_thread_cannot() -> None:
    """End the process here where a step of the model did not return in time (the engine has said so): the ordinary end
    of the interpreter under a thread that is inside torch is an abort."""
    if any(thread.name.startswith("instructseg-") for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
