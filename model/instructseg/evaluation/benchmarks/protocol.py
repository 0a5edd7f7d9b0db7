"""How each recipe is asked about each benchmark: the published way where there is one, else this project's.

A protocol is what the recipe's own interface can be told: its options, one set a benchmark and one for sentences or
phrases, which frames it looks at and which of its answers count. What a publication does beyond that stands in
``deviations`` and is printed with the figures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ...core import BadInput
from ...data.samples import Benchmark

RES = ("refcoco", "refcoco+", "refcocog", "refclef")  # one thing a sentence
NAMED_CLIPS = ("ref-youtube-vos", "ref-davis17", "mevis")  # noun phrases about videos
FIRST_MASKS = ("davis2017", "youtube-vos")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """frames: the way a video is asked, see :mod:`.ways`. options: of the recipe, beneath the user's own. sentence,
    phrase: options that change with the sample. together: sentences of one image in one conversation, at most.
    joined: all sentences about one thing are one sample. refuse_from: rejection score from which the answer counts as a
    refusal; None: what the recipe says. show_from: a mask of a lower score is not shown. fusion: how objects become one
    label map. publication: whose protocol it is; "" for ours. deviations: what of it cannot be told the recipe."""

    frames: str
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    sentence: dict[str, str] = dataclasses.field(default_factory=dict)
    phrase: dict[str, str] = dataclasses.field(default_factory=dict)
    together: int = 1
    joined: bool = False
    refuse_from: float | None = None
    show_from: float = 0.0
    fusion: str = "first"
    publication: str = ""
    deviations: tuple[str, ...] = ()

    def under(self, options: Mapping[str, str]) -> Protocol:
        """The same where the user sets options: those win, also over the ones that change with the sample, and all of
        them are told, because any of them may move a figure."""
        kept = {
            name: {key: value for key, value in getattr(self, name).items() if key not in options}
            for name in ("options", "sentence", "phrase")
        }
        notes = (f"option {key} is the user's own: {options[key]}" for key in sorted(options))
        return dataclasses.replace(self, deviations=(*self.deviations, *notes), **kept)


def find_protocol(recipe: str, row: Benchmark, tracker: bool = False) -> Protocol:
    """tracker: a memory tracker carries the masks. Raises BadInput where the benchmark cannot be asked so."""
    name = row.name
    if name in FIRST_MASKS:
        if not tracker:
            raise BadInput(
                f"{name} gives each object by its first mask, not by words: only a memory tracker can be asked; "
                "add --tracker memory --tracker-checkpoint PATH (SAM 2 weights)"
            )
        return Protocol("given_mask")
    found = _PROTOCOLS.get(recipe, _ours)(name, row.video)
    if tracker and row.video:
        if recipe == "visa":  # without an answerer of one's own, the frame that the published sampler falls back to
            middle = found.options | {"frame_sampler": "uniform"}
            clip = "the target frame is chosen among frames spread over the video, unless told otherwise the middle one"
            found = dataclasses.replace(found, options=middle, deviations=(clip,))
        note = "SAM 2's memory carries the masks from the frame of the answer to both ends of the video"
        return dataclasses.replace(found, frames="both_ways", deviations=(*found.deviations, note))
    return found


def _ours(name: str, video: bool) -> Protocol:
    """No publication: the answer on the recipe's own clip at the beginning, its tokens on all frames."""
    return Protocol("from_key" if video else "image", show_from=0.5)


def _videolisa(name: str, video: bool) -> Protocol:
    never = {"rejection": "none"}
    if name in NAMED_CLIPS:
        options = never | {"template": "mevis"}
        left_out = ("without post-optimisation by XMem++",)
        return Protocol("whole_video", options, publication="VideoLISA", deviations=left_out)
    if name == "reasonvos":
        left_out = ("without post-optimisation by XMem++",)
        return Protocol(
            "whole_video", never, {"template": "reason_vos_long"}, {"template": "reason_vos_short"},
            publication="VideoLISA", deviations=left_out,
        )  # fmt: skip
    if name == "reasonseg":
        return Protocol(
            "image", never, {"template": "reason_seg_sentence"}, {"template": "reason_seg_phrase"},
            publication="VideoLISA",
        )  # fmt: skip
    if name in RES:
        return Protocol("image", never | {"template": "reason_seg_phrase"}, publication="VideoLISA")
    return Protocol("whole_video" if video else "image", never)


_REQUESTS = (
    "words of request around a phrase ('show', 'in the picture') are taken off before the question is written",
)


def _gsva(name: str, video: bool) -> Protocol:
    """Masks are made for every slot, as the published second pass does, and refusal is read from the score."""
    options = {"prompt": "phrase", "reject_threshold": "1", "max_targets": "100", "answer_targets": "100"}
    if name == "grefcoco":
        order = "each decision follows [SEG] in the earlier slots; the publication shows the true answers there"
        narrow = "[REJ] is weighed against [SEG] alone, published: against the whole vocabulary"
        return Protocol(
            "image", options, together=100, refuse_from=0.5, publication="GSVA", deviations=(order, narrow, *_REQUESTS)
        )
    if name in RES:
        return Protocol("image", options, together=100, publication="GSVA", deviations=_REQUESTS)
    if name == "reasonseg":
        single = {"split": "off", "reject_threshold": "1"}
        wording = "a phrase is asked with 'What are', published: 'What is'"
        painted = "published figures count ignored pixels as target, see the column of that name"
        return Protocol(
            "image", single, {"prompt": "sentence"}, {"prompt": "phrase"}, publication="GSVA",
            deviations=(wording, painted, *_REQUESTS),
        )  # fmt: skip
    return Protocol("each_frame" if video else "image", {"split": "off"})


def _lisa(name: str, video: bool) -> Protocol:
    options = {"split": "off", "rejection": "none"}
    if name == "reasonseg":
        lower = "phrases are asked in lower case, published: as written"
        return Protocol(
            "image", options, {"prompt": "sentence"}, {"prompt": "phrase"}, publication="LISA",
            deviations=(lower, *_REQUESTS),
        )  # fmt: skip
    if name in RES:
        return Protocol("image", options | {"prompt": "phrase"}, publication="LISA", deviations=_REQUESTS)
    return Protocol("each_frame" if video else "image", options)


def _mllmseg(name: str, video: bool) -> Protocol:
    options = {"prompt": "evaluation", "max_targets": "16"}
    if name in RES or name == "grefcoco":
        notes = ["more than 16 sentences of an image are asked in several conversations, published: in one"]
        if name == "grefcoco":
            notes += [
                "each decision follows [SEG] in the earlier slots; the publication shows the true answers there",
                "no mask is given for a refused sentence, so both ways to score it are the same",
            ]
        else:
            notes += ["a mask whose surest pixels are below one half on average is left out, published: shown"]
        return Protocol("image", options, together=16, publication="MLLMSeg", deviations=tuple(notes))
    return Protocol("each_frame" if video else "image", options)


def _visa(name: str, video: bool) -> Protocol:
    options = {"rejection": "none"}
    if video:
        choice = (
            "every frame is a target frame of its own, as in the released evaluation; the paper's figures carry the "
            "mask of one frame, chosen by a second model, on with XMem"
        )
        published = name in (*NAMED_CLIPS, "revos")
        notes = (choice,) if published else ()
        return Protocol("target_frames", options, publication="VISA" if published else "", deviations=notes)
    if name in RES or name == "reasonseg":
        answer = "the answer reads 'It is [SEG].', published for images: 'Sure, it is [SEG].'"
        return Protocol("image", options, publication="VISA", deviations=(answer,))
    return Protocol("image", options)


def _instructseg(name: str, video: bool) -> Protocol:
    options = {"threshold": "0", "max_targets": "1"}
    if name in RES:
        return Protocol(
            "neighbours", options | {"references": "none", "task": "referring"}, joined=True, publication="InstructSeg"
        )
    if name == "reasonseg":
        painted = "published figures count ignored pixels as background, see the column of that name"
        return Protocol(
            "neighbours", options | {"references": "none", "task": "reasoning"}, publication="InstructSeg",
            deviations=(painted,),
        )  # fmt: skip
    if not video:
        return Protocol("neighbours", options | {"references": "none"})
    task = "reasoning" if name in ("revos", "reasonvos") else "referring"
    publication = "InstructSeg" if name in ("revos", "ref-youtube-vos", "ref-davis17") else ""
    fusion = "soft" if name == "ref-davis17" else "first"
    # The way "neighbours" takes references from both sides whatever this option says; it must not be "none".
    return Protocol(
        "neighbours", options | {"references": "causal", "task": task}, fusion=fusion, publication=publication
    )


_PROTOCOLS = {
    "videolisa": _videolisa,
    "gsva": _gsva,
    "lisa": _lisa,
    "mllmseg": _mllmseg,
    "visa": _visa,
    "instructseg": _instructseg,
}
