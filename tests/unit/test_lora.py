"""LoRA on chosen layers: those and no others, gradients for what is named, and patterns that fit nothing."""

from __future__ import annotations

import pytest
from torch import nn

from instructseg.core import BadInput
from instructseg.training.lora import add_lora, train_only


def model() -> nn.ModuleDict:
    return nn.ModuleDict({part: nn.ModuleDict({"q_proj": nn.Linear(4, 4), "k_proj": nn.Linear(4, 4)}) for part in "ab"})


def test_only_the_layers_meant_are_adapted_and_only_the_named_trained() -> None:
    made = model()
    add_lora(made, r"a\.q_proj", 2, 4.0, 0.0)
    trained = train_only(made, lambda name: name == "b.k_proj.bias")
    assert set(trained) == {
        "a.q_proj.lora_A.default.weight", "a.q_proj.lora_B.default.weight", "b.k_proj.bias",
    }  # fmt: skip
    assert {name for name, parameter in made.named_parameters() if parameter.requires_grad} == set(trained)


@pytest.mark.parametrize(
    ("layers", "rank", "said"), [("q_proj", 2, "no layer like 'q_proj'"), (r".*\.q_proj", 0, "got 0")]
)
def test_a_pattern_without_layers_or_a_rank_below_one_is_refused(layers: str, rank: int, said: str) -> None:
    made = model()
    with pytest.raises(BadInput, match=said):
        add_lora(made, layers, rank, 4.0, 0.0)
    assert isinstance(made["a"]["q_proj"], nn.Linear)
