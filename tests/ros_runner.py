"""A private rclpy context with a spinning executor, so that every test starts and ends with nothing left over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node


class RosRunner:
    """Nodes made with :meth:`node` or given to :meth:`add` are spun in a thread and cleaned up by :meth:`close`."""

    def __init__(self) -> None:
        self.context = rclpy.Context()
        rclpy.init(args=[], context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self._nodes: list[Node] = []
        self._error: BaseException | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._spin, name="test executor", daemon=True)
        self._thread.start()

    def node(self, name: str) -> Node:
        """An ordinary node of this context."""
        return self.add(rclpy.create_node(name, context=self.context, use_global_arguments=False))

    def add(self, node: Node) -> Node:
        """Take over a node that was made with ``context=runner.context``."""
        self._nodes.append(node)
        self.executor.add_node(node)
        return node

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
        """Poll until the condition holds; AssertionError naming ``what`` after the deadline."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._raise_callback_error()
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.002)

    def stop(self) -> None:
        """End the spinning: entities may only be destroyed when nothing spins them any more. That holds for the
        executor's own guard conditions, too, which its shutdown takes away from a thread that is about to wait.
        Idempotent."""
        if self._stopping:
            return
        self._stopping = True
        self.executor.create_task(lambda: None)  # work, so that the thread looks up
        self._thread.join(timeout=5)
        self.executor.shutdown(timeout_sec=5)

    def close(self) -> None:
        self.stop()
        for node in self._nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)
        assert not self._thread.is_alive(), "the executor's thread did not end"
        self._raise_callback_error()

    def _raise_callback_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _spin(self) -> None:
        try:
            while self.context.ok() and not self._stopping:
                self.executor.spin_once()
        except ExternalShutdownException:
            pass
        except BaseException as error:  # from a callback; the thread that waits for its effect must hear of it
            self._error = error
