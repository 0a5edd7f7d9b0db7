"""From a question on an image to slots: places of the answer where the model says ``[SEG]`` or ``[REJ]``.

Three ways. *Forced slots* (ours) writes the evaluation answer and lets the model decide at each slot alone. *Free
answer* is greedy generation, as LISA's chat does it. *Teacher forcing* is the published evaluation of GSVA: the true
answer is given, and only the decisions before its slots are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from transformers import DynamicCache

from ...core import BadInput
from ...sentencepieces import IMAGE_PLACEHOLDER
from .modeling import GsvaModel, slot_positions
from .vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """One decision. token: what stands in the answer. state: ``(D,)``, the state that predicts it and that prompts SAM.

    rejection: probability of ``[REJ]`` against ``[SEG]`` (0 where the model has no ``[REJ]``); ours, as is
    probability, that of ``[SEG]`` among all tokens.
    """

    token: int
    state: torch.Tensor
    rejection: float
    probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What was said after a question: its ids (an end token included) and its slots in order."""

    ids: tuple[int, ...]
    slots: tuple[Slot, ...]


class ImagePrefix:
    """The keys and values of one image and the text before it, to be continued by one question after another.

    Belongs to one caller at a time: :meth:`extend` moves it on, :meth:`rewind` back to where the image ends.
    """

    def __init__(self, model: GsvaModel, vocabulary: Vocabulary, image_rows: torch.Tensor, ids: Sequence[int]):
        """image_rows: ``(P, D)``. ids: the prompt up to the image's placeholder, which is the last of them."""
        if not ids or ids[-1] != IMAGE_PLACEHOLDER:
            raise BadInput("an image prefix must end with the image's placeholder")
        self.model = model
        self.vocabulary = vocabulary
        self.ids = tuple(ids)
        self.device = image_rows.device
        spliced = model.splice(torch.tensor([ids], device=self.device), image_rows[None])
        self.length = spliced.embeddings.shape[1]
        self._cache = DynamicCache()
        self._run(spliced.embeddings)

    def rest_of(self, prompt: Sequence[int]) -> list[int]:
        """A whole prompt's ids after this prefix. Raises BadInput where it begins otherwise."""
        if tuple(prompt[: len(self.ids)]) != self.ids:
            raise BadInput("the prompt does not begin with the cached text and image")
        return list(prompt[len(self.ids) :])

    def extend(self, ids: Sequence[int]) -> torch.Tensor:
        """States ``(n, D)`` of ``n`` further tokens, which stay in the cache."""
        return self._run(self.model.embed(torch.tensor([ids], device=self.device)))

    def rewind(self) -> None:
        """Forget everything after the image."""
        surplus = self._cache.get_seq_length() - self.length
        if surplus > 0:
            self._cache.crop(-surplus)

    def _run(self, embeddings: torch.Tensor) -> torch.Tensor:
        outputs = self.model.llm.model(inputs_embeds=embeddings, past_key_values=self._cache, use_cache=True)
        return outputs.last_hidden_state[0]  # (n, D)


def image_prefix_ids(prompt: Sequence[int]) -> list[int]:
    """A prompt's ids up to its first image placeholder, which is the last of them."""
    return list(prompt[: list(prompt).index(IMAGE_PLACEHOLDER) + 1])


def forced_slots(
    prefix: ImagePrefix, prompt: Sequence[int], fragments: Sequence[Sequence[int]], threshold: float = 0.5
) -> tuple[Slot, ...]:
    """One slot for each fragment: the fragment is written, the model chooses between ``[SEG]`` and ``[REJ]``.

    prompt: ids of the whole prompt. fragments: ids of the fixed words before each slot, the first possibly empty. A
    slot is rejected where ``[REJ]`` has ``threshold`` or more of the two tokens' probability; the token chosen is
    written, so later decisions see it. Without a ``[REJ]`` (LISA) every slot is ``[SEG]``.
    """
    prefix.rewind()
    slots: list[Slot] = []
    pending = prefix.rest_of(prompt)
    for fragment in fragments:
        state = prefix.extend([*pending, *fragment])[-1]
        slots.append(_decide(prefix, state, threshold))
        pending = [slots[-1].token]
    return tuple(slots)


def free_answer(prefix: ImagePrefix, prompt: Sequence[int], max_new_tokens: int) -> Answer:
    """Greedy generation until the end token; a slot is a step whose most probable token is ``[SEG]`` or ``[REJ]``."""
    prefix.rewind()
    vocabulary = prefix.vocabulary
    ids: list[int] = []
    slots: list[Slot] = []
    pending = prefix.rest_of(prompt)
    while len(ids) < max_new_tokens:
        state = prefix.extend(pending)[-1]
        token = int(prefix.model.logits(state).argmax())
        ids.append(token)
        if token in vocabulary.slot_tokens:
            slots.append(_read_slot(prefix, state, token))
        if token == vocabulary.eos:
            break
        pending = [token]
    return Answer(tuple(ids), tuple(slots))


def _decide(prefix: ImagePrefix, state: torch.Tensor, threshold: float) -> Slot:
    slot = _read_slot(prefix, state, prefix.vocabulary.seg)
    if prefix.vocabulary.rej is None or slot.rejection < threshold:
        return slot
    return dataclasses.replace(slot, token=prefix.vocabulary.rej)


def _read_slot(prefix: ImagePrefix, state: torch.Tensor, token: int) -> Slot:
    logits = prefix.model.logits(state).float()  # (V,)
    seg, rej = prefix.vocabulary.seg, prefix.vocabulary.rej
    rejection = 0.0 if rej is None else float(torch.sigmoid(logits[rej] - logits[seg]))
    return Slot(token, state, rejection, float(logits.softmax(-1)[seg]))


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherForced:
    """decisions: per row ``(L,)`` ids after splicing (image rows 0), slots replaced by what the model would say.

    prompts: per row ``(n, C)``, one for each ``[SEG]`` of the true answer, or for each slot after a second pass.
    """

    decisions: tuple[torch.Tensor, ...]
    prompts: tuple[torch.Tensor, ...]


def teacher_forced(
    model: GsvaModel, vocabulary: Vocabulary, input_ids: torch.Tensor, image_rows: torch.Tensor, second_pass: bool
) -> TeacherForced:
    """The published evaluation, for benchmarks: rows ``(N, T)`` hold the true answers, right-padded.

    image_rows: ``(N, P, D)``, each conversation's image. At a true ``[SEG]`` slot any most probable token but ``[SEG]``
    counts as a rejection; at a true ``[REJ]`` slot any but ``[REJ]`` as a segmentation. second_pass: every ``[REJ]`` is
    replaced by ``[SEG]`` and all targets get a prompt (gRefCOCO, Ref-ZOM); decisions stay those of the first pass.
    """
    states = _states(model, vocabulary, input_ids, image_rows)
    visual = image_rows.shape[1]
    decisions = tuple(_decisions(model, vocabulary, *row, visual) for row in zip(input_ids, states, strict=True))
    if second_pass and vocabulary.rej is not None:
        input_ids = torch.where(input_ids == vocabulary.rej, vocabulary.seg, input_ids)
        states = _states(model, vocabulary, input_ids, image_rows)
    prompts = tuple(
        model.prompts(row_states[slot_positions(row, [vocabulary.seg], visual)[0]])  # (n, C)
        for row, row_states in zip(input_ids, states, strict=True)
    )
    return TeacherForced(decisions, prompts)


def expanded_ids(row: torch.Tensor, visual_length: int) -> torch.Tensor:
    """One row of ids ``(T,)`` after splicing ``(T + P - 1,)``: zeros where the image stands."""
    place = int((row == IMAGE_PLACEHOLDER).nonzero()[0])
    return torch.cat([row[:place], row.new_zeros(visual_length), row[place + 1 :]])


def _states(
    model: GsvaModel, vocabulary: Vocabulary, input_ids: torch.Tensor, image_rows: torch.Tensor
) -> torch.Tensor:
    return model.read(model.splice(input_ids, image_rows, input_ids != vocabulary.pad))


def _decisions(
    model: GsvaModel, vocabulary: Vocabulary, row: torch.Tensor, states: torch.Tensor, visual: int
) -> torch.Tensor:
    ids = expanded_ids(row, visual)
    places, kinds = slot_positions(row, vocabulary.slot_tokens, visual)
    said = model.logits(states[places]).argmax(-1)  # (K,)
    if vocabulary.rej is not None:
        other = torch.where(kinds == vocabulary.seg, vocabulary.rej, vocabulary.seg)
        ids[places + 1] = torch.where(said == kinds, kinds, other)
    return ids
