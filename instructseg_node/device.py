"""The accelerator the model runs on: its name, its memory. Nothing is imported for it: without torch in use there is
nothing to tell."""

from __future__ import annotations

import sys


def hardware_name(device: str) -> str:
    """What the device is called by those who built it; the device itself where nobody knows."""
    torch = _cuda_torch()
    if torch is None or not device.startswith("cuda"):
        return device
    return torch.cuda.get_device_name(device)


def memory_figures(device: str) -> dict[str, str]:
    """Memory on the accelerator in MB: what the model's arrays take, what is held for them, what there is."""
    torch = _cuda_torch()
    if torch is None or not device.startswith("cuda"):
        return {}
    _, total = torch.cuda.mem_get_info(device)
    figures = {
        "allocated": torch.cuda.memory_allocated(device),
        "reserved": torch.cuda.memory_reserved(device),
        "total": total,
    }
    return {f"memory device {name} MB": f"{count / 1e6:.1f}" for name, count in figures.items()}


def free_device_memory() -> None:
    """Give cached memory back to the system."""
    torch = _cuda_torch()
    if torch is not None:
        torch.cuda.empty_cache()


def _cuda_torch():
    """torch, where it is in use and has begun to use an accelerator."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None
