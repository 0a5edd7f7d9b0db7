"""Batch norm folded into the convolution before it: the same function, a third fewer passes over memory."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import PreTrainedModel


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """A copy of ``module`` in evaluation mode where every ``Sequential(Conv2d, BatchNorm2d, …)`` is one convolution.
    Pretrained backbones hold nothing to fold and may be large: they are shared, not copied."""
    shared = {id(part): part for part in module.modules() if isinstance(part, PreTrainedModel)}
    folded = copy.deepcopy(module, shared).eval()
    for part in folded.modules():
        pair = list(part[:2]) if isinstance(part, nn.Sequential) and len(part) >= 2 else [None, None]
        if isinstance(pair[0], nn.Conv2d) and isinstance(pair[1], nn.BatchNorm2d):
            part[0], part[1] = fuse_conv_bn_eval(*pair), nn.Identity()
    return folded
