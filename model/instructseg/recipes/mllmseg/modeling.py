"""MLLMSeg: InternVL, and a light mask decoder that reads its patches and its language model's states.

The language model is causal and the image stands before the question, so all that an image needs is computed once
(:meth:`MllmSegModel.read_image`) and an instruction costs its own short suffix (:meth:`MllmSegModel.read_commands`).
:meth:`MllmSegModel.forward` is the plain path over whole conversations: training, and what the fast path is tested
against.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import nn
from transformers import (
    DynamicCache,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)

from ...core import BadInput
from ...modules.light_mask_decoder import LightMaskDecoder
from .configuration import MllmSegConfig

LANGUAGE_CONFIGS = {"internlm2": LlamaConfig, "qwen2": Qwen2Config}


@dataclasses.dataclass(frozen=True, eq=False)
class ImageMemory:
    """What one image contributes to every instruction on it. cache: keys and values of the prompt up to the image's
    end, per layer ``(1, kv heads, T, d)``. prepared: ``(1, G^2, D)``, the mask decoder's part of the image."""

    cache: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    prepared: torch.Tensor

    @property
    def length(self) -> int:
        """T, the prompt's tokens up to the image's end."""
        return self.cache[0][0].shape[-2]

    @property
    def bytes(self) -> int:
        """Memory held by this image."""
        tensors = [self.prepared, *(tensor for pair in self.cache for tensor in pair)]
        return sum(tensor.nbytes for tensor in tensors)


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """The plain path's view of a batch. states: ``(B, N, C)``, last hidden states after the final norm. patches:
    ``(B, G^2, D)`` of the vision encoder. image_states: ``(B, g^2, C)``, what the mask decoder takes as the image."""

    states: torch.Tensor
    patches: torch.Tensor
    image_states: torch.Tensor


class MllmSegModel(nn.Module):
    """image_token: id of ``<IMG_CONTEXT>``, of which a prompt holds ``config.image_tokens`` for its image."""

    def __init__(self, config: MllmSegConfig, image_token: int) -> None:
        super().__init__()
        self.config, self.image_token = config, image_token
        self.mllm = InternVLForConditionalGeneration(
            InternVLConfig(
                vision_config=InternVLVisionConfig(**config.vision),
                text_config=LANGUAGE_CONFIGS[config.family](**config.language),
                image_token_id=image_token,
                image_seq_length=config.image_tokens,
                downsample_ratio=0.5,
                tie_word_embeddings=False,
            )
        )
        self.decoder = LightMaskDecoder(config.fusion, config.patch_size)

    @property
    def dtype(self) -> torch.dtype:
        return self.mllm.dtype

    def see(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, 3, S, S)`` normalised pixels to patches ``(B, G^2, D)`` and visual tokens ``(B, (G / 2)^2, C)``."""
        seen = self.mllm.model.get_image_features(pixels.to(self.dtype), return_dict=True)
        return seen.last_hidden_state[:, 1:], seen.pooler_output  # the first row is the class token

    def forward(
        self,
        pixels: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> Reading:
        """Whole conversations: ``pixels`` ``(B, 3, S, S)``, ``input_ids`` ``(B, N)`` with the image's tokens."""
        patches, visual = self.see(pixels)
        places = self._image_places(input_ids)
        states = self.mllm.model.language_model(
            inputs_embeds=self._embed(input_ids, visual, places),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
        ).last_hidden_state
        return Reading(states, patches, _states_before(states, places, self.config.image_tokens))

    def masks(self, reading: Reading, row: int, slots: Sequence[int]) -> torch.Tensor:
        """The plain path's mask logits ``(n, S, S)`` of one row, for ``[SEG]`` tokens at the positions ``slots``.

        A token's state is the one before it, which predicts it; the published models are trained that way.
        """
        before = torch.as_tensor(slots, dtype=torch.long, device=reading.states.device) - 1
        tokens = reading.states[row, before]  # (n, C)
        patches, states = (t[row].expand(len(tokens), -1, -1) for t in (reading.patches, reading.image_states))
        return self.decoder(patches, states, tokens)

    def read_image(self, pixels: torch.Tensor, prefix: torch.Tensor) -> ImageMemory:
        """``pixels`` ``(1, 3, S, S)`` and the prompt ``prefix`` ``(T,)`` up to the image's end."""
        patches, visual = self.see(pixels)
        ids = prefix[None].to(pixels.device)
        places = self._image_places(ids)
        cache = DynamicCache(config=self.mllm.config.text_config)
        states = self.mllm.model.language_model(
            inputs_embeds=self._embed(ids, visual, places), past_key_values=cache, use_cache=True
        ).last_hidden_state
        image_states = _states_before(states, places, self.config.image_tokens)
        prepared = self.decoder.prepare(patches, image_states)
        return ImageMemory(tuple((layer.keys, layer.values) for layer in cache.layers), prepared)

    def read_commands(self, image: ImageMemory, suffixes: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """States ``(L_i, C)`` of several prompts' rests after the same image, in one pass.

        The rests lie one after another in one row; each sees the image's prefix and itself, at the positions it would
        have alone. The image's cache is shared and left as it is.
        """
        lengths = [len(suffix) for suffix in suffixes]
        device = image.prepared.device
        owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(device)  # (L,)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(device)
        own = (owner[:, None] == owner) & (positions[:, None] >= positions)  # (L, L)
        allowed = torch.cat([own.new_ones(len(owner), image.length), own], -1)[None, None]  # (1, 1, L, T + L)
        ids = torch.cat(list(suffixes)).to(device)[None]
        states = self.mllm.model.language_model(
            inputs_embeds=self.mllm.get_input_embeddings()(ids),
            attention_mask=allowed,
            position_ids=(positions + image.length)[None],
            past_key_values=DynamicCache(image.cache),  # grows by concatenation, so the shared tensors stay untouched
            use_cache=True,
        ).last_hidden_state
        return list(states[0].split(lengths))

    def image_masks(self, image: ImageMemory, tokens: torch.Tensor) -> torch.Tensor:
        """The fast path's mask logits ``(n, S, S)`` for target tokens ``(n, C)`` on one image."""
        return self.decoder.decode(image.prepared, tokens)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """``(..., C)`` states to ``(..., V)`` float32 logits of the next token."""
        return self.mllm.lm_head(states).float()

    def _image_places(self, input_ids: torch.Tensor) -> torch.Tensor:
        """``(B, N)`` bool, or BadInput unless every row holds one whole image with a token before it."""
        places = input_ids == self.image_token
        counts, wanted = places.sum(1).tolist(), self.config.image_tokens
        if any(count != wanted for count in counts) or bool(places[:, 0].any()):
            raise BadInput(
                f"every prompt must hold one image of {wanted} <IMG_CONTEXT> tokens after another token; got {counts}"
            )
        return places

    def _embed(self, input_ids: torch.Tensor, visual: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """``(B, N, C)`` embeddings with the visual tokens in the image's places, in order."""
        embeddings = self.mllm.get_input_embeddings()(input_ids)
        return embeddings.masked_scatter(places[..., None], visual.to(embeddings.dtype))


def _states_before(states: torch.Tensor, places: torch.Tensor, count: int) -> torch.Tensor:
    """``(B, count, C)``: the states one token before each image token, as the published models take them, so the grid
    is displaced by one and the last image token's own state is never used."""
    b, _, width = states.shape
    return states[:, :-1][places[:, 1:]].view(b, count, width)
