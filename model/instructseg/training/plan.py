"""How much of what a training run does: the options of ``instructseg train``. No torch here: --help stays quick."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from ..core import BadInput


def _entry(default: int | float, low: float, help_text: str, exclusive: bool = False) -> Any:
    """A field with its lower limit (``exclusive``: the limit itself is refused) and its help text."""
    return dataclasses.field(default=default, metadata={"low": low, "exclusive": exclusive, "help": help_text})


@dataclasses.dataclass(frozen=True)
class TrainingPlan:
    """Times are wall-clock minutes, so that a plan fits the machine it runs on.

    Raises BadInput naming the field, its value and what is allowed.
    """

    flat_episodes: int = _entry(900, 0, "2-D scenes to draw for training")
    tabletop_episodes: int = _entry(3600, 0, "MuJoCo scenes to render for training (needs the extra [sim])")
    validation_episodes: int = _entry(150, 1, "scenes for calibration, drawn like the training's, from other seeds")
    perception_minutes: float = _entry(40.0, 0, "minutes of training the perception", exclusive=True)
    language_minutes: float = _entry(30.0, 0, "minutes of training language model and mask head", exclusive=True)
    threads: int = _entry(2, 1, "CPU threads of torch")
    seed: int = _entry(0, 0, "seed of the weights and of the order of everything")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_field(field, getattr(self, field.name))
        if self.flat_episodes + self.tabletop_episodes < 1:
            raise BadInput("flat_episodes and tabletop_episodes are both 0: there is nothing to train on")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingPlan:
        """From parsed YAML or command line options; an unknown key is an error that lists the known ones."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise BadInput(f"unknown key(s) {', '.join(unknown)} in the training plan; known are {', '.join(known)}")
        return cls(**values)


# A run of minutes that shows that everything works; its checkpoint knows next to nothing.
SMOKE: dict[str, int | float] = {
    "flat_episodes": 20,
    "tabletop_episodes": 0,
    "validation_episodes": 8,
    "perception_minutes": 0.1,
    "language_minutes": 0.1,
}


def is_whole(field: dataclasses.Field) -> bool:
    """Whether a field of the plan takes whole numbers only."""
    return isinstance(field.default, int)


def _check_field(field: dataclasses.Field, value: object) -> None:
    low, exclusive = field.metadata["low"], field.metadata["exclusive"]
    kind = "a whole number" if is_whole(field) else "a number"
    allowed = f"{kind} {'above' if exclusive else 'of at least'} {low:g}"
    right_type = isinstance(value, int if is_whole(field) else (int, float)) and not isinstance(value, bool)
    if not right_type or not math.isfinite(value) or value < low or (exclusive and value == low):
        raise BadInput(f"{field.name} must be {allowed}; got {value!r}")
