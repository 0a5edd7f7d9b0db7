"""Following objects frame by frame for ever, with SAM 2's memory in constant space.

The tracker holds weights and constants only; what it knows of an object is a :class:`TrackMemory` that goes in and
comes out. Any thread may call it, objects can be added and dropped at any frame, and objects are batched.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import overload

import numpy as np
import torch
import torch.nn.functional as F

from ..checkpoints import LoadReport
from ..core import BadInput
from ..modules.sam2_memory import DecodedMasks, ImageMaps, Prompt, Sam2MemoryModel
from .memory_bank import BankLimits, TrackMemory, stack_memories

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as SAM 2 was trained


@dataclasses.dataclass(frozen=True, eq=False)
class FrameFeatures:
    """One frame as the tracker sees it. size: (height, width) of the frame in pixels."""

    maps: ImageMaps
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class TrackedMask:
    """One object on one frame.

    mask: ``(H, W)`` bool at the frame's own size, empty when the object is out of sight. score: presence times
    predicted IoU of the mask, 0 for an empty one. confidence: ``(H, W)`` uint8, the probability of each pixel from 0
    to 255. presence: probability that the object is visible, sigmoid of SAM 2's object score.
    """

    mask: np.ndarray
    score: float
    confidence: np.ndarray
    presence: float


class MemoryTracker:
    """SAM 2's memory over any number of objects and cameras.

    memory_dtype: of stored memories; None keeps the model's. conditioning: frames with a mask from outside that an
    object remembers, the first one and the newest. report: what was loaded, where a checkpoint was.
    """

    def __init__(
        self,
        model: Sam2MemoryModel,
        memory_dtype: torch.dtype | None = torch.bfloat16,
        conditioning: int = 4,
        report: LoadReport | None = None,
    ):
        if not 2 <= conditioning <= 16:
            raise BadInput(f"conditioning must be in 2..16 frames; got {conditioning}")
        config = model.config
        self.model = model
        self.memory_dtype = memory_dtype or model.dtype
        self.limits = BankLimits(conditioning, config.num_maskmem - 1, config.max_object_pointers_in_encoder - 1)
        self.load_report = report
        self._mean = torch.tensor(_MEAN, device=model.device).view(1, 3, 1, 1)
        self._std = torch.tensor(_STD, device=model.device).view(1, 3, 1, 1)

    @overload
    def encode(self, images: np.ndarray) -> FrameFeatures: ...

    @overload
    def encode(self, images: Sequence[np.ndarray]) -> list[FrameFeatures]: ...

    @torch.inference_mode()
    def encode(self, images: np.ndarray | Sequence[np.ndarray]) -> FrameFeatures | list[FrameFeatures]:
        """images: ``(H, W, 3)`` uint8 RGB, or several, also of different sizes, in one batch. Raises BadInput."""
        if isinstance(images, np.ndarray):
            return self.encode([images])[0]
        if not images:
            return []
        maps = self.model.encode_image(torch.cat([self.pixels(image) for image in images]))
        return [FrameFeatures(maps.image(i), image.shape[:2]) for i, image in enumerate(images)]

    @torch.inference_mode()
    def start(self, features: FrameFeatures, mask: np.ndarray) -> TrackMemory:
        """Begin to follow what ``mask``, ``(H, W)`` bool at the frame's own size, covers. Raises BadInput."""
        return TrackMemory.begin(*self._remember_mask(features, mask))

    @torch.inference_mode()
    def start_from_token(self, features: FrameFeatures, embedding: torch.Tensor) -> tuple[TrackedMask, TrackMemory]:
        """Begin with the object that tokens ``(n, C)`` in the place of encoded clicks stand for."""
        width = self.model.sam.hidden_dim
        if embedding.ndim != 2 or embedding.shape[1] != width or not len(embedding):
            raise BadInput(f"a sparse embedding must be of shape (n, {width}) with n > 0; got {tuple(embedding.shape)}")
        return self._start(features, self.model.prompt_embedding(embedding[None].to(self.model.device)))

    @torch.inference_mode()
    def start_from_points(
        self, features: FrameFeatures, points: np.ndarray, labels: np.ndarray
    ) -> tuple[TrackedMask, TrackMemory]:
        """Begin with clicks. points: ``(n, 2)`` x, y in pixels of the frame. labels: ``(n,)``, 1 object, 0 not."""
        points, labels = np.asarray(points, np.float32), np.asarray(labels)
        if points.ndim != 2 or points.shape[1:] != (2,) or labels.shape != points.shape[:1] or not len(points):
            raise BadInput(f"points must be (n, 2) with n labels, n > 0; got {points.shape} and {labels.shape}")
        if not np.isin(labels, (0, 1)).all():
            raise BadInput(f"labels of points must be 1 (object) or 0 (background); got {labels.tolist()}")
        return self._start(features, self._clicks(features, points, labels))

    @torch.inference_mode()
    def start_from_box(self, features: FrameFeatures, box: Sequence[float]) -> tuple[TrackedMask, TrackMemory]:
        """Begin with a box: left, top, right, bottom in pixels of the frame."""
        corners = np.asarray(box, np.float32)
        if corners.shape != (4,) or not (corners[:2] < corners[2:]).all():
            raise BadInput(f"a box must be left < right and top < bottom in pixels; got {corners.tolist()}")
        return self._start(features, self._clicks(features, corners.reshape(2, 2), np.array([2, 3])))

    @torch.inference_mode()
    def refresh(
        self, features: FrameFeatures, memory: TrackMemory, mask: np.ndarray, stepped: bool = False
    ) -> TrackMemory:
        """Take ``mask``, ``(H, W)`` bool, as the object's true one, and remember it longer than a tracked one.

        The frame is the one after ``memory``, in place of a step; or with ``stepped`` the one ``memory`` has just
        seen, whose own result is replaced.
        """
        return memory.conditioned(*self._remember_mask(features, mask), self.limits, stepped)

    @torch.inference_mode()
    def step(
        self, features: FrameFeatures | Sequence[FrameFeatures], memories: Sequence[TrackMemory]
    ) -> tuple[list[TrackedMask], list[TrackMemory]]:
        """Every object on its next frame: masks and new memories, in order. features: of the frame they are all in, or
        one for each object, where they are in the views of several cameras."""
        decoded, new = self.step_logits(features, memories)
        frames = [features] * len(memories) if isinstance(features, FrameFeatures) else features
        return self._results(decoded, [frame.size for frame in frames]), new

    @torch.inference_mode()
    def step_logits(
        self, features: FrameFeatures | Sequence[FrameFeatures], memories: Sequence[TrackMemory]
    ) -> tuple[list[DecodedMasks], list[TrackMemory]]:
        """As :meth:`step`, with logits ``(1, 4h, 4w)`` on the device instead of masks in the frame's size."""
        shared = isinstance(features, FrameFeatures)
        if not shared and len(features) != len(memories):
            raise BadInput(f"step needs one frame, or one for each of {len(memories)} memories; got {len(features)}")
        groups: dict[tuple[int, int, int], list[int]] = {}
        for index, memory in enumerate(memories):
            groups.setdefault(memory.lengths, []).append(index)
        decoded: list[DecodedMasks | None] = [None] * len(memories)
        new = list(memories)
        for indices in groups.values():
            maps, owners = (features.maps, None) if shared else self._images([features[i] for i in indices])
            bank = stack_memories([memories[i] for i in indices])
            found, spatial = self.model.step(maps, bank, owners)
            spatial = spatial.to(self.memory_dtype)
            for row, i in enumerate(indices):
                decoded[i] = found.row(row)
                new[i] = memories[i].tracked(spatial[row].clone(), found.pointers[row].clone(), self.limits)
        return decoded, new

    def _images(self, features: Sequence[FrameFeatures]) -> tuple[ImageMaps, torch.Tensor | None]:
        """The different frames among these as one batch, and which of them each one is; None: all the same one."""
        different = list({id(frame): frame for frame in features}.values())
        if len(different) == 1:
            return different[0].maps, None
        places = {id(frame): place for place, frame in enumerate(different)}
        owners = torch.tensor([places[id(frame)] for frame in features], device=self.model.device)
        return ImageMaps.join([frame.maps for frame in different]), owners

    def _start(self, features: FrameFeatures, prompt: Prompt) -> tuple[TrackedMask, TrackMemory]:
        model, maps = self.model, features.maps
        found = model.decode(maps, model.without_memory(maps.top), prompt)
        certain = (model.full_size(found.masks) > 0).float()  # what was asked for counts as a mask from outside
        memory = model.remember(maps.top, certain, found.presence > 0).to(self.memory_dtype)
        return self._results([found], [features.size])[0], TrackMemory.begin(memory[0], found.pointers[0].clone())

    def _remember_mask(self, features: FrameFeatures, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Memory ``(h*w, M)`` and pointer ``(C,)`` of a given mask."""
        model, maps = self.model, features.maps
        square = self._square_mask(mask, features.size)
        visible = torch.ones(1, dtype=torch.bool, device=square.device)
        pointer = model.decode(maps, maps.top, model.prompt_mask(square)).pointers[0]
        return model.remember(maps.top, square, visible).to(self.memory_dtype)[0], pointer.clone()

    def _square_mask(self, mask: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
        """``(1, 1, S, S)`` float32 of 0 and 1."""
        mask = np.asarray(mask)
        if mask.shape != tuple(size) or mask.dtype != np.bool_:
            raise BadInput(f"the mask must be bool of the frame's size {tuple(size)}; got {mask.dtype} {mask.shape}")
        if not mask.any():
            raise BadInput("the mask to follow is empty; a track needs at least one pixel")
        target = (self.model.image_size, self.model.image_size)
        pixels = torch.from_numpy(np.ascontiguousarray(mask)).to(self.model.device).float()[None, None]
        soft = F.interpolate(pixels, target, mode="bilinear", align_corners=False, antialias=True)
        # Half covered, as SAM 2 does; a thing too thin for that anywhere keeps the pixels it covers most.
        peak = soft.amax()
        return (soft >= torch.where(peak >= 0.5, 0.5, peak / 2)).float()

    def _clicks(self, features: FrameFeatures, points: np.ndarray, labels: np.ndarray) -> Prompt:
        height, width = features.size
        scaled = points * (self.model.image_size / np.array([width, height], np.float32))
        device = self.model.device
        return self.model.prompt_points(
            torch.from_numpy(scaled).to(device)[None], torch.from_numpy(labels.astype(np.int64)).to(device)[None]
        )

    def pixels(self, image: np.ndarray) -> torch.Tensor:
        """``(1, 3, S, S)``: the whole image squashed to the square, normalised."""
        if getattr(image, "ndim", 0) != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or min(image.shape) < 1:
            got = f"{getattr(image, 'dtype', type(image))} {getattr(image, 'shape', '')}"
            raise BadInput(f"an image must be uint8 of shape (H, W, 3) in RGB; got {got}")
        target = (self.model.image_size, self.model.image_size)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.model.device)
        pixels = pixels.permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)
        pixels = F.interpolate(pixels, target, mode="bilinear", align_corners=False, antialias=True)
        return (pixels - self._mean) / self._std

    def _results(self, decoded: list[DecodedMasks], sizes: list[tuple[int, int]]) -> list[TrackedMask]:
        """Masks at the frames' sizes; those of one size are made and fetched together."""
        results: dict[int, TrackedMask] = {}
        for size in dict.fromkeys(sizes):
            indices = [i for i, other in enumerate(sizes) if other == size]
            logits = torch.cat([decoded[i].masks for i in indices])[:, None].float()  # (n, 1, 4h, 4w)
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0]  # (n, H, W)
            masks = (logits > 0).cpu().numpy()
            confidences = (logits.sigmoid() * 255).round().to(torch.uint8).cpu().numpy()
            presences = torch.cat([decoded[i].presence for i in indices]).float().sigmoid().tolist()
            qualities = torch.cat([decoded[i].quality for i in indices]).float().clamp(0, 1).tolist()
            for row, i in enumerate(indices):
                score = presences[row] * qualities[row] if masks[row].any() else 0.0
                results[i] = TrackedMask(masks[row], score, confidences[row], presences[row])
        return [results[i] for i in range(len(decoded))]
