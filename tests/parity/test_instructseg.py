"""InstructSeg against its recordings: every file is compared in all that it holds, by the checks that find their
tensors in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from instructseg.checkpoints import account, empty_weights
from instructseg.recipes.instructseg.checkpoint import PARTS, ignored_keys, split_shapes
from instructseg.recipes.instructseg.modeling import InstructSegModel
from instructseg.recipes.instructseg.prompts import PLACEHOLDERS, segmentation_prompt, text_pieces
from instructseg.recipes.instructseg.sizes import read_sizes

from . import instructseg_module_checks, instructseg_whole_checks
from .conftest import _root
from .golden import COMMITTED, Golden, load_case
from .instructseg_cases import SYSTEM, recorded
from .instructseg_comparing import CHECKS

assert instructseg_module_checks and instructseg_whole_checks  # they fill the table on import


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "comparison" not in metafunc.fixturenames:
        return
    root = _root(metafunc.config)
    golden = Golden(root, SYSTEM)
    pairs = [
        pytest.param(name, path, root, id=f"{path.stem}-{name}")
        for name, (tensors, _) in CHECKS.items()
        for path in golden.cases(*tensors)
    ]
    metafunc.parametrize(("comparison", "path", "root"), pairs)


@torch.no_grad()
def test_recording(comparison: str, path: Path, root: Path) -> None:
    CHECKS[comparison][1](recorded(root), load_case(path))


@pytest.mark.golden(SYSTEM, ".*")
def test_every_file_is_compared(golden: Golden, case: Path) -> None:
    assert [name for name, (tensors, _) in CHECKS.items() if case in golden.cases(*tensors)]


@pytest.mark.golden(SYSTEM)
def test_every_key_of_the_recorded_checkpoint_is_accounted_for(golden: Golden) -> None:
    found = recorded(golden.root)
    assert set(found.report.loaded) == set(found.model.state_dict())
    assert (found.report.missing, found.report.unexpected) == ((), ())


def listed(golden: Golden, *keys: str) -> list[Path]:
    """What is the same for every set of recordings, and need not lie in each."""
    return golden.json_files(*keys) or Golden(COMMITTED, SYSTEM).json_files(*keys)


@pytest.mark.golden(SYSTEM)
def test_prompts(golden: Golden) -> None:
    """Wording, and where it is cut for the tokenizer."""
    asked = {
        "referring_image": segmentation_prompt("referring", False),
        "reasoning_image": segmentation_prompt("reasoning", False),
        "reasoning_image_explain(train only)": segmentation_prompt("reasoning", False, explain=True),
        "referring_video": segmentation_prompt("referring", True),
        "reasoning_video": segmentation_prompt("reasoning", True),
    }
    for file in listed(golden, "prompts"):
        expected = json.loads(file.read_text(encoding="utf-8"))["prompts"]
        assert set(expected) == set(asked)
        for name, prompt in asked.items():
            assert prompt == expected[name]["prompt"]
            chunks = [piece for piece in text_pieces(prompt) if piece not in (*PLACEHOLDERS, "<gt>")]
            assert chunks == expected[name]["separately_encoded_text_chunks"]


@pytest.mark.golden(SYSTEM)
def test_published_layout_is_loaded_one_to_one(golden: Golden) -> None:
    """Every key of the full-size checkpoint against the full-size network, which takes no memory on the meta device."""
    keys = json.loads(listed(golden, "seg_query", "temporal_query")[0].read_text(encoding="utf-8"))
    rows = 50296  # Phi-2's vocabulary and [SEG]; the list leaves it open
    shapes = {
        name: tuple(
            rows if isinstance(n, str) else n for n in (entry["shape"] if isinstance(entry, dict) else entry[0])
        )
        for name, entry in keys.items()
    }
    sizes = read_sizes(FULL_SIZE, shapes)
    with empty_weights():
        model = InstructSegModel(sizes)
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = account(split_shapes(shapes), own, PARTS, ignored_keys(sizes))
    found.check("the published layout")
    assert len(shapes) == 1640
    assert all(tensor.is_meta for tensor in model.parameters())
    parameters = sum(p.numel() for p in model.parameters())
    assert 3.4e9 < parameters < 3.5e9
    assert (sizes.masks.heads, sizes.masks.swin_window, sizes.masks.swin_heads) == (8, 12, (4, 8, 16, 32))
    assert (sizes.masks.image_size, sizes.perceiver.head_width, sizes.fusion.head_width) == (1024, 128, 128)


FULL_SIZE = {
    "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "partial_rotary_factor": 0.4, "rope_theta": 10000.0, "layer_norm_eps": 1e-5,
    "hidden_act": "gelu_new", "max_position_embeddings": 2048, "vocab_size": 51200, "model_type": "mipha_phi",
    "vision_config": {
        "vision_tower": {
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
            "image_size": 384, "patch_size": 14, "num_channels": 3, "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6, "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch",
        },
        "mm_projector": {"mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 1152, "hidden_size": 2560},
    },
}  # fmt: skip
