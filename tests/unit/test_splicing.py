"""Visual tokens into text: order, masks, labels, positions, and rows that do not fit."""

from __future__ import annotations

import pytest
import torch

from instructseg.core import BadInput
from instructseg.modules.splicing import expanded_positions, predicting_positions, splice
from instructseg.sentencepieces import IMAGE_PLACEHOLDER as X

SEG = 9


def embed(ids: torch.Tensor) -> torch.Tensor:
    """Every id as a vector of its own value."""
    return ids[:, None].float().expand(-1, 2)


def image(rows: int, value: float) -> torch.Tensor:
    return torch.full((rows, 2), value)


def test_images_take_the_place_of_their_placeholders() -> None:
    ids = torch.tensor([[1, X, 5, X, SEG]])
    labels = torch.tensor([[-100, -100, 5, -100, SEG]])
    spliced = splice(ids, [[image(2, -1.0), image(3, -2.0)]], embed, labels=labels)
    assert spliced.embeddings[0, :, 0].tolist() == [1, -1, -1, 5, -2, -2, -2, 9]
    assert spliced.labels[0].tolist() == [-100, -100, -100, 5, -100, -100, -100, SEG]
    assert spliced.attention_mask.all()
    assert expanded_positions(ids[0], SEG, [2, 3]).tolist() == [7]
    assert predicting_positions(ids[0], SEG, [2, 3]).tolist() == [6]


def test_shorter_rows_are_padded_with_masked_zeros_and_keep_their_own_padding() -> None:
    ids = torch.tensor([[1, X, SEG, 0], [1, X, X, SEG]])
    attention = ids != 0
    spliced = splice(ids, [[image(2, -1.0)], [image(2, -1.0), image(2, -2.0)]], embed, attention)
    assert spliced.embeddings[..., 0].tolist() == [[1, -1, -1, 9, 0, 0], [1, -1, -1, -2, -2, 9]]
    assert spliced.attention_mask.tolist() == [[True] * 4 + [False] * 2, [True] * 6]
    assert spliced.labels is None


def test_several_tokens_and_tokens_before_an_image() -> None:
    ids = torch.tensor([SEG, 4, X, SEG, 4, SEG])
    assert expanded_positions(ids, SEG, [5]).tolist() == [0, 7, 9]
    assert predicting_positions(torch.tensor([1, 2]), SEG, []).tolist() == []


def test_gradients_reach_words_and_images() -> None:
    table = torch.nn.Embedding(10, 2)
    picture = image(2, 1.0).requires_grad_()
    splice(torch.tensor([[1, X, SEG]]), [[picture]], table).embeddings.sum().backward()
    assert table.weight.grad[1].tolist() == [1, 1]
    assert table.weight.grad[0].tolist() == [0, 0]  # what stands at the placeholder is not used
    assert picture.grad.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("images", [[], [image(2, 1.0)] * 2])
def test_placeholders_and_images_must_agree_in_number(images: list[torch.Tensor]) -> None:
    with pytest.raises(BadInput, match=r"row 0 has 1 image placeholder\(s\) for [02] image"):
        splice(torch.tensor([[1, X]]), [images], embed)
