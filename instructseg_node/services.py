"""The short services: ``~/cancel``, ``~/reset`` and ``~/enable``. They exist as long as the node, and say where it is
not active."""

from __future__ import annotations

from typing import Any, Protocol

from instructseg_msgs.srv import Cancel
from std_srvs.srv import SetBool, Trigger

from instructseg.streaming import StreamingEngine

from .inputs import Inputs


class Served(Protocol):
    """What the services need of the node. engine, inputs: None where it is not active; phase: its lifecycle state."""

    phase: str

    @property
    def engine(self) -> StreamingEngine | None: ...

    @property
    def inputs(self) -> Inputs | None: ...

    def forget(self) -> None: ...

    def switch(self, on: bool) -> None: ...

    def create_service(self, kind: Any, name: str, callback: Any) -> Any: ...


class Services:
    """Everything here runs on the executor's thread, as the transitions do."""

    def __init__(self, node: Served) -> None:
        self._node = node
        node.create_service(Cancel, "~/cancel", self._on_cancel)
        node.create_service(Trigger, "~/reset", self._on_reset)
        node.create_service(SetBool, "~/enable", self._on_enable)

    def _on_cancel(self, request: Cancel.Request, response: Cancel.Response) -> Cancel.Response:
        engine = self._node.engine
        if engine is None:
            response.message = f"the node is {self._node.phase}: nothing is being worked on"
            return response
        response.cancelled = engine.cancel(request.instruction_id or None)
        response.success = bool(response.cancelled) or not request.instruction_id
        if not response.success:
            response.message = f"no instruction has the id {request.instruction_id[:60]!r}; ~/instructions lists them"
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = self._node.engine is not None
        response.message = f"the node is {self._node.phase}"
        if response.success:
            self._node.forget()
            response.message = "frames and targets are forgotten"
        return response

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        """Off: images are not looked at, so every target becomes STALE, at once; no target is forgotten."""
        inputs = self._node.inputs
        response.success = inputs is not None
        response.message = "" if response.success else f"the node is {self._node.phase}: activate it"
        if inputs is not None:
            self._node.switch(request.data)
        return response
