"""The benchmark of one device, run where there is no GPU: what it reports, not how long anything takes."""

from __future__ import annotations

import pytest
import torch

from bench import gpu
from bench.__main__ import parse
from bench.options import MeasurementFailed, Options
from bench.peaks import peak_of

TRACKER = "SAM 2.1 miniature, 128 px, float32: "


def test_the_tracker_by_stages_with_ratios_and_growth() -> None:
    figures, details = gpu.measure(Options(quick=True, peak="0.1,20"))
    by_name = {figure.name.removeprefix(TRACKER): figure for figure in figures}
    for stage in ("image encoder", "memory attention", "mask decoder", "memory encoder", "encode"):
        assert min(by_name[stage].values) > 0
    assert by_name["encode, times its floor"].median > 0
    assert by_name["memory step, 4 objects, times its floor"].median > 0
    assert by_name["resident memory"].unit == "MB" and by_name["it grows over 20 frames"].unit == "KB/frame"
    assert details["peak"] == {"half": 1e11, "single": 1e11, "bandwidth": 2e10}


def test_a_recipe_by_the_steps_of_its_interface_and_no_ratio_where_nothing_is_known() -> None:
    figures, details = gpu.measure(Options(quick=True, recipe="unified"))
    names = [figure.name.removeprefix("unified, float32: ") for figure in figures]
    assert names[:3] == ["encode", "ground, 1 instruction", "encode + segment, 1 token(s)"]
    assert not any("floor" in name for name in names) and "unknown" in details["peak"]


def test_a_compiled_stage_gives_what_the_stage_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the back end that only traces: building kernels takes longer than a test may."""
    whole = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, mode, **given: whole(call, backend="eager", **given))
    matrix = torch.randn(4, 4)
    call = gpu.compiled(lambda x: x @ x.T + 1, False, matrix)
    torch.testing.assert_close(call(), matrix @ matrix.T + 1)


def test_peaks_by_name_and_as_given() -> None:
    assert peak_of("NVIDIA H100 PCIe").bandwidth == 2e12
    assert peak_of("NVIDIA H100 80GB HBM3").bandwidth == 3.35e12
    assert peak_of("Some CPU") is None
    assert peak_of("NVIDIA H200", "42.5,204.8").half == 42.5e12
    assert peak_of("NVIDIA H200").floor_ms(989 * 10**9, 0, torch.bfloat16) == pytest.approx(1.0)
    assert peak_of("NVIDIA H200").floor_ms(0, 48 * 10**8, torch.bfloat16) == pytest.approx(1.0)


@pytest.mark.parametrize("given", ["fast", "1", "0,5", "1,2,3", "-1,5", "nan,1"])
def test_a_peak_that_cannot_be_is_refused(given: str) -> None:
    with pytest.raises(MeasurementFailed, match="--peak must be TFLOP/S,GB/S"):
        peak_of("", given)


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MeasurementFailed, match="--device cuda: torch finds no CUDA device"):
        gpu.measure(Options(device="cuda"))
    with pytest.raises(MeasurementFailed, match="--size must be one of miniature, tiny.*got 'huge'"):
        gpu.measure(Options(size="huge"))


def test_it_runs_where_it_is_named_and_is_told_its_options() -> None:
    assert "gpu" not in parse([])[0]
    names, options = parse(["gpu", "--device", "cuda", "--size", "large", "--peak", "1,2", "--compile"])
    assert names == ["gpu"]
    assert (options.device, options.size, options.peak, options.compile) == ("cuda", "large", "1,2", True)
