"""The default recipe's network with one idea taken out, for ``python -m bench ablations``.

Nothing here is part of the recipe. Every variant has the parameters of the whole network, so that all of them begin
with the very same weights; what an idea needs and a variant does not use stays untrained.
"""

from __future__ import annotations

import dataclasses

import torch

from instructseg.modules.object_latents import ObjectLatents
from instructseg.modules.relational_mask_head import HeadScores
from instructseg.modules.scene_concepts import ConceptNetwork, SceneConcepts
from instructseg.modules.video_perceiver import VideoPerceiver
from instructseg.recipes.unified.modeling import REJ, TRK, Reasoning, UnifiedModel


@dataclasses.dataclass(frozen=True)
class Ablation:
    """name: for the command line. without: what is taken out, in words. model: the network."""

    name: str
    without: str
    model: type[UnifiedModel]


class KeyFramePerceiver(VideoPerceiver):
    """Sees nothing but the key frame."""

    def forward(self, key: ObjectLatents, past: list[ObjectLatents], seconds: torch.Tensor) -> torch.Tensor:
        return super().forward(key, [], seconds[:, :0])


class SilentPerceiver(VideoPerceiver):
    """Finds things again on later frames, and says nothing about the past."""

    def forward(self, key: ObjectLatents, past: list[ObjectLatents], seconds: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(super().forward(key, past, seconds))


class PoolingPerceiver(VideoPerceiver):
    """Sees of every past frame only the mean of its latents: no thing has a past of its own."""

    def forward(self, key: ObjectLatents, past: list[ObjectLatents], seconds: torch.Tensor) -> torch.Tensor:
        return super().forward(key, [_pooled(frame) for frame in past], seconds)


class WithOtherPerceiver(UnifiedModel):
    perceives: type[VideoPerceiver] = VideoPerceiver

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.perceiver.__class__ = self.perceives  # with the weights that it has


class WithoutClip(WithOtherPerceiver):
    perceives = KeyFramePerceiver


class WithoutMotion(WithOtherPerceiver):
    perceives = SilentPerceiver


class WithoutObjects(WithOtherPerceiver):
    perceives = PoolingPerceiver


class WithoutRejectHead(UnifiedModel):
    """Whether a target is there is what the language model's answer says, and nothing else."""

    def score(self, reasoning: Reasoning, *given, **named) -> HeadScores:
        said = (reasoning.answers[..., TRK] - reasoning.answers[..., REJ]).flatten()
        return dataclasses.replace(super().score(reasoning, *given, **named), presence=said)


class UntaughtConcepts(ConceptNetwork):
    """What the losses see of the concepts teaches them nothing."""

    def forward(self, latents: ObjectLatents, motion: torch.Tensor) -> SceneConcepts:
        known = super().forward(latents, motion)
        return SceneConcepts(known.relations.detach(), known.orders.detach(), known.doings.detach())


class WithoutSupervision(UnifiedModel):
    """Concepts and the choice among them are learned from the answers alone."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.concepts.__class__ = UntaughtConcepts

    def score(
        self, reasoning: Reasoning, key: ObjectLatents, motion: torch.Tensor, scene: torch.Tensor,
        concepts: SceneConcepts | None = None,
    ) -> HeadScores:  # fmt: skip
        learned = ConceptNetwork.forward(self.concepts, key, motion)
        scores = super().score(reasoning, key, motion, scene, learned)
        return dataclasses.replace(scores, choice=scores.choice.detach())


class InOneSequence(UnifiedModel):
    """Latents, words and slots as one sequence for every instruction; a mask says who sees whom.

    With the mask of this class it computes what the whole network computes, only that a scene's latents are not shared
    by its instructions.
    """

    latents_first = True

    def reason(self, visual: torch.Tensor, valid: torch.Tensor, words: torch.Tensor, scene: torch.Tensor) -> Reasoning:
        n, k, width, slots = len(words), visual.shape[1], words.shape[1], self.config.max_targets
        said, there = words > 0, valid[scene]
        trk = self.language.embed_tokens.weight[1] + self.slot_embedding  # (S, hidden)
        sequence = torch.cat([visual[scene], self.language.embed_tokens(words), trk.expand(n, -1, -1)], 1)
        length, later = said.sum(1, keepdim=True), 0 if self.latents_first else 1  # (N, 1)
        place = torch.zeros_like(there, dtype=torch.long) + later * (length + 1)
        order = torch.arange(1, width + 1, device=words.device) * said
        after = length + 1 + later + torch.arange(slots, device=words.device)
        hidden = self.language(
            inputs_embeds=sequence,
            attention_mask=self.mask(there, said, slots)[:, None],
            position_ids=torch.cat([place, order, after], 1),
            use_cache=False,
        ).last_hidden_state  # (N, K + W + S, hidden)
        states = hidden[:, k + width :]
        return Reasoning(states, self.answer(states), hidden[:, :k], hidden[:, k : k + width], said)

    def mask(self, valid: torch.Tensor, said: torch.Tensor, slots: int) -> torch.Tensor:
        """``(N, K + W + S, K + W + S)`` bool, True = may attend: latents see latents, words see latents and earlier
        words, slots see all before them; everything sees itself."""
        k, w = valid.shape[1], said.shape[1]
        present = torch.cat([valid, said, torch.ones_like(said[:, :1]).expand(-1, slots)], 1)
        part = torch.arange(k + w + slots, device=valid.device).clamp(min=k - 1)  # all latents share one place
        sees = (part[:, None] >= part[None]) & present[:, None]  # (N, rows, columns)
        return sees | torch.eye(k + w + slots, dtype=torch.bool, device=valid.device)


class WithoutFusion(InOneSequence):
    """Words are read without the picture: only the slots see both."""

    def mask(self, valid: torch.Tensor, said: torch.Tensor, slots: int) -> torch.Tensor:
        k, w = valid.shape[1], said.shape[1]
        mask = super().mask(valid, said, slots)
        mask[:, k : k + w, :k] = False
        return mask


class TextFirst(WithoutFusion):
    """Words come before the latents: each instruction's latents see all its words."""

    latents_first = False

    def mask(self, valid: torch.Tensor, said: torch.Tensor, slots: int) -> torch.Tensor:
        k, w = valid.shape[1], said.shape[1]
        mask = super().mask(valid, said, slots)
        mask[:, :k, k : k + w] = said[:, None]
        return mask


def _pooled(frame: ObjectLatents) -> ObjectLatents:
    weight = frame.valid.float() / frame.valid.sum(1, keepdim=True).clamp(min=1)  # (B, K)
    mean = {
        name: (weight[:, None] @ getattr(frame, name)).expand_as(getattr(frame, name))
        for name in ("geometry", "appearance")
    }
    return dataclasses.replace(frame, **mean)


ABLATIONS = (
    Ablation("clip", "sparse-dense clip: only the key frame", WithoutClip),
    Ablation("motion", "object-aware perceiver: motion code zero", WithoutMotion),
    Ablation("objects", "object-aware perceiver: past frames pooled", WithoutObjects),
    Ablation("fusion", "text fusion: words do not see the latents", WithoutFusion),
    Ablation("reject", "reject head: presence is the language model's answer", WithoutRejectHead),
    Ablation("layout", "latents first: instead words first, latents see them", TextFirst),
    Ablation("concepts", "supervision of the scene's concepts and of their choice", WithoutSupervision),
)
WHOLE = Ablation("whole", "nothing", UnifiedModel)
