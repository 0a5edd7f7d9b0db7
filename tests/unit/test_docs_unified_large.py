"""docs/unified_large.md: kinds of backbones are the code's, memory is counted from the published sizes' shapes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructseg.checkpoints import empty_weights
from instructseg.modules.backbone_encoder import PLAIN, STAGED
from instructseg.modules.language_backbone import KINDS
from instructseg.recipes.unified.adapting import LORA_ALPHA, LORA_LAYERS, LORA_RANK
from instructseg.recipes.unified.assemble import WORD_PIECES
from instructseg.recipes.unified.backbones import Backbone, VisionBackbone
from instructseg.recipes.unified.configuration import UnifiedConfig
from instructseg.recipes.unified.learner import WHOLE_OF_LARGE
from instructseg.recipes.unified.modeling import UnifiedModel
from instructseg.recipes.unified.tokenizer import CONTROL
from instructseg.training.finetuning.memory import memory_of
from instructseg.training.lora import add_lora, train_only

PAGE = (Path(__file__).parents[2] / "docs" / "unified_large.md").read_text(encoding="utf-8")
VISION = {
    "none": None,
    "DINOv2-with-registers-small": {
        "model_type": "dinov2_with_registers", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6,
        "patch_size": 14, "image_size": 518,
    },
    "Swin-tiny": {
        "model_type": "swin", "image_size": 224, "embed_dim": 96, "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24], "window_size": 7,
    },
}  # fmt: skip
LANGUAGE = {  # and the tokens that can come out of a text
    "SmolLM2-135M": ({
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3,
    }, 49152),
    "Qwen2.5-0.5B": ({
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2,
    }, 151643),
}  # fmt: skip
ROWS = re.findall(r"^\| (\S+) and (\S+) \| ([\d.]+) M \| ([\d.]+) M \| ([\d.]+) GiB \| ([\d.]+) GiB \|$", PAGE, re.M)


def test_the_page_says_first_that_there_are_no_weights() -> None:
    assert PAGE.splitlines()[2].startswith("**There are no trained weights of this.**")


def test_the_kinds_of_the_page_are_the_codes() -> None:
    listed = re.search(r"`--vision`: (.*?)\. `--language`:\s(.*?)\s+with", PAGE, re.S)
    assert re.findall(r"`(\w+)`", listed[1]) == [*PLAIN, *STAGED]
    assert re.findall(r"`(\w+)`", listed[2]) == list(KINDS)
    assert f"at most {WORD_PIECES} of them" in PAGE and len(CONTROL) == 5 and "five control tokens" in PAGE
    assert PAGE.count(f"rank {LORA_RANK}") == 2


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_memory_of_the_page_is_counted_from_shapes(row: tuple[str, ...]) -> None:
    vision, (language, tokens) = VISION[row[0]], LANGUAGE[row[1]]
    config = UnifiedConfig(
        vision_backbone=vision and VisionBackbone(row[0], vision), language_backbone=Backbone(row[1], language),
        hidden=language["hidden_size"], heads=language["num_attention_heads"],
    )  # fmt: skip
    with empty_weights():
        model = UnifiedModel(config, tokens + len(CONTROL))
        add_lora(model, LORA_LAYERS, LORA_RANK, LORA_ALPHA, 0.0)
        memory = memory_of(model, train_only(model, lambda name: WHOLE_OF_LARGE.fullmatch(name) is not None))
    everything = memory.frozen + memory.trained
    counted = everything / 1e6, memory.trained / 1e6, 4 * everything / 2**30, memory.bytes("fp32") / 2**30
    for written, value in zip(row[2:], counted, strict=True):
        assert float(written) == pytest.approx(value, abs=0.5 * 10.0 ** -len(written.partition(".")[2]) + 1e-9)


def test_every_row_of_the_table_is_counted() -> None:
    assert len(ROWS) == 4
