"""What each idea of the default recipe contributes: its language stage, trained with one idea taken out at a time.

The whole network and every variant begin with the same weights, and are trained for the same number of steps on the
same questions about the same encoded scenes; then all are asked the same questions about validation scenes. Counted is
how often exactly the right latents are chosen, by type of question, and how often the presence of a target is judged
right ("kept", "rejected"). A difference has a 95 % interval over scenes; it says nothing about another start of the
training, for which there are ``--seeds``. "clip" and "motion" take the same away: how they differ is chance.

The shared encoder is not trained twice: its figures say what a second one would cost. A run that was killed goes on
with the same command.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from instructseg.evaluation import intervals
from instructseg.recipes.unified.checkpoint import load_checkpoint
from instructseg.recipes.unified.modeling import UnifiedModel
from instructseg.training.bank import EpisodeBank, generate_shard
from instructseg.training.language_losses import think
from instructseg.training.language_stage import train_language
from instructseg.training.latent_bank import LatentBank, encode_bank
from instructseg.training.questions import Asker, ask_every_scene

from .ablated_models import ABLATIONS, WHOLE, Ablation
from .figures import Figure, figure
from .options import MeasurementFailed, Options

STEPS, QUICK_STEPS = 1500, 5
DRAWN = {"train": 600, "val": 100}  # scenes that are drawn where no folder is given
QUICK_DRAWN = {"train": 6, "val": 4}
TOTALS = ("all", "kept", "rejected")
ASKED = 12  # questions about each validation scene
BATCH, QUESTIONS = 16, 6  # scenes of a step, questions about each: half of what the recipe takes, for twice the steps


@dataclasses.dataclass(frozen=True)
class Judged:
    """One answer. kind: the type of its question, or "kept", "rejected"."""

    kind: str
    scene: int
    right: bool


@dataclasses.dataclass
class Outcome:
    """A variant after training; by seed: what it was asked, always the same questions, and the losses at the end."""

    ablation: Ablation
    answers: list[list[Judged]] = dataclasses.field(default_factory=list)
    losses: list[dict[str, float]] = dataclasses.field(default_factory=list)
    step_s: list[float] = dataclasses.field(default_factory=list)

    def of(self, kind: str) -> list[tuple[int, float]]:
        """(scene, right) of this type over all seeds; kind "all": all targets that are there."""
        wanted = lambda j: j.kind == kind or (kind == "all" and j.kind not in TOTALS)  # noqa: E731
        return [(j.scene, float(j.right)) for answers in self.answers for j in answers if wanted(j)]


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    chosen = (WHOLE, *chosen_ablations(options.without))
    shipped, tokenizer, _ = load_checkpoint(options.checkpoint or None)
    bank, validation = (_encoded(options, shipped, split) for split in ("train", "val"))
    if not any(judged.kind == "kept" for judged in judge(shipped, tokenizer, validation)):
        raise MeasurementFailed("no latent covers any target of the validation scenes; is this perception trained?")
    steps = options.steps or options.repetitions(STEPS, QUICK_STEPS)
    folder = options.out / "ablations" / f"{len(bank)}-scenes-{steps}-steps"
    folder.mkdir(parents=True, exist_ok=True)
    outcomes, states = [Outcome(ablation) for ablation in chosen], []
    for seed in range(options.seeds):
        for outcome in outcomes:
            name = outcome.ablation.name
            options.say(f"{name}, seed {seed}: {steps} steps")
            model = build(outcome.ablation, shipped, seed)
            states.append(folder / f"{name}-{seed}.pt")
            losses, seconds = train(model, tokenizer, bank, steps, seed, states[-1])
            outcome.losses.append(losses)
            outcome.step_s.append(seconds)
            outcome.answers.append(judge(model, tokenizer, validation))
            options.say(f"{name}: {np.mean([right for _, right in outcome.of('all')]):.3f} of all targets right")
    for line in rows(outcomes):
        options.say(line)
    for state in states:  # what is finished must not be mistaken for another run's
        state.unlink()
    figures = [
        figure(f"{outcome.ablation.name}: {kind}", "%", 100 * float(np.mean([right for _, right in outcome.of(kind)])))
        for outcome in outcomes
        for kind in TOTALS
        if outcome.of(kind)
    ]  # by type of question: in the table above and in the details
    details = {
        "steps": steps, "seeds": options.seeds, "training scenes": len(bank), "validation scenes": len(validation),
        "questions": len(outcomes[0].answers[0]), "variants": [_details(outcomes[0], one) for one in outcomes],
    }  # fmt: skip
    return figures + second_encoder(shipped, options.repetitions(30, 2)), details


def chosen_ablations(names: str) -> list[Ablation]:
    """names: comma separated, "" for all. Raises MeasurementFailed where one is unknown."""
    known = {ablation.name: ablation for ablation in ABLATIONS}
    wanted = [name.strip() for name in names.split(",")] if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise MeasurementFailed(f"--without {', '.join(unknown)}: there are {', '.join(known)}")
    return [known[name] for name in wanted]


def build(ablation: Ablation, shipped: UnifiedModel, seed: int) -> UnifiedModel:
    """A fresh network, the same for every variant of this seed, with the perception that is there."""
    torch.manual_seed(seed)
    model = ablation.model(shipped.config, shipped.language.embed_tokens.num_embeddings)
    model.perception.load_state_dict(shipped.perception.state_dict())
    return model


def train(
    model: UnifiedModel, tokenizer, bank: LatentBank, steps: int, seed: int, state: Path
) -> tuple[dict[str, float], float]:
    """As the recipe trains, for a number of steps. state: written meanwhile, and resumed from. Returns smoothed losses
    at the end, and seconds a step."""
    train_language(model, tokenizer, bank, state, 0.0, BATCH, QUESTIONS, seed=seed, steps=steps)
    done = torch.load(state, weights_only=True)
    return {name: round(loss, 4) for name, loss in done["smoothed"].items()}, done["seconds"] / done["step"]


@torch.inference_mode()
def judge(model: UnifiedModel, tokenizer, bank: LatentBank, questions: int = ASKED) -> list[Judged]:
    """The same questions in the same order for every model."""
    model.eval()
    answers = []
    for batch in ask_every_scene(bank, tokenizer, model.config, Asker(np.random.default_rng(11)), questions):
        scores = think(model, bank, batch).scores
        exact = ((scores.target > 0) == (batch.target > 0)).all(-1)  # (R,)
        slots = model.config.max_targets
        for r in torch.nonzero(batch.used & batch.seen)[:, 0].tolist():
            scene, present = int(batch.rows[batch.scene[r // slots]]), bool(batch.present[r])
            if present:
                answers.append(Judged(batch.kinds[r // slots], scene, bool(exact[r])))
            answers.append(Judged("kept" if present else "rejected", scene, bool(scores.presence[r] > 0) == present))
    return answers


def kinds_of(outcomes: Sequence[Outcome]) -> list[str]:
    named = sorted({j.kind for answers in outcomes[0].answers for j in answers} - set(TOTALS))
    return [kind for kind in (*named, *TOTALS) if outcomes[0].of(kind)]


def difference(whole: Outcome, other: Outcome, kind: str) -> intervals.Estimate:
    """Share of right answers less than the whole network's share, question by question."""
    pairs = list(zip(whole.of(kind), other.of(kind), strict=True))
    return intervals.mean([its - right for (_, right), (_, its) in pairs], [scene for (scene, _), _ in pairs])


def rows(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The table for people: a line a type; the whole network's share of right answers, then the variants' differences
    to it."""
    whole, *others = outcomes
    yield f"{'without':12}{'nothing':>8}" + "".join(f"{other.ablation.name:>22}" for other in others)
    for kind in kinds_of(outcomes):
        cells = "".join(f"{_signed(difference(whole, other, kind)):>22}" for other in others)
        yield f"{kind:12}{np.mean([right for _, right in whole.of(kind)]):>8.3f}{cells}"


def _signed(estimate: intervals.Estimate) -> str:
    if estimate.low is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} [{estimate.low:+.2f},{estimate.high:+.2f}]"


def _details(whole: Outcome, outcome: Outcome) -> dict[str, Any]:
    kinds = kinds_of([whole])
    shares = {
        kind: dataclasses.asdict(intervals.mean([r for _, r in outcome.of(kind)], [s for s, _ in outcome.of(kind)]))
        for kind in kinds
    }
    found = {
        "name": outcome.ablation.name, "without": outcome.ablation.without, "right": shares,
        "losses": outcome.losses, "seconds a step": [round(seconds, 4) for seconds in outcome.step_s],
    }  # fmt: skip
    if outcome is not whole:
        found["difference"] = {kind: dataclasses.asdict(difference(whole, outcome, kind)) for kind in kinds}
    return found


@torch.inference_mode()
def second_encoder(model: UnifiedModel, repetitions: int) -> list[Figure]:
    """What it would cost not to share the encoder between the language model and the masks."""
    encoder, image = model.perception.encoder.eval(), torch.rand(1, 3, *model.config.image_size)
    times = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        encoder(image.contiguous(memory_format=torch.channels_last))
        times.append(1e3 * (time.perf_counter() - began))
    size, whole = (sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, model))
    return [
        figure("a second encoder: time a frame", "ms", times[1:]),
        figure("a second encoder: parameters", "million", size),
        figure("the whole network: parameters", "million", whole),
    ]


def _encoded(options: Options, model: UnifiedModel, split: str) -> LatentBank:
    """The scenes of a split as the perception sees them; read from ``--latents`` where they are there already."""
    folder = Path(options.scenes) / split if options.scenes else _drawn(options, model, split)
    bank = EpisodeBank([folder])
    if split == "train" and options.episodes:
        bank.index = bank.index[: options.episodes]
    if not len(bank):
        raise MeasurementFailed(
            f"no finished scenes in {folder}; `instructseg train` writes scenes/train and scenes/val"
        )
    cache = Path(options.latents) / f"{split}.pt" if options.latents else None
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
    return encode_bank(model.perception, bank, cache)


def _drawn(options: Options, model: UnifiedModel, split: str) -> Path:
    count = (QUICK_DRAWN if options.quick else DRAWN)[split]
    height, width = model.config.image_size
    folder = options.out / "ablations" / f"{width}x{height}-{count}" / split
    options.say(f"{count} drawn scenes in {folder}")
    generate_shard(folder / "drawn2-0000", "drawn2", split, 0, count, width, height)
    return folder
