"""Segment Anything prompted by embeddings of a language model: transformers' SAM parts, without point and box prompts.

The two calls that the LISA family makes: an image embedding once a frame, and one mask for every prompt embedding.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import SamModel

from .sam_sizes import SamSizes


class TokenPromptedSam(nn.Module):
    """A ``SamModel`` (attribute ``sam``) whose prompts are embeddings."""

    def __init__(self, sizes: SamSizes):
        super().__init__()
        self.sizes = sizes
        self.sam = SamModel(sizes.config())

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Image embeddings ``(B, C, h, w)`` of normalised, padded pixels ``(B, 3, S, S)``."""
        return self.sam.vision_encoder(pixels).last_hidden_state

    def decode(
        self, image_embeddings: torch.Tensor, prompts: torch.Tensor, multimask: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Masks for ``n`` prompts of ``k`` tokens on each of B images.

        image_embeddings: ``(B, C, h, w)``; prompts: ``(B, n, k, C)``. Returns low-resolution logits ``(B, n, 4h, 4w)``
        of mask token 0 and its IoU estimate ``(B, n)``; with ``multimask`` those of the other tokens,
        ``(B, n, m, 4h, 4w)`` and ``(B, n, m)``. No prompt gives no mask.
        """
        batch, n = prompts.shape[:2]
        h, w = image_embeddings.shape[-2:]
        if n == 0:
            shape = (batch, 0, self.sizes.multimask, 4 * h, 4 * w) if multimask else (batch, 0, 4 * h, 4 * w)
            empty = image_embeddings.new_zeros(shape)
            return empty, empty.new_zeros(shape[:-2])
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(batch, -1, h, w)
        outputs = self.sam.mask_decoder(
            image_embeddings=image_embeddings,
            image_positional_embeddings=self.positions(image_embeddings),
            sparse_prompt_embeddings=prompts.to(image_embeddings.dtype),
            dense_prompt_embeddings=dense.to(image_embeddings.dtype),
            multimask_output=multimask,
        )
        masks, iou = outputs[0], outputs[1]  # (B, n, m, 4h, 4w), (B, n, m)
        return (masks, iou) if multimask else (masks[:, :, 0], iou[:, :, 0])

    def positions(self, image_embeddings: torch.Tensor) -> torch.Tensor:
        """The image-wide positional encoding ``(B, C, h, w)``."""
        encoding = self.sam.get_image_wide_positional_embeddings()  # (1, C, h, w)
        return encoding.to(image_embeddings.dtype).expand(len(image_embeddings), -1, -1, -1)
