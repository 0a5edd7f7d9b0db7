"""Stage 1: the perception of the default recipe, trained on single frames (and on pairs of frames, for identity).

Dense attribute supervision is what makes the small encoder learn at all; mask targets are area averages of the
full-resolution
masks, because point samples shift them by half a pixel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from ..data.scene import Episode
from ..modules.object_latents import pixel_grid
from ..modules.perception import Perception
from .bank import EpisodeBank, shards_below
from .labelled import labelled_cross_entropy
from .recolouring import recolour
from .shares import draw_rows
from .stage import Drawn, Running, Schedule, Stage
from .state import weight_average

MAX_OBJECTS = 20
MIN_AREA = 12.0  # pixels at encoder resolution below which an object is not asked for


@dataclasses.dataclass
class PerceptionBatch:
    """2B frames (two of each episode, adjacent) and what is on them; labels are -1 where there is no object."""

    images: torch.Tensor  # (2B, 3, H, W) in 0..1
    instances: torch.Tensor  # (2B, H, W) int64
    labels: torch.Tensor  # (2B, MAX_OBJECTS, 3) colour, shape, size

    def to(self, device: torch.device) -> PerceptionBatch:
        """The same batch on another device."""
        return PerceptionBatch(self.images.to(device), self.instances.to(device), self.labels.to(device))


def make_batch(episodes: list[Episode], rng: np.random.Generator, config, augment: bool = True) -> PerceptionBatch:
    """Two random frames of each episode, jittered in light, mirrored together, half of the episodes recoloured."""
    images, instances, labels = [], [], []
    for episode in episodes:
        flip = augment and rng.random() < 0.5
        for t in rng.permutation(len(episode.times))[:2]:
            image, ids = np.asarray(episode.images[t]), np.asarray(episode.instances[t])
            images.append(image[:, ::-1] if flip else image)
            instances.append(ids[:, ::-1] if flip else ids)
            rows = np.full((MAX_OBJECTS, 3), -1)
            for o in episode.objects[:MAX_OBJECTS]:
                rows[o.id - 1] = config.colors.index(o.color), config.shapes.index(o.shape), config.sizes.index(o.size)
            labels.append(rows)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
    names = torch.from_numpy(np.stack(labels))
    if augment:
        x, names = recolour(jitter(x, rng), names, rng)
    return PerceptionBatch(x, torch.from_numpy(np.stack(instances).astype(np.int64)), names)


def jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Exposure, gamma, white balance and sensor noise of other cameras; colours keep their names."""
    n = len(x)

    def draw(low, high, *shape):
        return torch.from_numpy(rng.uniform(low, high, (n, *shape, 1, 1))).float()

    x = x.clamp(1e-4, 1) ** draw(0.8, 1.25, 1) * draw(0.8, 1.15, 1) * draw(0.94, 1.06, 3)
    x = x + torch.randn(x.shape) * draw(0.0, 0.03, 1)
    if rng.random() < 0.3:
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    return x.clamp(0, 1)


def perception_losses(model: Perception, batch: PerceptionBatch, precision: str = "bf16") -> dict[str, torch.Tensor]:
    """Named losses, already weighted. precision: of the encoder, ``fp32`` or ``bf16``; the rest is in float32."""
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"):
        maps = model.encoder(images)
    maps = type(maps)(*(getattr(maps, f.name).float() for f in dataclasses.fields(maps)))
    ids = torch.arange(1, MAX_OBJECTS + 1, device=images.device)
    masks = (batch.instances[:, None] == ids[None, :, None, None]).float()  # (B, N, H, W)
    feet, present = _feet(masks)
    half = F.avg_pool2d(masks, 2)  # (B, N, H/2, W/2) area averages
    quarter = F.avg_pool2d(half, 2)
    share, owner = quarter.max(1)  # (B, H/4, W/4)
    inside = (share > 0.5) & present.gather(1, owner.flatten(1)).view_as(owner)
    losses = {"heat": 1.0 * _heat_loss(maps.heat, feet, present, owner)}
    losses["votes"] = 1.5 * _vote_loss(maps.votes, feet, owner, inside, quarter)
    target = half.sum(1).clamp(max=1)
    probability = torch.sigmoid(maps.objectness)
    dice = 1 - 2 * (probability * target).sum((1, 2)) / (probability + target).sum((1, 2)).clamp(min=1)
    edge = 1 + 3 * (F.max_pool2d(target[:, None], 5, 1, 2) + F.max_pool2d(-target[:, None], 5, 1, 2))[:, 0]
    bce = F.binary_cross_entropy_with_logits(maps.objectness, target, weight=edge)
    losses["objectness"] = 2.0 * bce + dice.mean()
    losses["dense"] = 0.3 * _dense_attribute_loss(model, maps.attributes, batch.labels, owner, inside)
    losses.update(_latent_losses(model, batch, maps, half, present))
    return losses


def _feet(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where objects stand, ``(B, N, 2)`` in pixels (x, y), and which are big enough to ask for: the middle of a mask,
    at the height of its lower edge. What lies in a bowl has nearly the bowl's centre, but not its foot."""
    area = masks.sum((-1, -2))
    x = (masks.sum(-2) * (torch.arange(masks.shape[-1], device=masks.device) + 0.5)).sum(-1) / area.clamp(min=1)
    y = (masks.amax(-1) * (torch.arange(masks.shape[-2], device=masks.device) + 0.5)).amax(-1)
    return torch.stack([x, y], -1), area >= MIN_AREA


def _heat_loss(heat: torch.Tensor, feet: torch.Tensor, present: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
    """Penalty-reduced focal loss (CenterNet, Zhou et al. 2019, eq. 1)."""
    grid = pixel_grid(heat.shape[-2:], 4, heat.device)
    distance2 = (feet[..., None, None] - grid).square().sum(2)  # (B, N, h, w)
    bumps = torch.exp(-distance2 / (2 * 4.0**2)) * present[..., None, None]
    target = bumps.amax(1)
    nearest = distance2.flatten(2).argmin(-1)  # (B, N) cell of each foot
    hot = torch.zeros_like(heat).flatten(1).scatter_add(1, nearest, present.float()).view_as(heat) > 0
    log_p, log_q = F.logsigmoid(heat), F.logsigmoid(-heat)
    p = heat.sigmoid()
    loss = torch.where(hot, (1 - p).square() * log_p, (1 - target) ** 4 * p.square() * log_q)
    return -loss.sum() / hot.sum().clamp(min=1)


def _vote_loss(votes, feet, owner, inside, quarter) -> torch.Tensor:
    grid = pixel_grid(votes.shape[-2:], 4, votes.device)
    b, h, w = owner.shape
    own = feet.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 2)).transpose(1, 2).view(b, 2, h, w)
    size = quarter.sum((2, 3)).gather(1, owner.flatten(1)).view(b, h, w).clamp(min=1)
    weight = inside / size.sqrt()  # small objects count too
    error = F.smooth_l1_loss(votes, own - grid, beta=2.0, reduction="none").sum(1) / 8
    return (error * weight).sum() / weight.sum().clamp(min=1)


def _dense_attribute_loss(model, logits, labels, owner, inside) -> torch.Tensor:
    heads = model.appearance
    picked = labels.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 3))  # (B, P, 3)
    picked = torch.where(inside.flatten(1)[..., None], picked, -1)
    total = logits.new_zeros(())
    for k, part in enumerate(logits.flatten(2).split([heads.colors, heads.shapes, heads.sizes], 1)):
        total = total + labelled_cross_entropy(part.transpose(1, 2).flatten(0, 1), picked[..., k].flatten())
    return total


def _latent_losses(model, batch, maps, half, present) -> dict[str, torch.Tensor]:
    color, shape, size, embedding = model.appearance.logits(batch.images, maps, half)
    labels = torch.where(present[..., None], batch.labels, -1).flatten(0, 1)
    losses = {}
    for k, (name, logits) in enumerate((("color", color), ("shape", shape), ("size", size))):
        losses[name] = 0.7 * labelled_cross_entropy(logits.flatten(0, 1), labels[:, k])
    first, second = embedding[0::2], embedding[1::2]  # the two frames of each episode
    similarity = first @ second.transpose(1, 2) / 0.1  # (B, N, N)
    similarity = similarity.masked_fill(~present[1::2, None, :], -1e4)
    both = present[0::2] & present[1::2]
    target = torch.arange(similarity.shape[1], device=similarity.device).expand(len(first), -1)
    losses["identity"] = 0.3 * F.cross_entropy(similarity[both], target[both]) if both.any() else similarity.sum() * 0
    return losses


def draw_episodes(
    bank: EpisodeBank, rng: np.random.Generator, count: int, shares: Mapping[str, float] | None = None
) -> list[int]:
    """Indices of ``count`` episodes; shares: as :func:`~.shares.draw_rows` has them."""
    return draw_rows(bank.by_source(), rng, count, shares)


def train_perception(
    model: Perception, config, bank_folders: list[Path], checkpoint: Path, minutes: float, batch_episodes: int = 8,
    learning_rate: float = 2e-3, seed: int = 0, shares: Mapping[str, float] | None = None, *, steps: int | None = None,
    precision: str = "bf16", validation: EpisodeBank | None = None, running: Running | None = None,
) -> int:  # fmt: skip
    """Train where the model lies, for ``minutes`` of wall time or, where given, for ``steps`` (the schedule's length);
    writes ``checkpoint`` every two minutes and resumes from it. Leaves the averaged weights in the model.

    batch_episodes: of a step, over all its parts. shares: how often each source of scenes is drawn from, by default as
    often as it has episodes. Shards that arrive while it runs are taken in. Returns the steps done. Raises
    TrainingPaused, TrainingStopped (:meth:`Stage.run`), and BadInput where there are no scenes.
    """
    running = running or Running(log_every=50)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = Schedule(minutes, steps, learning_rate, warm_up=100, floor=1e-5)
    average, trained = weight_average(model, 0.998), list(model.parameters())
    stage = Stage("perception", model, trained, optimizer, average, schedule, checkpoint, (seed,), 5.0, running)
    model.to(memory_format=torch.channels_last).train()
    device, bank = trained[0].device, EpisodeBank(bank_folders)

    def draw(rng: np.random.Generator) -> Drawn:
        nonlocal bank
        if stage.step % 100 == 0 and shards_below(bank_folders) != bank.paths:
            bank = EpisodeBank(bank_folders)
        rows = draw_episodes(bank, rng, batch_episodes // running.accumulation, shares)
        batch = make_batch([bank[row] for row in rows], rng, config).to(device)
        return perception_losses(model, batch, precision), rows

    judge = None if validation is None else lambda averaged: evaluate_perception(averaged, config, validation)
    stage.run(draw, lambda row: bank.place(row), judge, lambda: f" bank {len(bank)}")
    return stage.step


@torch.inference_mode()
def evaluate_perception(model: Perception, config, bank: EpisodeBank, limit: int = 60) -> dict[str, float]:
    """Recall of objects at IoU 0.5, their mean mask IoU, false latents per frame and attribute accuracy (key
    frames)."""
    model.eval()
    device = next(model.parameters()).device
    found, ious, extra, right = 0, [], 0, np.zeros(3)
    for index in range(min(limit, len(bank))):
        episode = bank[index]
        image = torch.from_numpy(episode.images[episode.key].copy()).permute(2, 0, 1)[None].float() / 255
        _, latents = model(image.to(device))
        masks = F.interpolate(latents.masks, scale_factor=2, mode="bilinear")[0].cpu() > 0.5  # (K, H, W)
        truth = torch.from_numpy(episode.instances[episode.key].copy())
        used = set()
        for o in episode.objects:
            mask = truth == o.id
            if mask.sum() < 40:
                continue
            iou = (masks & mask).sum((1, 2)) / (masks | mask).sum((1, 2)).clamp(min=1)
            best = int(iou.argmax())
            ious.append(float(iou[best]))
            if ious[-1] > 0.5:
                used.add(best)
                found += 1
                code = latents.appearance[0, best].split([len(config.colors), len(config.shapes), len(config.sizes),
                                                          config.embedding])  # fmt: skip
                right += [int(code[0].argmax()) == config.colors.index(o.color),
                          int(code[1].argmax()) == config.shapes.index(o.shape),
                          int(code[2].argmax()) == config.sizes.index(o.size)]  # fmt: skip
        extra += int(latents.valid.sum()) - len(used)
    names = ("color", "shape", "size")
    accuracy = {name: float(r) / max(found, 1) for name, r in zip(names, right, strict=True)}
    return {
        "recall": found / max(len(ious), 1),
        "mean_iou": float(np.mean(ious)) if ious else 0.0,
        "extra": extra / max(min(limit, len(bank)), 1),
        **accuracy,
    }
