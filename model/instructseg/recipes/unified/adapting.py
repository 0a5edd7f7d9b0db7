"""How a pretrained language model inside the recipe learns: LoRA on its layers, everything around it as it is."""

from __future__ import annotations

from ...checkpoints import empty_weights
from ...training.lora import add_lora, train_only
from ...training.merging import merged_state
from .modeling import UnifiedModel

LORA_LAYERS = r"language\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 16, 32.0, 0.0


def freeze_language_backbone(model: UnifiedModel) -> None:
    """From here on LoRA trains on a pretrained language model, and all that is neither it nor perception; a model with
    a small one is left as it is."""
    if model.config.language_backbone is None:
        return
    add_lora(model, LORA_LAYERS, LORA_RANK, LORA_ALPHA, LORA_DROPOUT)
    train_only(model, lambda name: not name.startswith(("perception.", "language.")))


def without_lora(model: UnifiedModel) -> UnifiedModel:
    """The same model with plain layers, what LoRA has learned merged into them, on the CPU; a small one, which has no
    LoRA, is given back as it is."""
    if model.config.language_backbone is None:
        return model
    state = {name: tensor.cpu() for name, tensor in merged_state(model).items()}
    with empty_weights():
        plain = UnifiedModel(model.config, len(state["language.embed_tokens.weight"]))
    plain.load_state_dict(state, assign=True)
    return plain.train(model.training)
