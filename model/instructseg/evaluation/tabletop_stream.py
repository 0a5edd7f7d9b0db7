"""Generated scenes as streams of a camera: each question twice, at the engine's speed and without any latency."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from ..core import Frame, Instruction, Segmenter
from ..data.instructions import KINDS, Question, QuestionWriter, SceneFacts
from ..data.scene import Episode
from ..streaming.config import EngineConfig
from ..streaming.statistics import percentile
from ..streaming.types import FrameResult
from .causal import PublishedMask, StreamRecord, score_slot
from .simulated_stream import SimulatedStream
from .timed_segmenter import Charges, RecordedEncodings

LEAD_S = 1.5  # seconds of frames before the instruction
INSTANT = Charges(0.0, 0.0)
_START_NS = 1_000_000_000


@dataclasses.dataclass
class StreamFigures:
    """Counts over all streams, and the age in seconds of every result published since its instruction."""

    frames_in: int = 0
    frames_out: int = 0
    ages_s: list[float] = dataclasses.field(default_factory=list)
    drops: Counter[str] = dataclasses.field(default_factory=Counter)
    groundings: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    surplus_masks: int = 0  # published beyond the targets that the instruction names
    last_error: str = ""

    def summary(self) -> dict:
        """Plain values, the ages as percentiles (None: nothing was published)."""
        ages = {f"age_p{q}_s": percentile(self.ages_s, q / 100) if self.ages_s else None for q in (50, 95, 99)}
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "ages_s"}
        return {**ages, **{k: dict(v) if isinstance(v, Counter) else v for k, v in plain.items()}}


@dataclasses.dataclass
class StreamReport:
    """records: at the engine's speed; instant: the same slots where computing takes no time. figures: of the former."""

    records: list[StreamRecord]
    instant: list[StreamRecord]
    figures: StreamFigures


def stream_times(rate: float, seconds: float) -> tuple[np.ndarray, int]:
    """Times of the frames of one stream in seconds, and the index of the frame with which the instruction comes."""
    before, after = round(LEAD_S * rate), max(1, round(seconds * rate))
    return np.arange(-before, after + 1) / rate, before


def evaluate_stream(
    segmenter: Segmenter,
    episodes: Iterable[Episode],
    split: str,
    questions: int = 1,
    seed: int = 5,
    charges: Charges | None = None,
    config: EngineConfig | None = None,
    progress: bool = True,
) -> StreamReport:
    """Ask every episode ``questions`` questions, each of a fresh engine, just before its key frame comes."""
    config = config or EngineConfig(buffer_s=max(EngineConfig.buffer_s, segmenter.sampling.horizon_s))
    writer = QuestionWriter(np.random.default_rng([seed, len(split)]), split)
    report = StreamReport([], [], StreamFigures())
    warm = False
    for number, episode in enumerate(tqdm(episodes, desc="streaming", disable=not progress, mininterval=2)):
        if not warm:  # the first call of a step is slower than any later one
            segmenter.warm_up(*episode.images.shape[1:3])
            warm = True
        facts, frames = SceneFacts(episode), stream_frames(episode)
        for question in [writer.ask(facts) for _ in range(questions)]:
            encoder = RecordedEncodings(segmenter)
            timed = ask_stream(encoder, episode, frames, question, charges, config, report.figures)
            encoder.recall = True
            instant = ask_stream(encoder, episode, frames, question, INSTANT, config, StreamFigures())
            for record in timed + instant:
                record.episode = number
            report.records += timed
            report.instant += instant
    return report


def stream_frames(episode: Episode) -> list[Frame]:
    """The frames of an episode, stamped with its times; the first one comes a second after zero."""
    stamps = [_START_NS + round((t - episode.times[0]) * 1e9) for t in episode.times]
    return [Frame(np.ascontiguousarray(image), stamp) for image, stamp in zip(episode.images, stamps, strict=True)]


def ask_stream(
    segmenter: Segmenter,
    episode: Episode,
    frames: list[Frame],
    question: Question,
    charges: Charges | None,
    config: EngineConfig,
    figures: StreamFigures,
) -> list[StreamRecord]:
    """The records of one question's slots; what the stream did is added to ``figures``."""
    stamps = [frame.stamp_ns for frame in frames]
    end_ns = stamps[-1] + (stamps[-1] - stamps[-2])
    published: list[list[PublishedMask]] = [[] for _ in question.slots]

    def on_result(result: FrameResult) -> None:
        if stream.clock.now_ns < stamps[episode.key]:
            return
        figures.ages_s.append(result.age_s)
        for slot, masks in enumerate(published):
            target = result.targets[slot] if slot < len(result.targets) else None
            mask, instance_id = (None, 0) if target is None else (target.mask, target.instance_id)
            masks.append(PublishedMask(stream.clock.now_ns, instance_id, mask))
        figures.surplus_masks += sum(t.mask is not None for t in result.targets[len(published) :])

    with SimulatedStream(segmenter, config, charges, stamps[0], on_result=on_result) as stream:
        instruction = Instruction("question", question.text)
        stream.at(stamps[episode.key] - 1, lambda: stream.engine.set_instruction(instruction))
        for frame in frames:
            stream.show(frame)
        stream.run(end_ns - 1)
        _count(figures, stream)
    records = []
    for slot, (asked, masks) in enumerate(zip(question.slots, published, strict=True)):
        truth = np.isin(episode.instances[episode.key :], list(asked.targets))  # (T, H, W)
        since = stamps[episode.key :]
        record = score_slot(
            masks, since, end_ns, truth, config.stale_after, question.kind, question.text, bool(asked.targets)
        )
        record.slot, record.targets = slot, tuple(sorted(asked.targets))
        records.append(record)
    return records


def _count(figures: StreamFigures, stream: SimulatedStream) -> None:
    seen = stream.engine.statistics()
    figures.frames_in += seen.frames_in
    figures.frames_out += seen.frames_out
    for name in ("drops", "groundings", "faults"):
        getattr(figures, name).update(getattr(seen, name))
    figures.last_error = seen.last_error or figures.last_error


def summarise(report: StreamReport) -> dict[str, dict[str, float | int | None]]:
    """By kind and over all; None where a figure is not defined.

    missed: share of the present targets without any mask. rejected: share of the absent ones without any.
    false_masks: share of the frames that do not show the target during which a mask was held.
    """
    table: dict[str, dict[str, float | int | None]] = {}
    for kind in (*KINDS, "all"):
        rows = [r for r in report.records if kind in (r.kind, "all")]
        present, absent = [r for r in rows if r.present], [r for r in rows if not r.present]
        instant = [r for r in report.instant if kind in (r.kind, "all") and r.present]
        hidden = sum(r.hidden for r in rows)
        times = [r.first_mask_s for r in present if r.first_mask_s is not None]
        table[kind] = {
            "present": len(present),
            "absent": len(absent),
            "instant_j_and_f": _mean([r.j_and_f for r in instant]),
            "j": _mean([r.j for r in present]),
            "f": _mean([r.f for r in present]),
            "j_and_f": _mean([r.j_and_f for r in present]),
            "published_j_and_f": _mean([r.published_j_and_f for r in present]),
            "first_mask_s": round(float(np.median(times)), 4) if times else None,
            "first_j": _mean([r.first_j for r in present]),
            "missed": _mean([r.masks == 0 for r in present]),
            "switches": sum(r.switches for r in rows),
            "rejected": _mean([r.masks == 0 for r in absent]),
            "false_masks": round(sum(r.false_masks for r in rows) / hidden, 4) if hidden else None,
        }
    return table


_COLUMNS = {  # heading of the printed table: key of the summary
    "present": "present", "absent": "absent", "J&F at once": "instant_j_and_f", "J": "j", "F": "f", "J&F": "j_and_f",
    "published": "published_j_and_f", "first s": "first_mask_s", "first J": "first_j", "missed": "missed",
    "switches": "switches", "rejected": "rejected", "false": "false_masks",
}  # fmt: skip


def format_stream(table: dict[str, dict[str, float | int | None]], figures: StreamFigures) -> str:
    """The table and two lines on ages and drops."""
    widths = {heading: max(8, len(heading) + 2) for heading in _COLUMNS}
    lines = [f"{'kind':12}" + "".join(f"{heading:>{width}}" for heading, width in widths.items())]
    for kind, row in table.items():
        cells = (f"{_cell(row[_COLUMNS[heading]]):>{width}}" for heading, width in widths.items())
        lines.append(f"{kind:12}" + "".join(cells))
    seen = figures.summary()
    ages = " / ".join("-" if seen[f"age_p{q}_s"] is None else f"{1e3 * seen[f'age_p{q}_s']:.0f}" for q in (50, 95, 99))
    lines.append(
        f"age of results p50 / p95 / p99: {ages} ms; frames {seen['frames_in']}, processed {seen['frames_out']}"
    )
    for name in ("drops", "groundings", "faults"):
        counts = ", ".join(f"{cause} {count}" for cause, count in sorted(seen[name].items())) or "none"
        lines.append(f"{name}: {counts}")
    if figures.last_error:
        lines.append(f"last fault: {figures.last_error}")
    return "\n".join(lines)


def _cell(value: float | int | None) -> str:
    return "-" if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.3f}"


def _mean(values: list) -> float | None:
    values = [value for value in values if value is not None]
    return round(float(np.mean(values)), 4) if values else None
