"""The memory tracker against the original release of SAM 2 (package ``sam2`` 1.1.0) with the same random weights.

Runs where the package is installed; ``docs/memory_tracker.md`` says how to do that without touching torch.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from unit.tiny_sam2 import film, original_tensors, published_shapes, tiny_config, tiny_sam

from instructseg.checkpoints import empty_weights
from instructseg.modules.sam2_memory import Sam2MemoryModel
from instructseg.modules.sam2_sizes import SIZES
from instructseg.tracking.memory import MemoryTracker

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sam2") is None, reason="needs the package sam2 of the optional extra [sam2]"
)
EDGE = 128
LETTERS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def original(version: str, *overrides: str, size: str = "tiny"):
    """The release's own model of its own configuration file."""
    import sam2  # noqa: F401 (makes its configuration files known to hydra)
    from hydra import compose
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    folder = "sam2" if version == "2.0" else "sam2.1"
    config = compose(config_name=f"configs/{folder}/{folder}_hiera_{LETTERS[size]}.yaml", overrides=list(overrides))
    OmegaConf.resolve(config)
    return instantiate(config.model, _recursive_=True).eval()


def miniature(version: str, memory_dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, MemoryTracker]:
    """The original as a predictor for videos, and ours, both with the weights of ``tiny_sam``."""
    attention, encoder = "model.memory_attention", "model.memory_encoder"
    predictor = original(
        version,
        "model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor",
        f"model.image_size={EDGE}",
        "model.image_encoder.trunk.embed_dim=8",
        "model.image_encoder.neck.d_model=128",
        "model.image_encoder.neck.backbone_channel_list=[64,32,16,8]",
        "model.image_encoder.neck.position_encoding.num_pos_feats=128",
        f"{attention}.num_layers=2",
        f"{attention}.d_model=128",
        f"{attention}.layer.d_model=128",
        f"{attention}.layer.dim_feedforward=128",
        *(f"{attention}.layer.{kind}_attention.embedding_dim=128" for kind in ("self", "cross")),
        *(f"{attention}.layer.{kind}_attention.feat_sizes=[{EDGE // 16},{EDGE // 16}]" for kind in ("self", "cross")),
        f"+{encoder}.in_dim=128",
        f"+{encoder}.mask_downsampler.embed_dim=128",
        f"{encoder}.fuser.layer.dim=128",
        "+model.binarize_mask_from_pts_for_mem_enc=true",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
        "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    )
    sam = tiny_sam(tiny_config(version, EDGE))
    predictor.load_state_dict(original_tensors(sam, version))
    return predictor, MemoryTracker(Sam2MemoryModel(sam), memory_dtype)


class OneObject:
    """The release's inference, step by step as its predictor calls it, on frames that are given one by one. It scales
    the age of object pointers to the length of a video of under 16 frames; a camera's is longer."""

    def __init__(self, model: torch.nn.Module, memory_dtype: torch.dtype = torch.float32, frames: int = 1000):
        self.model = model
        self.memory_dtype = memory_dtype
        self.frames = frames
        self.outputs = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}

    @torch.inference_mode()
    def see(self, index: int, pixels: torch.Tensor, mask: torch.Tensor | None = None, points: dict | None = None):
        """Low-resolution logits of frame ``index``; with a mask or points it becomes a conditioning frame."""
        model, prompted = self.model, mask is not None or points is not None
        _, maps, positions, sizes = model._prepare_backbone_features(model.forward_image(pixels))
        out = model.track_step(
            index, prompted, maps, positions, sizes, points, mask, self.outputs, self.frames, run_mem_encoder=False
        )
        memory, memory_positions = model._encode_new_memory(
            maps, sizes, out["pred_masks_high_res"], out["object_score_logits"], is_mask_from_pts=prompted
        )
        out["maskmem_features"], out["maskmem_pos_enc"] = memory.to(self.memory_dtype), memory_positions
        self.outputs["cond_frame_outputs" if prompted else "non_cond_frame_outputs"][index] = out
        return out["pred_masks"][0, 0]


@pytest.mark.parametrize("size", LETTERS)
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_names_and_shapes_are_those_of_the_release(size: str, version: str) -> None:
    with empty_weights():
        model = original(version, size=size)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == published_shapes(size, version)
    trunk = model.image_encoder.trunk
    assert tuple(trunk.global_att_blocks) == SIZES[size].global_blocks
    assert tuple(trunk.window_spec) == SIZES[size].windows
    assert trunk.blocks[0].attn.num_heads == SIZES[size].heads


# Logits of +-4. Where memories are kept in bfloat16, an error of 1e-7 now and then rounds one the other way.
@pytest.mark.parametrize(("memory_dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 1e-3)])
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_logits_after_a_mask(version: str, memory_dtype: torch.dtype, tolerance: float) -> None:
    predictor, tracker = miniature(version, memory_dtype)
    images, masks = film(30, EDGE, EDGE)
    features = tracker.encode(images)
    memories = [tracker.start(features[0], masks[0])]
    theirs = OneObject(predictor, memory_dtype)
    theirs.see(0, tracker.pixels(images[0]), mask=torch.from_numpy(masks[0])[None, None].float())
    worst = 0.0
    for index in range(1, len(images)):
        decoded, memories = tracker.step_logits(features[index], memories)
        expected = theirs.see(index, tracker.pixels(images[index]))
        worst = max(worst, float((decoded[0].masks[0] - expected).abs().max()))
    print(f"SAM {version}, {memory_dtype}: largest error of 29 frames {worst:.1e}")
    assert worst < tolerance


def test_logits_after_a_second_mask() -> None:
    predictor, tracker = miniature("2.1")
    images, masks = film(24, EDGE, EDGE)
    features = tracker.encode(images)
    memory = tracker.start(features[0], masks[0])
    theirs = OneObject(predictor)
    for index, image in enumerate(images):
        given = torch.from_numpy(masks[index])[None, None].float() if index in (0, 9, 10) else None
        expected = theirs.see(index, tracker.pixels(image), mask=given)
        if given is not None:
            memory = tracker.refresh(features[index], memory, masks[index]) if index else memory
            continue
        (decoded,), (memory,) = tracker.step_logits(features[index], [memory])
        torch.testing.assert_close(decoded.masks[0], expected, atol=1e-4, rtol=0)


def test_logits_after_points() -> None:
    predictor, tracker = miniature("2.1")
    images, _ = film(12, EDGE, EDGE)
    features = tracker.encode(images)
    for points, labels in (([[40.0, 50.0]], [1]), ([[40.0, 50.0], [100.0, 20.0]], [1, 0])):
        theirs = OneObject(predictor)
        given = {"point_coords": torch.tensor([points]), "point_labels": torch.tensor([labels], dtype=torch.int32)}
        first = theirs.see(0, tracker.pixels(images[0]), points=given)
        mask, memory = tracker.start_from_points(features[0], np.array(points), np.array(labels))
        expected = F.interpolate(first[None, None], (EDGE, EDGE), mode="bilinear")[0, 0] > 0
        assert (mask.mask != expected.numpy()).mean() < 1e-3
        memories = [memory]
        for index in range(1, len(images)):
            (decoded,), memories = tracker.step_logits(features[index], memories)
            expected = theirs.see(index, tracker.pixels(images[index]))
            torch.testing.assert_close(decoded.masks[0], expected, atol=1e-4, rtol=0)


def test_masks_of_the_predictor(tmp_path: Path) -> None:
    """The release's predictor on a whole video. (A given mask it would first reduce to a quarter of its size.)"""
    from PIL import Image

    predictor, tracker = miniature("2.1", torch.bfloat16)
    images, _ = film(30, EDGE, EDGE)
    for index, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{index:03}.jpg", quality=95)
    points, labels = np.array([[40.0, 50.0]], np.float32), np.array([1], np.int32)
    with torch.inference_mode():
        state = predictor.init_state(str(tmp_path))
        predictor.add_new_points_or_box(state, 0, obj_id=1, points=points, labels=labels)
        theirs = {index: logits[0, 0].numpy() > 0 for index, _, logits in predictor.propagate_in_video(state)}
    features = tracker.encode([np.array(Image.open(path)) for path in sorted(tmp_path.iterdir())])
    found, memory = tracker.start_from_points(features[0], points, labels)
    for index, expected in theirs.items():
        if index:
            (found,), (memory,) = tracker.step(features[index], [memory])
        iou = (found.mask & expected).sum() / (found.mask | expected).sum()
        print(f"frame {index}: IoU {iou:.5f}, {found.mask.mean():.2f} of the image")
        assert iou >= 0.999, index
