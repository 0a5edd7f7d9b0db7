"""The episodes of a bank after perception: object latents of every frame and which object each latent is.

The language stage never touches pixels: it trains on these with freshly drawn instructions, thousands of questions
a minute.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from ..data.instructions import SceneFacts
from ..data.tabletop2.facts import WorldFacts
from ..modules.object_latents import ObjectLatents
from ..modules.perception import Perception
from .bank import KEY, EpisodeBank
from .concept_labels import IDS, ConceptLabels, concept_labels


@dataclasses.dataclass
class LatentBank:
    """N episodes of T frames with K latents; ``ids`` is the object a latent covers (IoU above one half), 0 = none."""

    appearance: torch.Tensor  # (N, T, K, A)
    geometry: torch.Tensor  # (N, T, K, GEOMETRY)
    score: torch.Tensor  # (N, T, K)
    valid: torch.Tensor  # (N, T, K) bool
    ids: torch.Tensor  # (N, T, K) int64
    motions: torch.Tensor  # (N, 256) int64 motion class of each object id at the key frame, -1 = no object
    facts: list[SceneFacts | WorldFacts]
    labels: dict[int, ConceptLabels] = dataclasses.field(default_factory=dict, repr=False)  # as they are needed

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device) -> LatentBank:
        """The same bank with its tensors on another device; facts and labels are shared."""
        tensors = (f.name for f in dataclasses.fields(self) if f.name not in ("facts", "labels"))
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    @staticmethod
    def join(banks: list[LatentBank]) -> LatentBank:
        """Several banks as one, in order."""
        tensors = (f.name for f in dataclasses.fields(LatentBank) if f.name not in ("facts", "labels"))
        joined = {name: torch.cat([getattr(bank, name) for bank in banks]) for name in tensors}
        return LatentBank(**joined, facts=[fact for bank in banks for fact in bank.facts])

    def concepts(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Labels of the key frame's latents, 1, 0 or -1: relations ``(B, K, K, R)``, orders ``(B, K, K, O)``, doings
        ``(B, K, D)``."""
        for row in rows.tolist():
            if row not in self.labels:
                self.labels[row] = concept_labels(self.facts[row])
        found = [self.labels[row] for row in rows.tolist()]
        ids = self.covered(rows, KEY).clamp(max=IDS - 1)  # (B, K)
        pairs = []
        for name in ("relations", "orders"):
            table = torch.from_numpy(np.stack([getattr(labels, name) for labels in found]))  # (B, IDS, IDS, ·)
            scene = torch.arange(len(rows), device=ids.device)[:, None, None]
            pairs.append(table.to(ids.device)[scene, ids[:, :, None], ids[:, None]])
        doings = torch.from_numpy(np.stack([labels.doings for labels in found])).to(ids.device)
        return pairs[0], pairs[1], doings[torch.arange(len(rows), device=ids.device)[:, None], ids]

    def frames(self, rows: torch.Tensor, time: int) -> ObjectLatents:
        """Latents of the chosen episodes at one of the clip's times, without masks."""
        valid = self.valid[rows, time]
        k = self.slots_used(rows, time)
        no_masks = torch.zeros(len(rows), k, 1, 1, device=valid.device)
        appearance = self.appearance[rows, time, :k].float()
        return ObjectLatents(
            no_masks, self.geometry[rows, time, :k], appearance, self.score[rows, time, :k], valid[:, :k]
        )

    def slots_used(self, rows: torch.Tensor, time: int) -> int:
        """Slots up to the last valid one: slots are sorted by score, so the tail is empty and need not be computed."""
        used = torch.nonzero(self.valid[rows, time].any(0))
        return int(used.max()) + 1 if len(used) else 1

    def covered(self, rows: torch.Tensor, time: int) -> torch.Tensor:
        """Object ids ``(B, K)`` of the same slots as :meth:`frames` gives."""
        return self.ids[rows, time, : self.slots_used(rows, time)]


@torch.inference_mode()
def encode_bank(perception: Perception, bank: EpisodeBank, cache: Path | None = None) -> LatentBank:
    """Run perception over every frame, where it lies; with ``cache``, read the tensors from there when it exists. The
    bank's own tensors are on the CPU."""
    facts = [bank.facts(index) for index in tqdm(range(len(bank)), desc="describing scenes", disable=None)]
    if cache is not None and cache.exists():
        tensors = torch.load(cache, weights_only=True)
        if len(tensors["ids"]) == len(facts):
            return LatentBank(**tensors, facts=facts)
    device = next(perception.eval().parameters()).device
    columns: dict[str, list[torch.Tensor]] = {
        k: [] for k in ("appearance", "geometry", "score", "valid", "ids", "motions")
    }
    for episode in tqdm(bank, desc="encoding scenes", total=len(bank), disable=None):
        images = torch.from_numpy(np.array(episode.images)).permute(0, 3, 1, 2).to(device).float() / 255
        with torch.autocast(device.type, dtype=torch.bfloat16):
            maps = perception.encoder(images.contiguous(memory_format=torch.channels_last))
        maps = type(maps)(*(getattr(maps, f.name).float() for f in dataclasses.fields(maps)))
        latents = perception.latents(images, maps)
        columns["appearance"].append(latents.appearance.half().cpu())
        columns["geometry"].append(latents.geometry.cpu())
        columns["score"].append(latents.score.cpu())
        columns["valid"].append(latents.valid.cpu())
        columns["ids"].append(cover(latents, torch.from_numpy(np.array(episode.instances)).to(device)).cpu())
        motions = torch.full((256,), -1)
        for column, o in enumerate(episode.objects):
            motions[o.id] = int(episode.motions[KEY][column])
        columns["motions"].append(motions)
    tensors = {name: torch.stack(parts) for name, parts in columns.items()}
    if cache is not None:
        partial = cache.with_suffix(".partial")  # a kill leaves no half file under the cache's name
        torch.save(tensors, partial)
        partial.replace(cache)
    return LatentBank(**tensors, facts=facts)


def cover(latents: ObjectLatents, instances: torch.Tensor) -> torch.Tensor:
    """``(T, K)`` id of the object that each latent's mask covers with IoU above one half, else 0."""
    used = torch.arange(1, max(int(instances.max()), 1) + 1, device=instances.device)
    truth = (instances[:, None] == used[:, None, None]).float()  # (T, O, H, W)
    truth = F.avg_pool2d(truth, 2).flatten(2)  # (T, O, P)
    masks = (latents.masks > 0.5).float().flatten(2)  # (T, K, P)
    both = masks @ truth.transpose(1, 2)
    iou = both / (masks.sum(-1, keepdim=True) + truth.sum(-1)[:, None] - both).clamp(min=1)
    best, index = iou.max(-1)
    return torch.where((best > 0.5) & latents.valid, index + 1, 0)
