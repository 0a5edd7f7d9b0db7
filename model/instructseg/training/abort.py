"""Early abort: a stage that does not learn what it should by a given step ends there, and says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core import BadInput
from .plan import AbortRule
from .stopping import TrainingStopped

ALL_LOSSES_SEEN = 50  # steps; some losses are not in every step


class AbortRules:
    """The rules of one stage (``perception`` or ``language``)."""

    def __init__(self, stage: str, rules: Sequence[AbortRule] = ()) -> None:
        self.stage, self.rules = stage, tuple(rules)

    def judge_losses(self, step: int, losses: Mapping[str, float]) -> None:
        """losses: smoothed, after ``step`` steps; a name is there once it had a value. Raises TrainingStopped where a
        rule is broken, and BadInput for a rule about a loss that the stage does not have."""
        for index, rule in enumerate(self.rules):
            if rule.loss is None or step < min(rule.after, ALL_LOSSES_SEEN):
                continue
            if rule.loss not in losses:
                known = ", ".join(sorted(losses))
                raise BadInput(f"{self.stage}.abort[{index}].loss must be one of {known}; got {rule.loss!r}")
            value = losses[rule.loss]
            if step >= rule.after and not value < rule.below:
                raise TrainingStopped(
                    f"{self._broken(index, step)} the loss {rule.loss} must be below {rule.below:g}; it is "
                    f"{value:.4g}. {self._advice(index)}"
                )

    def judge_validation(self, step: int, figures: Mapping[str, float]) -> None:
        """figures: of a validation after ``step`` steps; of what is not asked there, there is none. Raises
        TrainingStopped where a rule is broken, or its figure missing."""
        for index, rule in enumerate(self.rules):
            if rule.validation is None or step < rule.after:
                continue
            value = figures.get(rule.validation)
            if value is None or not value >= rule.at_least:
                measured = f"there are {', '.join(sorted(figures))}" if value is None else f"it is {value:.4g}"
                raise TrainingStopped(
                    f"{self._broken(index, step)} the validation's {rule.validation} must be at least "
                    f"{rule.at_least:g}; {measured}. {self._advice(index)}"
                )

    def _broken(self, index: int, step: int) -> str:
        return (
            f"{self.stage} was aborted at step {step} by {self.stage}.abort[{index}]: from step {self._after(index)} on"
        )

    def _after(self, index: int) -> int:
        return self.rules[index].after

    def _advice(self, index: int) -> str:
        return (
            f"The state is saved. Try another {self.stage}.learning_rate, other shares in {self.stage}.mixture or more "
            f"scenes, in another --out; or change the rule, and the same command goes on here"
        )
