"""VideoLISA's training step at miniature size: what learns, LoRA, batches with and without masks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from unit.tiny_videolisa import CLIP, CONFIG, SAM, tiny_checkpoint

from instructseg.core import BadInput
from instructseg.modules.splicing import IGNORE_LABEL
from instructseg.recipes.videolisa.checkpoint import Loaded, load_weights
from instructseg.recipes.videolisa.configuration import VideoLISAOptions
from instructseg.recipes.videolisa.training import TrainingBatch, prepare_training, training_losses
from instructseg.sentencepieces import IMAGE_PLACEHOLDER

SEG = CONFIG.vocab_size - 1
SPARSE, DENSE = 3, 2


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    return load_weights(tiny_checkpoint(tmp_path / "c"), VideoLISAOptions())


def noise(frames: int, size: int, seed: int) -> torch.Tensor:
    return torch.randn(frames, 3, size, size, generator=torch.Generator().manual_seed(seed))


def batch(answers: tuple[list[int], ...] = ([20, SEG, 21], [SEG, 22])) -> TrainingBatch:
    """One sample an answer; the target is the left half of the frame for every ``[SEG]``."""
    rows = [[1, 10, 11, IMAGE_PLACEHOLDER, 12, 13, *answer] for answer in answers]
    labels = [[IGNORE_LABEL] * 6 + answer for answer in answers]
    pad = torch.nn.utils.rnn.pad_sequence
    target = torch.zeros(24, 32)
    target[:, :16] = 1
    return TrainingBatch(
        clip_pixels=torch.stack([noise(SPARSE, CLIP.image_size, sample) for sample in range(len(rows))]),
        sam_pixels=[noise(DENSE, SAM.image_size, sample) for sample in range(len(rows))],
        dense=torch.tensor([[0, 2]] * len(rows)),
        input_ids=pad([torch.tensor(row) for row in rows], batch_first=True),
        labels=pad([torch.tensor(row) for row in labels], batch_first=True, padding_value=IGNORE_LABEL),
        attention_mask=pad([torch.ones(len(row), dtype=torch.bool) for row in rows], batch_first=True),
        targets=[target.expand(DENSE * answer.count(SEG), -1, -1) for answer in answers],
        resized_hw=[(48, 64)] * len(rows),
        original_hw=[(24, 32)] * len(rows),
    )


def test_what_is_trained_is_what_the_publication_trains(loaded: Loaded) -> None:
    names = prepare_training(loaded.model)
    kinds = {re.sub(r"\d+", "#", re.sub(r"^(sam\.sam\.mask_decoder|text_hidden_fcs)\..*", r"\1", n)) for n in names}
    assert kinds == {
        "llm.model.embed_tokens.weight",
        "llm.lm_head.weight",
        "llm.model.layers.#.self_attn.qkv_proj.lora_A.default.weight",
        "llm.model.layers.#.self_attn.qkv_proj.lora_B.default.weight",
        "sam.sam.mask_decoder",
        "text_hidden_fcs",
    }
    lora = [name for name in names if "lora_" in name]
    assert len(lora) == 2 * CONFIG.num_hidden_layers
    assert {p.shape[0] for n, p in loaded.model.named_parameters() if "lora_A" in n} == {8}
    layer = loaded.model.llm.model.layers[0].self_attn.qkv_proj
    assert layer.scaling["default"] == 2.0  # alpha 16 over rank 8
    assert not any(parameter.requires_grad for parameter in loaded.tower.parameters())
    with pytest.raises(BadInput, match="rank must be 1 or more; got 0"):
        prepare_training(loaded.model, rank=0)


def test_lora_starts_from_the_published_model(loaded: Loaded) -> None:
    before = training_losses(loaded.model, loaded.tower, batch(), SEG)
    prepare_training(loaded.model)
    after = training_losses(loaded.model, loaded.tower, batch(), SEG)
    torch.testing.assert_close(after.total, before.total)


def test_a_few_steps_lower_every_loss(loaded: Loaded) -> None:
    prepare_training(loaded.model, dropout=0.0)
    trained = [p for p in loaded.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)
    history = []
    for _ in range(40):
        losses = training_losses(loaded.model, loaded.tower, batch(), SEG)
        history.append(losses)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    first, last = history[0], history[-1]
    assert all(p.grad is None for p in loaded.model.parameters() if not p.requires_grad)
    for name in ("text", "bce", "dice", "total"):
        assert getattr(last, name) < 0.9 * getattr(first, name), name
    torch.testing.assert_close(first.total, first.text + first.bce + first.dice)


def test_a_sample_without_a_mask_takes_part_in_the_text_alone(loaded: Loaded) -> None:
    mixed = training_losses(loaded.model, loaded.tower, batch(([20, SEG, 21], [22, 23])), SEG)
    alone = training_losses(loaded.model, loaded.tower, batch(([20, SEG, 21],)), SEG)
    assert [low.shape[1] for low in mixed.low_res] == [1, 0]
    torch.testing.assert_close(mixed.bce, alone.bce, rtol=1e-4, atol=1e-6)
    text_only = training_losses(loaded.model, loaded.tower, batch(([22, 23],)), SEG)
    assert text_only.bce == text_only.dice == 0
    assert text_only.total == text_only.text > 0


def test_several_segs_are_matched_frame_by_frame(loaded: Loaded) -> None:
    losses = training_losses(loaded.model, loaded.tower, batch(([SEG, 20, SEG],)), SEG)
    (low_res,) = losses.low_res
    assert low_res.shape == (DENSE, 2, 4 * SAM.grid, 4 * SAM.grid)
    assert torch.isfinite(losses.total)
