"""Light mask head: a target token chooses among a frame's object latents; their soft masks are the mask.

The token says three things: which latents look like what the words name (``match``: appearance only, so that it holds
on any later frame), which of the scene's concepts must hold of them (``choice``: a relation to what another word
names, a place in an order, a doing, or none), and whether there is such a thing at all. This is the project's own
head; the light-decoder idea follows MLLMSeg (sec. 3.3): no second vision encoder, masks from the features that exist.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn
from torch.nn import functional as F

from .object_latents import ObjectLatents
from .scene_concepts import DOINGS, ORDERS, RELATIONS, SceneConcepts

# Orders and the concept behind each, -1 = the other way round; places are counted from 0.
RANKED = {
    "left": ("left", 1), "right": ("left", -1), "front": ("front", 1), "behind": ("front", -1),
    "biggest": ("biggest", 1), "smallest": ("biggest", -1), "tallest": ("tallest", 1), "moved_most": ("moved_most", 1),
    "first": ("first", 1), "last": ("last", 1),
}  # fmt: skip
HAPPENED = ("first", "last")  # orders of what happened, among the things that moved
PLACES = 4
COUNTED = ("left", "right", "front")  # orders in which one asks for the second, third, fourth
# What a target slot can ask beside its noun phrase; the columns of ``choice``.
CHOICES: tuple[tuple[str, str, int], ...] = (
    ("none", "", 0),
    *(("relation", name, 0) for name in RELATIONS),
    ("between", "", 0),
    ("without", "", 0),
    *(("doing", name, 0) for name in DOINGS),
    *(("order", name, 0) for name in RANKED),
    *(("order", name, place) for name in COUNTED for place in range(1, PLACES)),
)
CHOICE = {name: column for column, name in enumerate(CHOICES)}


@dataclasses.dataclass
class HeadScores:
    """Logits for Q slots over K latents of the frame the grounding was made on; invalid latents at -1e4."""

    target: torch.Tensor  # (Q, K) the answer
    match: torch.Tensor  # (Q, K) the noun phrase alone
    anchor: torch.Tensor  # (Q, K) what the relation refers to, or what is excluded
    second: torch.Tensor  # (Q, K) the other one of "between"
    pointer: torch.Tensor  # (Q, 2, W + 1) which words name the anchors; the last column is "none does"
    choice: torch.Tensor  # (Q, CHOICES)
    presence: torch.Tensor  # (Q,) is there an answer at all


def mlp(cin: int, hidden: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(cin, hidden), nn.ReLU(), nn.Linear(hidden, cout))


class RelationalMaskHead(nn.Module):
    """``named``: how many leading columns of a latent's appearance are probabilities of named attributes.

    Only those are matched with words, and linearly: "red" and "bottle" add up, so that a red bottle is found although
    training never showed one. A free network over the whole appearance learned the training compositions instead.
    """

    def __init__(self, hidden: int, named: int, motion: int, width: int, pair: int = 32):
        super().__init__()
        self.named = named
        self.ask = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 2 * width), nn.ReLU())
        self.match_query = nn.Linear(2 * width, named + 1)
        self.point_query = nn.ModuleList([nn.Linear(2 * width, width + 1) for _ in range(2)])
        self.point_key = nn.Linear(2 * width, width)
        self.choose = nn.Linear(2 * width, len(CHOICES))
        self.amid = mlp(6, 32, 1)
        self.doing_query, self.doing_key = nn.Linear(2 * width, pair), mlp(motion + hidden, width, pair)
        self.free = nn.Linear(pair, 1)
        nn.init.zeros_(self.free.weight)
        self.presence = mlp(2 * width + 8, 32, 1)
        self.scale = width**-0.5

    def question(self, token: torch.Tensor) -> torch.Tensor:
        """``(…, hidden)`` language state of a slot to its question ``(…, 2 * width)``."""
        return self.ask(token)

    def match(self, question: torch.Tensor, appearance: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """``(Q, 2W)`` questions on ``(Q, K, A)`` latents of any frame: logits ``(Q, K)``."""
        query = self.match_query(question)
        logits = 4 * (appearance[..., : self.named] @ query[..., :-1, None])[..., 0] + query[..., -1:]
        return logits.masked_fill(~valid, -1e4)

    def point(self, question: torch.Tensor, words: torch.Tensor, spoken: torch.Tensor) -> torch.Tensor:
        """``(Q, 2W)`` questions over those ``(Q, L, 2W)`` of their words: logits ``(Q, 2, L + 1)``, last = none."""
        keys = self.point_key(words)
        both = []
        for point in self.point_query:
            query = point(question)
            logits = (keys @ query[..., :-1, None])[..., 0] * self.scale
            both.append(torch.cat([logits.masked_fill(~spoken, -1e4), query[..., -1:]], -1))
        return torch.stack(both, 1)

    def _anchor(self, pointer: torch.Tensor, words: torch.Tensor, latents: ObjectLatents) -> torch.Tensor:
        """Logits ``(Q, K)`` of being the thing a relation refers to: what the word pointed at names, if one is."""
        share = pointer.softmax(-1)
        named = 1 - share[:, -1:]  # (Q, 1)
        asked = (share[:, None, :-1] @ words)[:, 0] / named.clamp(min=1e-3)  # (Q, 2W)
        found = named * torch.sigmoid(self.match(asked, latents.appearance, latents.valid))
        return torch.logit(found.clamp(1e-4, 1 - 1e-4)).masked_fill(~latents.valid, -1e4)

    def forward(
        self,
        token: torch.Tensor,
        said: torch.Tensor,
        latents: ObjectLatents,
        motion: torch.Tensor,
        context: torch.Tensor,
        words: torch.Tensor,
        spoken: torch.Tensor,
        concepts: SceneConcepts,
    ) -> HeadScores:
        """``(Q, hidden)`` tokens with the language model's own TRK-against-REJ logit ``(Q,)``; latents, motion codes
        and the contextual states ``(Q, K, ·)`` of each slot's key frame; the questions of the words ``(Q, L, 2W)`` and
        which of them are no padding ``(Q, L)``; what is true of each slot's scene."""
        question = self.question(token)
        valid = latents.valid
        match = self.match(question, latents.appearance, valid)
        pointer = self.point(question, words, spoken)
        anchor = self._anchor(pointer[:, 0], words, latents)
        second = self._anchor(pointer[:, 1], words, latents)
        choice = self.choose(question)
        holds = self._holds(latents, concepts, match, anchor, second)  # (Q, K, CHOICES) in 0..1
        allowed = (holds * choice.softmax(-1)[:, None]).sum(-1)  # (Q, K)
        doing = torch.relu(self.doing_query(question)[:, None] + self.doing_key(torch.cat([motion, context], -1)))
        allowed = torch.logit(allowed.clamp(1e-3, 1 - 1e-3)) + self.free(doing)[..., 0]
        target = (F.logsigmoid(match) + allowed).masked_fill(~valid, -1e4)  # a soft AND: both must agree
        presence = self._present(question, said, target, match, (anchor, second), choice)
        return HeadScores(target, match, anchor, second, pointer, choice, presence)

    def _holds(
        self, latents: ObjectLatents, concepts: SceneConcepts, match: torch.Tensor, anchor: torch.Tensor,
        second: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """How true each of the :data:`CHOICES` is of each latent, ``(Q, K, CHOICES)``."""
        valid = latents.valid
        others = (valid[:, None] & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device))[..., None]
        to_anchor = torch.sigmoid(anchor)  # (Q, K)
        relations = (torch.sigmoid(concepts.relations) * (to_anchor[:, None, :, None] * others)).amax(2)
        rivals = torch.sigmoid(match)[:, None, :, None] * others  # (Q, K_i, K_j, 1)
        doings = torch.sigmoid(concepts.doings)
        moved = doings[..., DOINGS.index("displaced")]  # (Q, K)
        before = torch.sigmoid(concepts.orders)  # (Q, K_i, K_j, O) i comes before j
        at = {}  # (Q, K) how many candidates come before i; of what happened: how many that moved
        for name, (concept, sign) in RANKED.items():
            column = ORDERS.index(concept)
            weights = rivals[..., 0] * moved[:, None] if name in HAPPENED else rivals[..., 0]  # (Q, K_i, K_j)
            earlier = 1 - before[..., column] if sign > 0 else before[..., column]
            at[name] = (weights * earlier).sum(2)
        places = [
            _at_place(at[name], place) * (moved if name in HAPPENED else 1.0)
            for kind, name, place in CHOICES
            if kind == "order"
        ]
        amid = torch.sigmoid(self._amid(latents.geometry, to_anchor, torch.sigmoid(second)))
        columns = [torch.ones_like(match)[..., None], relations, amid[..., None], (1 - to_anchor)[..., None], doings]
        return torch.cat([*columns, torch.stack(places, -1)], -1)

    def _amid(self, geometry: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Logits ``(Q, K)`` of being between two anchors ``(Q, K)``, from where each stands on the table."""
        spots = torch.stack([geometry[..., 0], 1.3 * geometry[..., 2]], -1)  # (Q, K, 2) foot in the picture
        begin, end = (((w / w.sum(-1, keepdim=True).clamp(min=1e-3))[:, None] @ spots) for w in (one, other))
        way, rest = end - begin, spots - begin  # (Q, 1, 2), (Q, K, 2)
        length = way.square().sum(-1).add(1e-4).sqrt()  # (Q, 1)
        part = (rest * way).sum(-1) / length.square()
        aside = (rest[..., 0] * way[..., 1] - rest[..., 1] * way[..., 0]) / length
        features = torch.stack(
            [
                (part - 0.5).abs().clamp(max=3) * 2, (part - 0.5).square().clamp(max=4), aside.abs() * 10,
                length.expand_as(part) * 3, one * 4, other * 4,
            ],
            -1,
        )  # fmt: skip
        return self.amid(features)[..., 0]

    def _present(self, question, said, target, match, anchors, choice) -> torch.Tensor:
        """Presence logit from what the language model said and from what the head found; both, because either alone
        ranks absent things worse (the words do not see small evidence, the evidence does not read the words)."""
        rated = F.pad(target.clamp(-12, 12), (0, 1), value=-12.0)  # a frame may have a single slot in use
        best = torch.topk(rated, 2, dim=-1).values
        top_match = match.clamp(-12, 12).amax(-1)
        tops = [anchor.clamp(-12, 12).amax(-1) for anchor in anchors]
        weight = torch.softmax(target.clamp(-12, 12), -1)
        agreed = (weight * match.clamp(-12, 12)).sum(-1)
        plain = 12 * choice.softmax(-1)[:, 0]  # nothing but the noun phrase is asked
        facts = torch.stack([said, best[:, 0], best[:, 1], top_match, *tops, agreed, plain], -1)
        return self.presence(torch.cat([question, facts / 4], -1))[:, 0] + best[:, 0]


def _at_place(rank: torch.Tensor, place: int) -> torch.Tensor:
    """How well a number of things that come before, a sum of probabilities, is ``place``."""
    return torch.exp(-2.0 * (rank - place).square())
