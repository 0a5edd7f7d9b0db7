"""The memory tracker's own order of computation: equal to transformers' modules, the same shapes on every frame once
the banks are full, and one graph for a compiler."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Sam2VideoModel
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoMemoryAttention
from unit.tiny_sam2 import film, tiny_config, tiny_sam

from instructseg.modules import sam2_attention
from instructseg.modules.sam2_attention import MemoryAttention
from instructseg.modules.sam2_encoder import ImageEncoder
from instructseg.modules.sam2_memory import MemoryBank, Sam2MemoryModel, _norm_of_few
from instructseg.tracking.memory import MemoryTracker
from instructseg.tracking.memory_bank import stack_memories

EDGE = 128


def attention(heads: int) -> Sam2VideoMemoryAttention:
    torch.manual_seed(1)
    config = copy.deepcopy(tiny_config())
    config.memory_attention_num_attention_heads = heads
    module = Sam2VideoMemoryAttention(config).eval().requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return module


@pytest.mark.parametrize("by_parts", [True, False], ids=["CPU", "GPU"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("scores", [2**21, 2**11], ids=["at once", "a few rows at a time"])
@pytest.mark.parametrize("shared", [True, False], ids=["one frame", "several cameras"])
def test_attention_is_that_of_transformers(
    heads: int, scores: int, by_parts: bool, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sam2_attention, "SCORES", scores)
    monkeypatch.setattr(sam2_attention, "ROWS", 2**10 if scores > 2**11 else 50)
    monkeypatch.setattr(sam2_attention, "_by_parts", lambda x: by_parts)
    theirs = attention(heads)
    ours = MemoryAttention(theirs)
    objects, cells, pointers = 3, (EDGE // 16) ** 2, 6
    maps = torch.randn(1 if shared else objects, cells, 128)
    memory, positions = torch.randn(2, objects, 4 * cells + pointers, 64)
    found = ours(maps, memory, memory + positions, pointers)
    expected = theirs(
        current_vision_features=maps.expand(objects, -1, -1).transpose(0, 1),
        memory=memory.transpose(0, 1),
        memory_posision_embeddings=positions.transpose(0, 1),
        num_object_pointer_tokens=pointers,
    )
    torch.testing.assert_close(found, expected.reshape(found.shape), atol=2e-5, rtol=0)
    assert expected.std() > 0.5


@pytest.mark.parametrize("edge", [128, 192, 224])
def test_the_encoder_is_that_of_transformers(edge: int) -> None:
    """Squares whose maps are multiples of the windows, and such as have to be padded in one stage or another."""
    sam = tiny_sam(tiny_config(image_size=edge))
    pixels = torch.randn(2, 3, edge, edge)
    expected = sam.vision_encoder(pixels).fpn_hidden_states
    found = ImageEncoder(sam.vision_encoder, edge // 4)(pixels)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_of_few_channels_is_the_layer_norm(dtype: torch.dtype) -> None:
    norm = tiny_sam().memory_encoder.mask_downsampler.layers[0].layer_norm.to(dtype)
    x = (torch.randn(2, 4, 9, 7) * 3 + 1).to(dtype)
    atol = 1e-5 if dtype == torch.float32 else 0.02  # bfloat16 has steps of 1/64 between 2 and 4
    torch.testing.assert_close(_norm_of_few(x, norm), norm(x), atol=atol, rtol=0.01)


@pytest.fixture(scope="module")
def sam() -> Sam2VideoModel:
    return tiny_sam()


def test_shapes_are_the_same_on_every_frame_once_the_bank_is_full(
    sam: Sam2VideoModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 frames of two objects: one mask from outside each, so 7 memories and 16 pointers from frame 15 on."""
    tracker = MemoryTracker(Sam2MemoryModel(sam))
    images, masks = film(41, EDGE, EDGE)
    shapes = []

    def attend(top: torch.Tensor, bank: MemoryBank, owners=None) -> torch.Tensor:
        out = Sam2MemoryModel.attend(tracker.model, top, bank)
        shapes.append(tuple(tuple(t.shape) for t in (top, *vars(bank).values(), out)))
        return out

    monkeypatch.setitem(vars(tracker.model), "attend", attend)
    features = tracker.encode(images[0])
    memories = [tracker.start(features, masks[0]), tracker.start(features, masks[9])]
    for image in images[1:]:
        _, memories = tracker.step(tracker.encode(image), memories)
    cells = (EDGE // 16) ** 2
    full = ((1, 128, 8, 8), (2, 7, cells, 64), (2, 7), (2, 16, 128), (2, 16), (2, 128, 8, 8))
    assert len(shapes) == 40
    assert len(set(shapes[:16])) == 16  # they do grow before
    assert set(shapes[15:]) == {full}


def test_a_step_is_one_graph_for_a_compiler(sam: Sam2VideoModel) -> None:
    """Nothing in it leaves the tensors: ``fullgraph`` raises where something does. One compilation serves the frames
    that follow."""
    tracker = MemoryTracker(Sam2MemoryModel(sam))
    model = tracker.model
    images, masks = film(20, EDGE, EDGE)
    features = tracker.encode(images)
    memories = [tracker.start(features[0], masks[0]), tracker.start(features[0], masks[9])]
    for frame in features[1:17]:
        _, memories = tracker.step_logits(frame, memories)

    compilations = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]):
        compilations.append(len(graph.graph.nodes))
        return graph.forward

    compiled = torch.compile(model.step, fullgraph=True, dynamic=False, backend=backend)
    for frame in features[17:]:
        bank = stack_memories(memories)
        with torch.inference_mode():
            found, memory = compiled(frame.maps, bank)
        decoded, memories = tracker.step_logits(frame, memories)
        torch.testing.assert_close(found.masks, torch.cat([d.masks for d in decoded]), atol=1e-5, rtol=1e-5)
        expected = torch.stack([m.recent[-1].value for m in memories]).float()
        torch.testing.assert_close(memory, expected, atol=0.05, rtol=0.01)  # which is kept in bfloat16
    assert len(compilations) == 1
