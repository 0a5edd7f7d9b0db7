"""The default recipe while it learns from a data set's words and masks, on top of what it knows.

Perception and video perceiver are frozen and run without gradients; frozen too are the scene concepts, because masks do
not say what is true of other things. The language model gets LoRA, and trained as they are: the mask head, the answer,
and the embeddings of words that the tokenizer does not know yet. It computes in float32 whatever ``precision`` says:
the model is small.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from ...core import BadInput, Sampling
from ...data.samples import Footage, Kind, Sample, Truth
from ...language import clean_instruction
from ...options import NoOptions, parse_options
from ...sampling import sparse_dense
from ...training.adapters import belonging
from ...training.image_samples import has_words
from ...training.learner import Learner, LoraSettings, Published
from ...training.lora import add_lora, train_only
from ...training.merging import merged_state
from .adapting import LORA_ALPHA, LORA_DROPOUT, LORA_LAYERS, LORA_RANK
from .backbones import LANGUAGE, PERCEPTION
from .checkpoint import load_checkpoint, save_checkpoint
from .frozen_eyes import FrozenEyes, join_latents, used_latents
from .modeling import UnifiedModel
from .processing import Placement, letterbox
from .rehearsal import rehearsal_texts
from .tokenizer import encode_words
from .training import Scenes, join_labels, labels_of, sample_losses
from .vocabulary import GrownEmbedding, mark_of_words, unknown_words, with_words

log = logging.getLogger(__name__)
# Nothing was published for it: these are the values of the example in docs/finetuning_example.md.
PUBLISHED = Published(1e-3, (0.9, 0.98), 1e-2, 1.0, 0.05, "cosine", 300, 4)
WHOLE = re.compile(r"(head|answer)\..*|language\.embed_tokens\.new_.*")
# On a pretrained language model, what shows it the latents and asks for targets as well.
WHOLE_OF_LARGE = re.compile(WHOLE.pattern + r"|latent_embedding\..*|slot_embedding")
SHARED = re.compile(r"(perception|language)\..*")
SHIPPED = "shipped"  # in a configuration, for the checkpoint of the package
TOGETHER = 8  # questions about one scene: its frames are looked at once
REHEARSED = 8  # questions about it in the words of before
RATE = 6.0  # frames a second of videos that do not say it: that of Ref-YouTube-VOS
LATER_NS = 3_000_000_000  # how much after the key frame the later one may be
KEYS_TRIED = LATER_TRIED = 10  # frames, to find one with an annotation


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """frames ``(F, h, w, 3)`` uint8, letterboxed: past ones, the key frame, a later one. seconds ``(F - 2,)``: how long
    before the key frame the past ones were taken. Of Q questions: words (ids), masks ``(n, h, w)`` bool on the key and
    on the later frame, and whether they hold everything that the noun names."""

    frames: np.ndarray
    seconds: tuple[float, ...]
    words: tuple[tuple[int, ...], ...]
    masks: tuple[np.ndarray, ...]
    later_masks: tuple[np.ndarray, ...]
    whole_class: tuple[bool, ...]
    rehearsed: tuple[tuple[int, ...], ...]  # questions in the words of before


class UnifiedLearner(Learner):
    name = "unified"
    published = PUBLISHED
    together = TOGETHER

    def __init__(self, model: UnifiedModel, tokenizer: Tokenizer, device: torch.device, lora: LoraSettings) -> None:
        self.tokenizer, self.words = tokenizer, ()
        self._known = tokenizer  # what the model could read before
        self._old_questions: list[tuple[int, ...]] = []
        self.lora = lora.filled(LORA_RANK, LORA_ALPHA, LORA_DROPOUT)
        config = model.config
        self.sampling = Sampling(config.sparse_frames, 1, config.horizon_s)
        self.size, self.longest = config.image_size, config.max_words
        self.module = model.to(device)
        self.eyes = FrozenEyes(model)
        if PERCEPTION in config.untrained:
            raise BadInput(
                "the perception of this checkpoint has not been trained, so that there are no objects to learn words "
                "for: train it first with instructseg train --set model=CHECKPOINT (docs/unified_large.md)"
            )
        self.before = None if LANGUAGE in config.untrained else frozen_copy(model)
        add_lora(model, LORA_LAYERS, self.lora.rank, self.lora.alpha, self.lora.dropout)
        self._grow(())

    def meet(self, samples: Iterable[Sample]) -> None:
        """Words that the tokenizer does not know become part of the model. To be called once, before training."""
        texts = [sample.instruction for sample in samples if self._says(sample, log.warning)]
        fresh = unknown_words(self.tokenizer, texts)
        self.tokenizer = with_words(self.tokenizer, fresh)
        self._grow(fresh)

    def takes(self, sample: Sample) -> bool:
        """What cannot be said to the model is not drawn: it would spoil the examples of others about its scene."""
        return self._says(sample)

    def example(self, samples: Sequence[Sample], draw: random.Random) -> Example:
        footage = samples[0].footage
        key, truths = self._key(samples, draw)
        asked = [sample for sample, truth in zip(samples, truths, strict=True) if truth is not None]
        later = self._later(asked, key, draw)
        stamps = [stamp_of(footage, index) for index in range(key + 1)]
        clip = sparse_dense(stamps, self.sampling).indices
        image = footage.read(key)
        place = Placement.of(image.shape[:2], self.size)
        pictures = [image if index == key else footage.read(index) for index in (*clip, later)]
        for index, picture in zip((*clip, later), pictures, strict=True):
            if picture.shape != image.shape:
                raise BadInput(
                    f"{_of(asked[0], index)} is {_size(picture)}, frame {footage.frames[key]} {_size(image)}"
                )
        return Example(
            np.stack([letterbox(picture, place) for picture in pictures]),
            tuple((stamps[key] - stamps[index]) * 1e-9 for index in clip[:-1]),
            tuple(self._ids(sample.instruction, f"sample {sample.id}") for sample in asked),
            tuple(_masks(sample, key, place) for sample in asked),
            tuple(_masks(sample, later, place) for sample in asked),
            tuple(sample.kind is Kind.SEMANTIC for sample in asked),
            tuple(draw.sample(self._rehearsed(), REHEARSED)),
        )

    def losses(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        with torch.autocast(self.module.answer.weight.device.type, enabled=False):
            return sample_losses(self.module, self.before, self._scenes(examples))

    def save_merged(self, folder: Path) -> None:
        """The recipe's layout, with the tokenizer that knows the new words."""
        state = merged_state(self.module)
        embedding = self.module.language.embed_tokens
        kept = {name: value for name, value in state.items() if not name.startswith("language.embed_tokens.")}
        kept["language.embed_tokens.weight"] = embedding.weight.detach()
        bad = [name for name, value in kept.items() if value.is_floating_point() and not bool(value.isfinite().all())]
        if bad:
            raise BadInput(f"{bad[0]} holds values that are not finite: this model is not worth saving")
        merged = UnifiedModel(dataclasses.replace(self.module.config, untrained=()), len(embedding.weight))
        merged.load_state_dict({name: value.cpu() for name, value in kept.items()})
        save_checkpoint(folder, merged, self.tokenizer)

    def keep_fewer_activations(self) -> None:
        raise BadInput("gradient_checkpointing must be false for the recipe unified, whose activations are small")

    def _grow(self, words: tuple[str, ...]) -> None:
        """New words, and what follows from there being others now."""
        language, self.words = self.module.language, words
        whole = WHOLE if self.module.config.language_backbone is None else WHOLE_OF_LARGE
        language.set_input_embeddings(GrownEmbedding(language.embed_tokens.weight, words))
        self.trained = train_only(self.module, lambda name: whole.fullmatch(name) is not None)
        self.belongs_to = {
            **belonging(self.name, self.lora.rank, self.lora.alpha, self.module, self.trained),
            "words": mark_of_words(words),
        }

    def _key(self, samples: Sequence[Sample], draw: random.Random) -> tuple[int, list[Truth | None]]:
        """A frame with the samples' truths on it, at least one of which is known. Raises BadInput."""
        footage = samples[0].footage
        if not len(footage):
            raise BadInput(f"sample {samples[0].id}: the video {footage.name} has no frame")
        for index in draw.sample(range(len(footage)), min(len(footage), KEYS_TRIED)):
            truths = [sample.truth(index) for sample in samples]
            if any(truth is not None for truth in truths):
                return index, truths
        raise BadInput(f"sample {samples[0].id}: no frame with an annotation was found in {footage.name}")

    def _later(self, asked: Sequence[Sample], key: int, draw: random.Random) -> int:
        """A frame after the key frame with a truth for all samples, or the key frame itself."""
        footage = asked[0].footage
        end = stamp_of(footage, key) + LATER_NS
        near = [index for index in range(key + 1, len(footage)) if stamp_of(footage, index) <= end]
        chosen = draw.sample(near, min(len(near), LATER_TRIED))
        return next((i for i in chosen if all(sample.truth(i) is not None for sample in asked)), key)

    def _says(self, sample: Sample, report: Callable[..., None] = lambda *words: None) -> bool:
        """Whether the sample has words that the model can be given. report: is told why not."""
        if not has_words(sample):
            return False
        try:
            return bool(self._ids(sample.instruction, f"sample {sample.id}"))
        except BadInput as error:
            report("sample left out: %s", error)
            return False

    def _rehearsed(self) -> list[tuple[int, ...]]:
        """Questions in the words of before, as ids that the model of before has; those that it reads to the end."""
        if not self._old_questions:
            told = (self._known.encode(text, add_special_tokens=False).ids for text in rehearsal_texts())
            self._old_questions = [tuple(ids) for ids in told if len(ids) <= self.longest]
        return self._old_questions

    def _ids(self, text: str, name: str) -> tuple[int, ...]:
        try:
            return tuple(encode_words(self.tokenizer, clean_instruction(text), self.longest))
        except BadInput as error:
            raise BadInput(f"{name}: {error}") from None

    def _scenes(self, examples: Sequence[Example]) -> Scenes:
        device = self.module.answer.weight.device
        keys, laters, motions, labels = [], [], [], []
        for example in examples:
            *past, key, later = (self.eyes.look(frame) for frame in example.frames)
            keys.append(key), laters.append(later)
            motions.append(self.eyes.motion(key, past, example.seconds))
            labels.append(labels_of(key, later, example.masks, example.later_masks, example.whole_class))
        used = used_latents([*keys, *laters])
        words, scene = _padded([example.words for example in examples], device)
        rehearsed, rehearsed_scene = _padded([example.rehearsed for example in examples], device)
        return Scenes(
            join_latents(keys, used),
            torch.cat(motions)[:, :used],
            join_latents(laters, used),
            words,
            scene,
            join_labels(labels, used),
            rehearsed,
            rehearsed_scene,
        )


def frozen_copy(model: UnifiedModel) -> UnifiedModel:
    """The model as it is now, without gradients. The large parts, whose weights do not train, are shared."""
    large = {id(p): p for name, p in model.named_parameters() if SHARED.fullmatch(name)}
    return copy.deepcopy(model, large).requires_grad_(False).eval()


def stamp_of(footage: Footage, index: int) -> int:
    """Nanoseconds; where the data set does not time its frames, as if they were taken at ``RATE``."""
    stamp = footage.stamp_ns(index)
    return round(index / RATE * 1e9) if stamp is None else stamp


def _padded(words: Sequence[Sequence[Sequence[int]]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The questions of each scene as ids ``(N, W)``, 0 = padding, and the scene ``(N,)`` of each."""
    rows = [torch.tensor(ids) for of_scene in words for ids in of_scene]
    counts = torch.tensor([len(of_scene) for of_scene in words])
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return padded.to(device), torch.arange(len(words)).repeat_interleave(counts).to(device)


def _masks(sample: Sample, index: int, place: Placement) -> np.ndarray:
    """``(n, h, w)`` bool, each object's mask where the encoder sees it. Raises BadInput for one of another size."""
    masks = sample.truth(index).masks
    if masks.shape[1:] != (place.height, place.width):
        raise BadInput(f"{_of(sample, index)} is {place.width} x {place.height} pixels, its mask {_size(masks[0])}")
    placed = [letterbox(mask.astype(np.uint8) * 255, place, around=0) > 127 for mask in masks]
    return np.stack(placed) if placed else np.zeros((0, *place.target), bool)


def _of(sample: Sample, index: int) -> str:
    return f"sample {sample.id}: frame {sample.footage.frames[index]} of {sample.footage.name}"


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"


def build_learner(
    checkpoint: str | Path,
    device: torch.device,
    dtype: torch.dtype | None,
    options: Mapping[str, str],
    lora: LoraSettings,
) -> UnifiedLearner:
    """checkpoint: ``shipped`` is the package's own. dtype: not used, the model stays in float32. Raises BadInput."""
    parse_options(NoOptions, options, "recipe unified")
    model, tokenizer, _ = load_checkpoint(None if str(checkpoint) == SHIPPED else checkpoint)
    return UnifiedLearner(model, tokenizer, device, lora)
