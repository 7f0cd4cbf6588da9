"""A search for settings by optuna: its proposals depend on a fixed seed and on the values at earlier points alone."""

from __future__ import annotations

__all__: list[str] = []

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentia.errors import ConfigurationError

SEED = 0
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, both included; integers if both are. With `log`, on a logarithmic scale."""

    low: float
    high: float
    log: bool

    @property
    def ends(self) -> list[float]:
        return [self.low, self.high]


def parse_range(key: str, text: str) -> Range:
    """A range from its text, `2..32` or `1e-4..1e-2:log`.

    Raises:
        ConfigurationError: a text of another form, ends in the wrong order, a logarithm of what is not positive.
    """
    match = re.fullmatch(rf"\s*({NUMBER})\.\.({NUMBER})(:log)?\s*", text, re.IGNORECASE)
    if match is None:
        raise ConfigurationError([(key, f"write a range as 2..32 or 1e-4..1e-2:log (given: {text})")])
    whole = all(re.fullmatch(r"[+-]?\d+", match[i]) for i in (1, 2))
    low, high = (int(match[i]) if whole else float(match[i]) for i in (1, 2))
    log = match[3] is not None
    if not -math.inf < low < high < math.inf:
        raise ConfigurationError([(key, f"the first end of a range is below the second (given: {text})")])
    if log and low <= 0:
        raise ConfigurationError([(key, f"a range with :log has positive ends (given: {text})")])
    return Range(low, high, log)


def is_range(text: str) -> bool:
    """Whether a text is a range of two numbers; `../folder` is not."""
    return re.fullmatch(rf"\s*{NUMBER}\.\.{NUMBER}(:\w*)?\s*", text, re.IGNORECASE) is not None


class Search:
    """Points proposed from the values at the points before.

    Args:
        space: a `Range` or a list of values by key.
        trials: points in all.
        round_size: points proposed at a time.

    Raises:
        ConfigurationError: without optuna; for no trials.
    """

    def __init__(self, space: Mapping[str, Range | list[Any]], trials: int, round_size: int):
        problems = [
            (name, f"give at least 1 (given: {value})")
            for name, value in (("trials", trials), ("round_size", round_size))
            if value < 1
        ]
        if problems:
            raise ConfigurationError(problems)
        try:
            import optuna
        except ImportError:
            raise ConfigurationError([("trials", "a search needs optuna: pip install 'latentia[search]'")]) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._left = trials
        self._round_size = round_size
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=SEED))
        self._asked: list[Any] = []

    def corners(self) -> list[dict[str, Any]]:
        """Points that hold every value listed, and both ends of every range."""
        values = {key: choice.ends if isinstance(choice, Range) else choice for key, choice in self._space.items()}
        most = max(len(given) for given in values.values())
        return [{key: given[min(i, len(given) - 1)] for key, given in values.items()} for i in range(most)]

    def propose(self) -> list[dict[str, Any]]:
        """The points of the next round; none when all trials are done."""
        count = min(self._round_size, self._left)
        self._left -= count
        self._asked = [self._study.ask() for _ in range(count)]
        return [{key: _suggest(trial, key, self._space[key]) for key in self._space} for trial in self._asked]

    def report(self, values: Sequence[float | None]) -> None:
        """Give the values of the points of the last round, the lower the better; None where a point has no value."""
        from optuna.trial import TrialState

        for trial, value in zip(self._asked, values, strict=True):
            if value is None or value != value:
                self._study.tell(trial, state=TrialState.FAIL)
            else:
                self._study.tell(trial, value)


def _suggest(trial: Any, key: str, choice: Range | list[Any]) -> Any:
    if not isinstance(choice, Range):
        return choice[trial.suggest_categorical(key, list(range(len(choice))))]
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return trial.suggest_int(key, choice.low, choice.high, log=choice.log)
    return trial.suggest_float(key, choice.low, choice.high, log=choice.log)
