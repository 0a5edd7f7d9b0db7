"""How a pretrained language model inside the recipe learns: LoRA on its layers, everything around it as it is."""

from __future__ import annotations

from ...checkpoints import empty_weights
from ...training.lora import add_lora
from ...training.merging import merged_state
from .modeling import UnifiedModel

LORA_LAYERS = r"language\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 16, 32.0, 0.0


def freeze_language_backbone(model: UnifiedModel) -> None:
    """Of a pretrained language model LoRA trains from here on, and nothing else; a small one is left as it is."""
    if model.config.language_backbone is not None:
        model.language.requires_grad_(False)
        add_lora(model, LORA_LAYERS, LORA_RANK, LORA_ALPHA, LORA_DROPOUT)


def without_lora(model: UnifiedModel) -> UnifiedModel:
    """The same model on the CPU with plain layers, what LoRA has learned merged into them."""
    state = {name: tensor.cpu() for name, tensor in merged_state(model).items()}
    with empty_weights():
        plain = UnifiedModel(model.config, len(state["language.embed_tokens.weight"]))
    plain.load_state_dict(state, assign=True)
    return plain.train(model.training)
