"""A ROS domain for one run alone: runs side by side on a host must not hear each other's node and clock."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..dds import MAX_DOMAIN_ID, DdsProfileError

_turns = itertools.count()


@contextlib.contextmanager
def own_domain(wanted: int | None = None) -> Iterator[int]:
    """A domain id (1..101, or the one wanted) that no other run of this host holds, for the time of the block. The lock
    ends with the process, however that ends. Another one each time: what a killed node left behind is remembered for
    seconds. Raises DdsProfileError where there is none."""
    first = os.getpid() + 37 * next(_turns)
    tried = [1 + (first + step) % MAX_DOMAIN_ID for step in range(MAX_DOMAIN_ID)] if wanted is None else [wanted]
    for domain in tried:
        path = Path(tempfile.gettempdir(), f"instructseg_replay_{os.getuid()}_domain_{domain}.lock")
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    if wanted is not None:
        raise DdsProfileError(f"ROS domain {wanted} is taken by another replay; give another, or wait for it to end")
    raise DdsProfileError(f"all {MAX_DOMAIN_ID} ROS domains of this host are taken by other runs; wait for one to end")
