"""What VideoLISA, GSVA, LISA and VISA share as Segmenters: CLIP and SAM features of a frame, a mask a ``[SEG]``.

Features are computed when first asked for and kept with the frame: a frame that no instruction looks at costs nothing,
and CLIP runs only on the frames of a clip.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..core import EncodedFrame, Frame, Segmenter, TargetMask
from ..modules.clip_patches import ClipPatches
from ..modules.evidence import mask_evidence
from ..modules.sam import TokenPromptedSam
from ..modules.sam_masks import upscale_masks
from ..preprocessing import clip_pixels, sam_pixels, sam_size


class Once:
    """A value computed at most once, by whichever thread asks first; a failed computation is tried again."""

    def __init__(self, compute: Callable[[], Any]):
        self._compute: Callable[[], Any] | None = compute
        self._value: Any = None
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        with self._lock:
            if self._compute is not None:
                self._value = self._compute()
                self._compute = None
            return self._value

    @property
    def known(self) -> bool:
        return self._compute is None


@dataclasses.dataclass(frozen=True, eq=False)
class PromptedFeatures:
    """clip: patch features ``(P, C)``. sam: image embedding ``(1, C, h, w)``. Both computed on demand."""

    clip: Once
    sam: Once


@dataclasses.dataclass(frozen=True, eq=False)
class PromptToken:
    """A target token of this family: the mask prompt ``(k, C)``, the same on every frame."""

    prompt: torch.Tensor


class TokenPromptedSegmenter(Segmenter):
    """``encode`` and ``segment`` for a CLIP tower, a SAM and prompts of its width; a recipe adds ``ground``."""

    def __init__(self, clip: ClipPatches, sam: TokenPromptedSam, device: torch.device, dtype: torch.dtype):
        """clip and sam: on the device already. dtype: number format of the computation, see :meth:`precision`."""
        self.clip = clip
        self.sam = sam
        self.torch_device = device
        self.device = str(device)
        self.dtype = dtype
        self.sam_dtype = torch.float32 if dtype == torch.float16 else dtype  # SAM's neck overflows in float16

    @contextmanager
    def precision(self, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Inference in ``dtype`` (None: the segmenter's own). Weights in that format are used as they are; float32
        weights run under autocast where another format was asked for."""
        dtype = dtype or self.dtype
        autocast = dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self.torch_device.type, dtype=dtype, enabled=autocast):
            yield

    def encode(self, frames: Sequence[Frame]) -> list[EncodedFrame]:
        return [
            EncodedFrame(
                frame,
                PromptedFeatures(Once(lambda f=frame: self._clip_features(f)), Once(lambda f=frame: self._sam(f))),
            )
            for frame in frames
        ]

    def clip_features(self, frames: Sequence[EncodedFrame]) -> torch.Tensor:
        """``(S, P, C)`` patch features of the frames, each computed once."""
        return torch.stack([encoded.features.clip() for encoded in frames])

    def segment(self, encoded: EncodedFrame, tokens: Sequence[PromptToken]) -> list[TargetMask]:
        if not tokens:
            return []
        low_res = self.decode(encoded, torch.stack([token.prompt for token in tokens]))  # (n, 4h, 4w)
        return [
            TargetMask(mask, score, token, confidence)
            for (mask, confidence, score), token in zip(self.masks(encoded.frame, low_res), tokens, strict=True)
        ]

    def decode(self, encoded: EncodedFrame, prompts: torch.Tensor) -> torch.Tensor:
        """Low-resolution logits ``(n, 4h, 4w)`` on a frame for prompts ``(n, k, C)``."""
        with self.precision(self.sam_dtype):
            return self.sam.decode(encoded.features.sam(), prompts[None])[0][0]

    def masks(self, frame: Frame, low_res: torch.Tensor) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
        """(mask bool, confidence uint8, evidence) of each low-resolution mask, at the frame's size."""
        size = self.sam.sizes.image_size
        logits = upscale_masks(low_res, sam_size(*frame.size, size), frame.size, size)  # (n, H, W)
        confidence = (logits.sigmoid() * 255).round().to(torch.uint8).cpu().numpy()
        masks = (logits > 0).cpu().numpy()
        yield from zip(masks, confidence, mask_evidence(low_res).tolist(), strict=True)

    def _clip_features(self, frame: Frame) -> torch.Tensor:
        weights = self._weights(self.clip)
        pixels = clip_pixels(frame.image, self.clip.image_size)[None].to(self.torch_device, weights)
        with self.precision():
            # Autocast on a GPU leaves float32 behind norms; published code and the memory of a frame know one type.
            return self.clip(pixels)[0].to(weights)  # (P, C)

    def _sam(self, frame: Frame) -> torch.Tensor:
        weights = self._weights(self.sam)
        pixels = sam_pixels(frame.image, self.sam.sizes.image_size)[0]
        with self.precision(self.sam_dtype):
            return self.sam.encode(pixels[None].to(self.torch_device, weights)).to(weights)  # (1, C, h, w)

    @staticmethod
    def _weights(module: torch.nn.Module) -> torch.dtype:
        return next(module.parameters()).dtype
