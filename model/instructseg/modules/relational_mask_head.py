"""Light mask head: a target token chooses among a frame's object latents; their soft masks are the mask.

The token asks three things of every latent: does it look like what the words name (``match``: appearance only, so
that it holds on any later frame), does it do what the words say (motion, context), and how does it stand to the
others (a relation network over pairs, Santoro et al. 2017, with the anchors and the rivals that the token points
at). This is the project's own head; the light-decoder idea follows MLLMSeg (sec. 3.3): no second vision encoder,
masks from the features that exist.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from .object_latents import ObjectLatents

PAIR = 7


@dataclasses.dataclass
class HeadScores:
    """Logits for Q slots over K latents of the frame the grounding was made on; invalid latents at -1e4."""

    target: torch.Tensor  # (Q, K) the answer
    match: torch.Tensor  # (Q, K) the noun phrase alone
    anchor: torch.Tensor  # (Q, K) what the relation refers to
    pointer: torch.Tensor  # (Q, W + 1) which word names the anchor; the last column is "none does"
    presence: torch.Tensor  # (Q,) is there an answer at all


def mlp(cin: int, hidden: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(cin, hidden), nn.ReLU(), nn.Linear(hidden, cout))


def pair_geometry(geometry: torch.Tensor) -> torch.Tensor:
    """``(B, K, GEOMETRY)`` to ``(B, K, K, PAIR)``: where j is as seen from i."""
    d = geometry[:, None, :] - geometry[:, :, None]  # (B, K_i, K_j, GEOMETRY)
    dx, dy, dsize = d[..., 0], d[..., 2], d[..., 5]
    reach = 0.5 * (geometry[:, None, :, 5] + geometry[:, :, None, 5])
    gap = (dx.square() + (1.3 * dy).square()).add(1e-6).sqrt() - reach
    return torch.stack(
        [dx * 4, dy * 4, dsize * 10, gap * 4, (dx * 30).tanh(), (dy * 30).tanh(), (dsize * 60).tanh()], -1
    )


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
        self.point_query, self.point_key = nn.Linear(2 * width, width + 1), nn.Linear(2 * width, width)
        self.doing_query, self.doing_key = nn.Linear(2 * width, pair), mlp(motion + hidden, width, pair)
        self.pair_query, self.pair_key = nn.Linear(2 * width, pair), nn.Linear(PAIR, pair)
        self.pair_out = nn.Linear(pair, pair)
        self.decide = mlp(2 * width + 3 * pair + 2, width, 1)
        self.presence = mlp(2 * width + 6, 32, 1)
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
        """``(Q, 2W)`` questions over those ``(Q, L, 2W)`` of their words: logits ``(Q, L + 1)``, last = none."""
        query = self.point_query(question)
        logits = (self.point_key(words) @ query[..., :-1, None])[..., 0] * self.scale
        return torch.cat([logits.masked_fill(~spoken, -1e4), query[..., -1:]], -1)

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
    ) -> HeadScores:
        """``(Q, hidden)`` tokens with the language model's own TRK-against-REJ logit ``(Q,)``; latents, motion codes
        and the contextual states ``(Q, K, ·)`` of each slot's key frame; the questions of the words ``(Q, L, 2W)`` and
        which of them are no padding ``(Q, L)``."""
        question = self.question(token)
        valid = latents.valid
        match = self.match(question, latents.appearance, valid)
        pointer = self.point(question, words, spoken)
        anchor = self._anchor(pointer, words, latents)
        doing = torch.relu(
            self.doing_query(question)[:, None] + self.doing_key(torch.cat([motion, context], -1))
        )  # (Q, K, P)
        pairs = pair_geometry(latents.geometry)  # (Q, K_i, K_j, PAIR)
        pairs = torch.relu(self.pair_key(pairs) + self.pair_query(question)[:, None, None])  # (Q, K_i, K_j, P)
        pairs = torch.relu(self.pair_out(pairs))
        others = ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        to_anchor = torch.sigmoid(anchor)[:, None, :, None] * (others & valid[:, None])[..., None]
        to_rival = torch.sigmoid(match)[:, None, :, None] * (others & valid[:, None])[..., None]
        from_anchors = (pairs * to_anchor).amax(2)  # (Q, K, P)
        from_rivals = (pairs * to_rival).amax(2)
        asked = question[:, None].expand(-1, valid.shape[1], -1)
        evidence = [
            asked,
            doing,
            from_anchors,
            from_rivals,
            match.clamp(-12, 12)[..., None],
            anchor.clamp(-12, 12)[..., None],
        ]
        allowed = self.decide(torch.cat(evidence, -1))[..., 0]
        target = (nn.functional.logsigmoid(match) + allowed).masked_fill(~valid, -1e4)  # a soft AND: both must agree
        return HeadScores(target, match, anchor, pointer, self._present(question, said, target, match, anchor))

    def _present(self, question, said, target, match, anchor) -> torch.Tensor:
        """Presence logit from what the language model said and from what the head found; both, because either alone
        ranks absent things worse (the words do not see small evidence, the evidence does not read the words)."""
        rated = nn.functional.pad(target.clamp(-12, 12), (0, 1), value=-12.0)  # a frame may have a single slot in use
        best = torch.topk(rated, 2, dim=-1).values
        top_match = match.clamp(-12, 12).amax(-1)
        top_anchor = anchor.clamp(-12, 12).amax(-1)
        weight = torch.softmax(target.clamp(-12, 12), -1)
        agreed = (weight * match.clamp(-12, 12)).sum(-1)
        facts = torch.stack([said, best[:, 0], best[:, 1], top_match, top_anchor, agreed], -1)
        return self.presence(torch.cat([question, facts / 4], -1))[:, 0] + best[:, 0]
