"""What a device reaches at most, and the time below which nothing on it can go."""

from __future__ import annotations

import dataclasses

import torch

from .options import MeasurementFailed


@dataclasses.dataclass(frozen=True)
class Peak:
    """half, single: operations per second in 16 bits with accumulation in 32, and in float32 as torch multiplies by
    default. bandwidth: bytes per second of the device's memory."""

    half: float
    single: float
    bandwidth: float

    def floor_ms(self, operations: int, weight_bytes: int, dtype: torch.dtype) -> float:
        """Milliseconds that the operations, or reading the weights once, take at least."""
        rate = self.single if dtype == torch.float32 else self.half
        return 1e3 * max(operations / rate, weight_bytes / self.bandwidth)


# By a part of the device's name, the longer ones first: vendors' figures, dense. TFLOP/s, TFLOP/s, GB/s.
_KNOWN = {
    "H200": (989, 67, 4800),
    "H100 PCIe": (756, 51, 2000),
    "H100": (989, 67, 3350),
    "A100": (312, 19.5, 2039),
    "L40S": (362, 91.6, 864),
    "L4": (121, 30.3, 300),
    "RTX 4090": (165, 82.6, 1008),
    "RTX 3090": (71, 35.6, 936),
    "Orin": (42.5, 5.3, 204.8),
}


def peak_of(device_name: str, given: str = "") -> Peak | None:
    """given: ``TFLOP/S,GB/S``, one rate for every type, in the place of what is known of the device. None: nothing is.
    Raises MeasurementFailed for what cannot be read."""
    if given:
        try:
            tera, giga = (float(part) for part in given.split(","))
        except ValueError:
            tera = giga = 0.0
        if not (0.0 < tera < 1e6 and 0.0 < giga < 1e6):
            raise MeasurementFailed(f"--peak must be TFLOP/S,GB/S such as 42.5,204.8; got {given!r}")
        return Peak(tera * 1e12, tera * 1e12, giga * 1e9)
    for part, (half, single, bandwidth) in _KNOWN.items():
        if part in device_name:
            return Peak(half * 1e12, single * 1e12, bandwidth * 1e9)
    return None
