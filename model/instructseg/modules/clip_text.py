"""CLIP's text half, for comparing words with frames; a vision tower's folder may or may not hold it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from ..checkpoints import Ignored, LoadReport, Part, empty_weights, load_parts, open_tensors, read_json
from ..core import BadInput

_IGNORED = (
    Ignored(r"vision_model\..*", "CLIP's vision half, loaded as the tower"),
    Ignored(r"(.*\.)?position_ids", "position numbers, computed anew"),
    Ignored(r"logit_scale", "scales all similarities alike"),
)


def has_text_tower(folder: Path) -> bool:
    """Whether a CLIP folder holds the text half and a tokenizer for it."""
    vocabulary = all((folder / name).is_file() for name in ("vocab.json", "merges.txt"))
    shapes = open_tensors(folder).shapes
    return (vocabulary or (folder / "tokenizer.json").is_file()) and "text_projection.weight" in shapes


class ClipText(nn.Module):
    """Words and pooled vision states, both into CLIP's shared space."""

    def __init__(self, text: CLIPTextConfig, vision_width: int, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.tower = CLIPTextModelWithProjection(text)
        self.visual_projection = nn.Linear(vision_width, text.projection_dim, bias=False)
        self.tokenizer = tokenizer
        self.report: LoadReport | None = None

    @classmethod
    def load(cls, folder: Path, device: torch.device) -> ClipText:
        """From a CLIP repository in a folder, in float32. Raises BadInput."""
        values = read_json(folder / "config.json")
        tensors = open_tensors(folder)
        try:
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # whatever a damaged file makes of it
            raise BadInput(f"the tokenizer of CLIP in {folder} cannot be read: {error}") from error
        with empty_weights():
            text = cls(_text_config(values), tensors.shapes["visual_projection.weight"][1], tokenizer)
        parts = (
            Part("text_model.", "tower.text_model."),
            Part("text_projection.", "tower.text_projection."),
            Part("visual_projection.", "visual_projection."),
        )
        text.report = load_parts(text, tensors, parts, _IGNORED, torch.float32)
        return text.to(device).eval()

    def embed(self, words: str) -> torch.Tensor:
        """``(C,)``; words beyond CLIP's length are cut off."""
        limit = self.tower.config.max_position_embeddings
        tokens = self.tokenizer(words, truncation=True, max_length=limit, return_tensors="pt")
        return self.tower(tokens["input_ids"].to(self.visual_projection.weight.device)).text_embeds[0]

    def project_images(self, pooled: torch.Tensor) -> torch.Tensor:
        """Pooled states of the vision tower ``(T, W)`` to ``(T, C)``."""
        return self.visual_projection(pooled.float())


def _text_config(values: dict) -> CLIPTextConfig:
    known = {k: v for k, v in values.get("text_config", {}).items() if k not in ("architectures", "model_type",
        "transformers_version", "torch_dtype", "dtype")}  # fmt: skip
    return CLIPTextConfig(**{**known, "projection_dim": values.get("projection_dim", 512)})
