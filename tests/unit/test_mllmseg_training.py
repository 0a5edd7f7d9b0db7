"""MLLMSeg's training step on miniatures: what learns, what stays, and what a batch is made of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from unit.tiny_mllmseg import Family, tiny_checkpoint

from instructseg.core import BadInput
from instructseg.recipes.mllmseg.checkpoint import Loaded, load_checkpoint
from instructseg.recipes.mllmseg.prompts import NOT_SUPERVISED, Conversation, conversation, training_texts
from instructseg.recipes.mllmseg.training import LORA_RANK, Tokens, collate, prepare_training, training_losses

LANGUAGE = "mllm.model.language_model."


def batch(loaded: Loaded) -> tuple[torch.Tensor, Tokens, list[torch.Tensor]]:
    """Two images: a present and an absent target, and one present target."""
    model = loaded.model
    asked = [(["the mug", "the dog"], [False, True]), (["the red ball on the left."], [False])]
    talks = [conversation(loaded.tokenizer, *training_texts(*words), model.config.image_tokens) for words in asked]
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    truths = [torch.zeros(2, 40, 30), torch.zeros(1, 24, 50)]
    truths[0][0, 10:30, 5:20] = truths[1][0, :12] = 1
    return pixels, collate(talks), truths


@pytest.mark.parametrize("family", ["internlm2", "qwen2"])
def test_what_was_trained_learns_and_nothing_else(family: Family, tmp_path: Path) -> None:
    loaded = load_checkpoint(tiny_checkpoint(tmp_path / "tiny", family))
    model = loaded.model
    pixels, tokens, truths = batch(loaded)
    with torch.no_grad():
        before_lora = training_losses(model, pixels, tokens, truths, loaded.tokenizer.seg, loaded.tokenizer.rej).total
    names = prepare_training(model)
    adapters = [name for name in names if ".lora_" in name]
    layers = model.mllm.config.text_config.num_hidden_layers
    assert len(adapters) == 2 * 7 * layers and all(name.startswith(f"{LANGUAGE}layers.") for name in adapters)
    assert all(LORA_RANK in dict(model.named_parameters())[name].shape for name in adapters)
    others = {name.removeprefix(LANGUAGE) for name in names if ".lora_" not in name and not name.startswith("decoder.")}
    assert others == (
        {"norm.weight"} | ({"embed_tokens.weight", "mllm.lm_head.weight"} if family == "internlm2" else set())
    )
    assert {name for name, _ in model.named_parameters() if name.startswith("decoder.")} <= set(names)

    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = training_losses(model, pixels, tokens, truths, loaded.tokenizer.seg, loaded.tokenizer.rej)
    assert torch.allclose(found.total, before_lora, atol=1e-5), "new adapters change nothing yet"
    found.total.backward()
    torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0).step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved <= set(names)
    still = set(names) - moved
    # the first gradient of an update's A is 0, because its B starts at 0
    assert all(".lora_A." in name for name in still), still


def test_a_batch_is_padded_and_supervised_as_published() -> None:
    talks = [
        Conversation((1, 5, 2, 7), (NOT_SUPERVISED, NOT_SUPERVISED, 2, 7)),
        Conversation((1, 9), (NOT_SUPERVISED, 9)),
    ]
    found = collate(talks)
    assert found.input_ids.tolist() == [[1, 5, 2, 7], [1, 9, 0, 0]]
    assert found.labels.tolist() == [[-100, -100, 2, 7], [-100, 9, 0, 0]]
    assert found.attention_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert found.position_ids.tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]


def test_batches_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="at least one conversation"):
        collate([])
    loaded = load_checkpoint(tiny_checkpoint(tmp_path / "tiny"))
    pixels, tokens, truths = batch(loaded)
    with pytest.raises(BadInput, match="2 slots with 1 present"):
        training_losses(
            loaded.model, pixels, tokens, [truths[0][:1], truths[1]], loaded.tokenizer.seg, loaded.tokenizer.rej
        )
