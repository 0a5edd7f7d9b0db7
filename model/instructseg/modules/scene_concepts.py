"""What is true of a frame's things before anybody asks: relations of two, orders, doings; once per scene.

A fixed list of concepts, each a logit for every latent or pair of latents, supervised by themselves where the training
scenes know the answer (as in the Neuro-Symbolic Concept Learner, Mao et al., ICLR 2019). Words then only have to
choose a concept and its participants, which a small language model learns from far fewer questions than if every
question had to find out anew what "left of" means.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .object_latents import GEOMETRY, ObjectLatents
from .video_perceiver import MOTION_CODE, WAY

RELATIONS = (  # of a thing to an anchor: now, and compared with the clip's oldest frame
    "left", "right", "front", "behind", "near", "far", "on", "in", "nearer", "farther", "was_left", "was_right",
    "was_near",
)  # fmt: skip
ORDERS = ("left", "front", "biggest", "tallest", "moved_most", "first", "last")  # i comes before j
DOINGS = ("any", "left", "right", "toward", "away", "pushed", "stopped", "displaced")
_PAIR = 10
_NODE = 20


@dataclasses.dataclass
class SceneConcepts:
    """Logits of B scenes with K latents."""

    relations: torch.Tensor  # (B, K_i, K_j, RELATIONS) i stands so to j
    orders: torch.Tensor  # (B, K_i, K_j, ORDERS) i comes before j; antisymmetric
    doings: torch.Tensor  # (B, K, DOINGS)

    def rows(self, index: torch.Tensor) -> SceneConcepts:
        """Those of the scenes ``index`` ``(Q,)``."""
        return SceneConcepts(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def pair_features(geometry: torch.Tensor) -> torch.Tensor:
    """``(B, K, GEOMETRY)`` to ``(B, K_i, K_j, 10)``: where i is as seen from j, in the picture."""
    i, j = geometry[:, :, None], geometry[:, None]
    d = i - j  # (B, K_i, K_j, GEOMETRY)
    dx, dmiddle, dbottom, dsize = d[..., 0], d[..., 1], d[..., 2], d[..., 5]
    gap = (dx.square() + (1.3 * dbottom).square()).add(1e-6).sqrt() - 0.5 * (i[..., 5] + j[..., 5])
    # How much of i's width is above or inside j's, and where i's lower edge is in j's height: on and in.
    half = 0.5 * (i[..., 3] + j[..., 3])
    overlap = (half - dx.abs()) / i[..., 3].clamp(min=0.02)
    lift = (j[..., 2] - i[..., 2]) / j[..., 4].clamp(min=0.02)
    return torch.stack(
        [
            dx * 4, dbottom * 4, dmiddle * 4, dsize * 10, gap * 4, (dx * 30).tanh(), (dbottom * 30).tanh(),
            (dsize * 60).tanh(), overlap.clamp(-3, 3), lift.clamp(-3, 3),
        ],
        -1,
    )  # fmt: skip


class ConceptNetwork(nn.Module):
    """``named``: how many leading columns of a latent's appearance are probabilities of named attributes."""

    def __init__(self, named: int, hidden: int = 64):
        super().__init__()
        self.named = named
        self.node = nn.Sequential(nn.Linear(named + GEOMETRY + MOTION_CODE, 48), nn.ReLU(), nn.Linear(48, _NODE))
        self.pair = nn.Sequential(
            nn.Linear(2 * _PAIR + 2 + 2 * _NODE, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.relations = nn.Linear(hidden, len(RELATIONS))
        self.orders = nn.Linear(hidden, len(ORDERS))
        self.doings = nn.Sequential(nn.Linear(_NODE + hidden, hidden), nn.ReLU(), nn.Linear(hidden, len(DOINGS)))

    def forward(self, latents: ObjectLatents, motion: torch.Tensor) -> SceneConcepts:
        """Latents of B key frames and their motion codes ``(B, K, MOTION_CODE)``."""
        geometry, way = latents.geometry, motion[..., -WAY:]
        before, found = geometry - way[..., :GEOMETRY], way[..., GEOMETRY]
        node = self.node(torch.cat([latents.appearance[..., : self.named], geometry * 2 - 1, motion], -1))  # (B, K, n)
        k = node.shape[1]
        both = found[:, :, None] * found[:, None]  # (B, K, K)
        now, then = pair_features(geometry), pair_features(before)
        closer = (then[..., 4] - now[..., 4]) * both * 4  # the gap has become smaller by this
        pairs = torch.cat(
            [
                now, then * both[..., None], both[..., None], closer[..., None],
                node[:, :, None].expand(-1, -1, k, -1), node[:, None].expand(-1, k, -1, -1),
            ],
            -1,
        )  # fmt: skip
        hidden = self.pair(pairs)  # (B, K_i, K_j, H)
        orders = self.orders(hidden)
        others = latents.valid[:, None] & ~torch.eye(k, dtype=torch.bool, device=node.device)  # (B, K_i, K_j)
        company = (hidden * others[..., None]).amax(2)  # (B, K, H) hidden values are at least 0
        doings = self.doings(torch.cat([node, company], -1))
        return SceneConcepts(self.relations(hidden), orders - orders.transpose(1, 2), doings)
