"""Putting accounted tensors into a module: all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from ..core import BadInput
from .account import Ignored, LoadReport, Part, account
from .views import Tensors

_UNBUILDABLE = (
    StrictDataclassError, ArithmeticError, AssertionError, AttributeError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules built inside have parameters without storage (to be assigned by :func:`load_parts`) and real buffers."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        yield


@contextmanager
def building(source: Path | str) -> Iterator[None]:
    """What the libraries refuse inside, while they build a network without weights, becomes a BadInput that names
    ``source``: the file whose values they were given."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{source}: {error}") from error
    except LookupError as error:
        raise BadInput(f"{source}: no network can be built from it: {error} is not known") from error
    except _UNBUILDABLE as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise BadInput(f"{source}: no network can be built from it: {why}") from error


def load_parts(
    module: torch.nn.Module,
    tensors: Tensors,
    parts: Sequence[Part],
    ignored: Sequence[Ignored] = (),
    dtype: torch.dtype | None = None,
) -> LoadReport:
    """Account for every key, raise BadInput unless all is in order, then assign the tensors.

    The module may have been built under :func:`empty_weights`. dtype: of floating-point parameters; None keeps the
    checkpoint's. Tensors are assigned, not copied: peak memory is the model once, not twice.
    """
    state = module.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    source = getattr(tensors, "source", None) or "the checkpoint"
    accounted = account(tensors.shapes, shapes, parts, ignored)
    accounted.check(source)
    assigned: dict[str, torch.Tensor] = {}
    read: dict[str, torch.Tensor] = {}  # a tensor that goes to two places is read once
    for name, key in accounted.sources.items():
        if key not in read:
            tensor = tensors[key]
            read[key] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
        assigned[name] = read[key]
    _refuse_quantised(assigned, state, source)
    _refuse_not_finite(assigned, source)
    module.load_state_dict(assigned, strict=True, assign=True)
    return LoadReport(
        loaded=tuple(accounted.sources),
        missing=(),
        unexpected=(),
        converted={name: key for name, key in accounted.sources.items() if name != key},
        merged=tuple(getattr(tensors, "merged", ())),
        ignored=accounted.ignored,
    )


def load_strictly(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path) -> LoadReport:
    """Load tensors whose names are the module's own; a missing, unexpected or misshapen one is an error.

    Where the module was built under :func:`empty_weights`, they become its weights; else they are copied.
    """
    accounted = account(
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()},
        (Part("", ""),),
    )
    accounted.check(source)
    module.load_state_dict(dict(tensors), assign=any(parameter.is_meta for parameter in module.parameters()))
    return LoadReport(tuple(accounted.sources), (), ())


def _refuse_quantised(tensors: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], source: object) -> None:
    """Weights of 8 bits and less need their scales and other layers than the model has."""
    for name, tensor in tensors.items():
        if state[name].is_floating_point() and not (tensor.is_floating_point() and tensor.dtype.itemsize > 1):
            raise BadInput(
                f"{source}: {name} is {tensor.dtype} where the model has a floating-point weight; quantised "
                "checkpoints cannot be loaded, use one in float32, float16 or bfloat16"
            )


def _refuse_not_finite(tensors: Mapping[str, torch.Tensor], source: object) -> None:
    """A weight that is not a number makes every mask wrong without an error anywhere; look at one value in a row."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel() and not bool(torch.isfinite(tensor.flatten()[::997]).all()):
            raise BadInput(f"{source}: {name} holds values that are not finite; the file is damaged")
