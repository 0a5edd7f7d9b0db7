"""GSVA and LISA in miniature: random weights in the layouts of the published checkpoints, and these layouts' keys."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM
from unit.tiny_tokenizer import write_tokenizer

from instructseg.modules.clip_patches import published_clip_shapes
from instructseg.modules.sam_keys import published_sam_shapes
from instructseg.modules.sam_sizes import SamSizes
from instructseg.recipes.gsva.checkpoint import PEFT_PREFIX
from instructseg.recipes.gsva.configuration import GsvaConfig, Layout

Shapes = dict[str, tuple[int, ...]]

TINY_CLIP = {
    "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", "hidden_size": 16, "num_hidden_layers": 3,
    "intermediate_size": 32, "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu",
    "projection_dim": 16,
}  # fmt: skip
TINY_SAM = SamSizes(
    image_size=64, patch_size=16, hidden=16, layers=2, heads=2, mlp=32, window=2, global_layers=(1,), prompt=16,
    mask_channels=8, decoder_heads=2, decoder_mlp=16, iou_hidden=16,
)  # fmt: skip
TINY_LLAMA = {
    "model_type": "llava", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024,
    "mm_hidden_size": 16, "mm_vision_select_layer": -2, "mm_vision_tower": "openai/clip-vit-large-patch14",
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "rope_scaling": None,
}  # fmt: skip
LORA_RANK = 2


def published_shapes(config: GsvaConfig, layout: Layout, lora_rank: int | None = None) -> Shapes:
    """Names and shapes of a published checkpoint of these sizes. GSVA: peft's prefix, everything inside, LoRA of
    ``lora_rank`` beside its weights. LISA: no prefix, LoRA merged, CLIP left out."""
    with torch.device("meta"):
        llm = LlamaForCausalLM(config.llama)
    width = config.llama.hidden_size
    shapes: Shapes = {name: tuple(tensor.shape) for name, tensor in llm.state_dict().items()}
    if lora_rank is not None:
        for name in [n for n in shapes if n.endswith(("self_attn.q_proj.weight", "self_attn.v_proj.weight"))]:
            layer = name.removesuffix(".weight")
            shapes[f"{layer}.lora_A.default.weight"] = (lora_rank, shapes[name][1])
            shapes[f"{layer}.lora_B.default.weight"] = (shapes[name][0], lora_rank)
    if layout == "gsva":
        vision = published_clip_shapes(config.clip)
        shapes |= {f"model.vision_tower.vision_tower.{name}": shape for name, shape in vision.items()}
    shapes |= {"model.mm_projector.weight": (width, config.clip.hidden_size), "model.mm_projector.bias": (width,)}
    shapes |= {f"model.visual_model.{name}": shape for name, shape in published_sam_shapes(config.sam).items()}
    for layer, out in ((0, width), (2, config.prompt_width)):
        shapes |= {f"model.text_hidden_fcs.0.{layer}.weight": (out, width)}
        shapes |= {f"model.text_hidden_fcs.0.{layer}.bias": (out,)}
    prefix = PEFT_PREFIX if layout == "gsva" else ""
    return {prefix + name: shape for name, shape in shapes.items()}


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a size that keeps activations alive: matrices by their fan-in, norms about one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            tensors[name] = 0.05 * noise + (1.0 if name.endswith("weight") else 0.0)
        else:
            fan_in = noise[0].numel() if "embed" not in name else 1
            tensors[name] = noise / fan_in**0.5
    return tensors


def tiny_config(rows: int) -> GsvaConfig:
    known = {k: v for k, v in TINY_LLAMA.items() if not k.startswith(("mm_", "model_type", "torch_dtype", "rope"))}
    clip = {k: v for k, v in TINY_CLIP.items() if k not in ("architectures", "model_type")}
    return GsvaConfig(LlamaConfig(**known, vocab_size=rows), CLIPVisionConfig(**clip), TINY_SAM, TINY_SAM.prompt)


def tiny_checkpoint(folder: Path) -> Path:
    """GSVA: one ``.bin``, and beside it the LLaVA base's tokenizer and ``config.json``, as a user would put them."""
    rows = write_base(folder, ("[SEG]", "[REJ]"))
    tensors = random_tensors(published_shapes(tiny_config(rows), "gsva", LORA_RANK))
    torch.save(tensors, folder / "gsva-tiny-ft-gres.bin")
    write_clip(folder / "clip", None)
    return folder


def tiny_lisa_checkpoint(folder: Path) -> Path:
    """LISA: shards with an index, tokenizer and ``config.json``; CLIP in a folder of its own."""
    rows = write_base(folder, ("[SEG]",), ready=True, architecture="LISAForCausalLM")
    config = tiny_config(rows)
    tensors = random_tensors(published_shapes(config, "lisa"), seed=1)
    names = sorted(tensors)
    places = {name: f"pytorch_model-0000{1 + 2 * i // len(names)}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(places.values()):
        torch.save({name: tensors[name] for name in names if places[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    write_clip(folder / "clip", config)
    return folder


def tiny_options(folder: Path) -> dict[str, str]:
    """What no published checkpoint of these small sizes could state."""
    return {"clip": str(folder / "clip"), "sam_decoder_heads": str(TINY_SAM.decoder_heads)}


def write_base(
    folder: Path, slots: tuple[str, ...], ready: bool = False, architecture: str = "LlavaLlamaForCausalLM"
) -> int:
    """Tokenizer and ``config.json`` of a base whose tokenizer has image tokens already, as LLaVA v1.1's has; the number
    of embedding rows after training. ready: the slots' tokens are in the tokenizer as well (LISA ships its own)."""
    size = write_tokenizer(folder)
    base = {"<im_patch>": size, "<im_start>": size + 1, "<im_end>": size + 2}
    added = base | {token: size + 3 + i for i, token in enumerate(slots)}
    write_tokenizer(folder, added if ready else base)
    rows = size + len(added)
    values = {**TINY_LLAMA, "architectures": [architecture], "vocab_size": rows if ready else size + len(base)}
    (folder / "config.json").write_text(json.dumps(values))
    return rows


def write_clip(folder: Path, config: GsvaConfig | None) -> None:
    """CLIP's folder: its ``config.json``, and weights where ``config`` is given."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_CLIP))
    if config is not None:
        shapes = {name: tuple(shape) for name, shape in published_clip_shapes(config.clip).items()}
        torch.save(random_tensors(shapes, seed=2), folder / "pytorch_model.bin")
