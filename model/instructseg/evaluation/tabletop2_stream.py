"""The benchmark ``tabletop2`` as streams of a camera: latency is charged, identities are watched."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tqdm import tqdm

from ..core import Segmenter
from ..data.scene import Episode
from ..data.tabletop2.questions import KINDS, Asked
from ..streaming.config import EngineConfig
from . import intervals
from .causal import StreamRecord
from .intervals import Estimate
from .tabletop_stream import INSTANT, StreamFigures, StreamReport, ask_stream, stream_frames
from .timed_segmenter import Charges, RecordedEncodings


def stream_cases(
    segmenter: Segmenter, cases: Iterable[tuple[int, Episode, Sequence[Asked]]], charges: Charges | None = None,
    progress: bool = True,
) -> StreamReport:  # fmt: skip
    """Every question to a fresh engine just before the key frame; as in ``tabletop_stream``, also without latency."""
    config = EngineConfig(buffer_s=max(EngineConfig.buffer_s, segmenter.sampling.horizon_s))
    report = StreamReport([], [], StreamFigures())
    warm = False
    for number, episode, questions in tqdm(cases, desc="streaming", disable=not progress, mininterval=2):
        if not warm:  # the first call of a step is slower than any later one
            segmenter.warm_up(*episode.images.shape[1:3])
            warm = True
        frames = stream_frames(episode)
        for question in questions:
            encoder = RecordedEncodings(segmenter)
            timed = ask_stream(encoder, episode, frames, question, charges, config, report.figures)
            encoder.recall = True
            instant = ask_stream(encoder, episode, frames, question, INSTANT, config, StreamFigures())
            for record in timed + instant:
                record.episode = number
            report.records += timed
            report.instant += instant
    return report


def summarise(report: StreamReport) -> dict[str, dict[str, Estimate | int]]:
    """By type and over all. switches: changes of the instance id a present target; the other names as in
    ``tabletop_stream.summarise``, times to the first mask as a mean."""
    table = {}
    for kind in (*KINDS, "all"):
        rows = [r for r in report.records if kind in (r.kind, "all")]
        if rows:
            instant = [r for r in report.instant if kind in (r.kind, "all") and r.present]
            table[kind] = _figures(rows, instant)
    return table


def _figures(rows: list[StreamRecord], instant: list[StreamRecord]) -> dict[str, Estimate | int]:
    present, absent = [r for r in rows if r.present], [r for r in rows if not r.present]
    scenes, no_scenes = [r.episode for r in present], [r.episode for r in absent]
    return {
        "present": len(present),
        "absent": len(absent),
        "instant_j_and_f": intervals.mean([r.j_and_f for r in instant], [r.episode for r in instant]),
        "j_and_f": intervals.mean([r.j_and_f for r in present], scenes),
        "first_mask_s": intervals.mean([r.first_mask_s for r in present], scenes),
        "missed": intervals.mean([float(r.masks == 0) for r in present], scenes),
        "switches": intervals.mean([float(r.switches) for r in present], scenes),
        "rejected": intervals.mean([float(r.masks == 0) for r in absent], no_scenes),
        "false_masks": intervals.ratio_of_sums(
            [float(r.false_masks) for r in rows], [float(r.hidden) for r in rows], [r.episode for r in rows]
        ),
    }


COLUMNS = {
    "J&F at once": "instant_j_and_f", "J&F": "j_and_f", "first mask s": "first_mask_s", "missed": "missed",
    "switches": "switches", "rejected": "rejected", "false masks": "false_masks",
}  # fmt: skip
