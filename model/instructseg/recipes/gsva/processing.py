"""GSVA and LISA as a Segmenter: several targets an instruction, a token or a refusal for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...core import BadInput, Clip, EncodedFrame, Grounding, Instruction, Sampling, Target
from ...language import clean_instruction
from ...modules.evidence import mask_evidence, rejection_score
from ...options import parse_options
from ..token_prompted import PromptToken, TokenPromptedSegmenter
from .checkpoint import Loaded, load_checkpoint
from .configuration import GsvaOptions
from .decoding import Answer, ImagePrefix, Slot, forced_slots, free_answer, image_prefix_ids
from .prompts import REJ, SEG
from .questions import Question, ask


class GsvaSegmenter(TokenPromptedSegmenter):
    """The key frame is read once; every question of every instruction continues from there.

    An image system: a token is found on the key frame and prompts later frames unchanged. GSVA refuses by ``[REJ]``;
    LISA never does by itself, its rejection score is ours.
    """

    sampling = Sampling(1, 1, 0.0)

    def __init__(self, loaded: Loaded, options: GsvaOptions, device: torch.device, dtype: torch.dtype):
        self.model = loaded.model.to(device)
        super().__init__(self.model.vision, self.model.sam, device, dtype)
        self.name = loaded.layout
        self.layout = loaded.layout
        self.vocabulary = loaded.vocabulary
        self.options = options
        self.max_targets = options.max_targets
        self.load_report = loaded.report
        self.notes = loaded.notes

    def ground(self, clip: Clip, instructions: Sequence[Instruction]) -> list[Grounding]:
        if not instructions:
            return []
        asked = [self.questions(instruction.text) for instruction in instructions]
        with self.precision():
            prefix = self._read_image(clip.key, asked[0][0])
            answered = [[self._answer(prefix, question) for question in questions] for questions in asked]
            targets = [
                [
                    target
                    for question, answer in zip(questions, answers, strict=True)
                    for target in self._targets(clip.key, question, answer)
                ]
                for questions, answers in zip(asked, answered, strict=True)
            ]
        stamps = tuple(encoded.frame.stamp_ns for encoded in clip.frames)
        return [
            Grounding(instruction.id, stamps[-1], stamps, tuple(found), self._text(questions, answers))
            for instruction, found, questions, answers in zip(instructions, targets, asked, answered, strict=True)
        ]

    def questions(self, text: str) -> list[Question]:
        """What is asked for one instruction. Raises BadInput for text that cannot be used."""
        questions = ask(clean_instruction(text), self.layout, self.options, self.vocabulary)
        room = self.model.config.llama.max_position_embeddings - self.clip.num_patches
        for question in questions:
            length = len(question.prompt) + sum(len(fragment) + 1 for fragment in question.fragments)
            if length >= room:
                raise BadInput(
                    f"the question takes {length} tokens beside the image; the language model has room for {room}: "
                    "shorten the instruction"
                )
        return questions

    def _read_image(self, key: EncodedFrame, question: Question) -> ImagePrefix:
        rows = self.model.projector(key.features.clip())  # (P, D)
        return ImagePrefix(self.model, self.vocabulary, rows, image_prefix_ids(question.prompt))

    def _answer(self, prefix: ImagePrefix, question: Question) -> Answer:
        if self.options.decoding == "forced_slot":
            slots = forced_slots(prefix, question.prompt, question.fragments, self.options.reject_threshold)
            return Answer((), slots)
        room = self.model.config.llama.max_position_embeddings - self.clip.num_patches - len(question.prompt)
        return free_answer(prefix, question.prompt, min(self.options.max_new_tokens, room))

    def _targets(self, key: EncodedFrame, question: Question, answer: Answer) -> list[Target]:
        """One target a slot, in order; then one for every phrase that the answer passed over."""
        slots = answer.slots[: self.max_targets]  # a free answer may run in circles
        phrases = list(question.phrases)
        if len(phrases) == 1:
            phrases *= max(1, len(slots))
        names = phrases[: len(slots)] + [""] * (len(slots) - len(phrases))
        targets = [self._target(key, slot, name) for slot, name in zip(slots, names, strict=True)]
        silent = f"the model's answer has no {SEG} for it"
        return targets + [Target(None, 0.0, 1.0, True, name, silent) for name in phrases[len(slots) :]]

    def _target(self, key: EncodedFrame, slot: Slot, phrase: str) -> Target:
        if slot.token == self.vocabulary.rej:
            reason = f"the model answers {REJ}, {slot.rejection:.2f} against {SEG}"
            return Target(None, 1.0 - slot.rejection, slot.rejection, True, phrase, reason)
        prompt = self.model.prompts(slot.state)[None]  # (1, C)
        if self.vocabulary.rej is not None:
            return Target(PromptToken(prompt), 1.0 - slot.rejection, slot.rejection, False, phrase)
        rule = self.options.rejection
        evidence = 1.0
        if rule in ("mask", "both"):
            evidence = float(mask_evidence(self.decode(key, prompt[None]))[0])
        absent = rejection_score(slot.probability, evidence, rule)
        reason = (
            "" if rule == "none" else f"{SEG} has probability {slot.probability:.2f}, its mask evidence {evidence:.2f}"
        )
        return Target(PromptToken(prompt), 1.0 - absent, absent, False, phrase, reason)

    def _text(self, questions: Sequence[Question], answers: Sequence[Answer]) -> str:
        """What the model said; of a forced answer its slots."""
        said = []
        for question, answer in zip(questions, answers, strict=True):
            if self.options.decoding == "generate":
                said.append(self.vocabulary.pieces.decode([i for i in answer.ids if i != self.vocabulary.eos]))
                continue
            marks = [REJ if slot.token == self.vocabulary.rej else SEG for slot in answer.slots]
            said += [f"{phrase}: {mark}" for phrase, mark in zip(question.phrases, marks, strict=True)]
        return ", ".join(said)


def build(
    checkpoint: str | Path, device: torch.device, dtype: torch.dtype | None, options: Mapping[str, str]
) -> GsvaSegmenter:
    """GSVA or LISA from a file, a folder or a hub id; which of them it is, the checkpoint says.

    dtype None: bfloat16 on CUDA, float32 on the CPU. With float16, SAM stays in float32, where its neck does not
    overflow.
    """
    chosen = parse_options(GsvaOptions, options, "recipe gsva")
    picked = dtype or (torch.bfloat16 if device.type == "cuda" else torch.float32)
    loaded = load_checkpoint(checkpoint, chosen, picked)
    if picked == torch.float16:
        loaded.model.sam.float()
    return GsvaSegmenter(loaded, chosen, device, picked)
