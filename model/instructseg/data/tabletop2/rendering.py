"""Pictures and exact masks of the scenes of version 2. Needs the extra ``sim``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import scene, tabletop_layout
from ..tabletop import Tabletop
from . import assets
from .world import KEY, TIMES, World


class WorldRenderer:
    """Renders worlds at one size. As :class:`~instructseg.data.tabletop.Tabletop`: one thread, one per size."""

    def __init__(self, width: int = 640, height: int = 480) -> None:
        self._tabletop = Tabletop(width, height, assets=assets)

    def __enter__(self) -> WorldRenderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the GL context."""
        self._tabletop.close()

    def frame(self, world: World, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RGB ``(H, W, 3)`` uint8, instance ids ``(H, W)`` uint8 and depth ``(H, W)`` float32 metres at ``t`` s."""
        return self._tabletop.render(world.spec, t)

    def episode(self, world: World, times: Sequence[float] = TIMES, key: int = KEY) -> scene.Episode:
        """The frames at these times; ``key`` is the index of the one that instructions are about (0 s)."""
        stamps = np.asarray(times, float)
        frames = [self.frame(world, float(t))[:2] for t in stamps]
        images, instances = (np.stack(parts) for parts in zip(*frames, strict=True))
        motions = tabletop_layout.motions(world.spec, stamps)
        return scene.Episode(images, instances, stamps, motions, world.objects, key)
