"""Distributions as one writes them: `parse_distribution("Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,.5))")`.

    distribution      = name "(" [argument {"," argument}] ")"
             | "Mixture" "(" number "*" distribution {"+" number "*" distribution} ")"
    argument = [parameter "="] value
    value    = number | "[" value {"," value} "]"
    number   = decimal ["/" decimal]                      so that 1/2 and 3/2 can be written

The text is read by the small parser below and never evaluated as code. Parameters have torch's names and meaning. A
list where a distribution takes a number makes independent coordinates: `Normal([0,0], 1)` is the standard Gaussian of the plane.
"""

from __future__ import annotations

__all__ = ["DISTRIBUTIONS", "parse_distribution"]

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch import distributions as td

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture
from latentia.errors import ConfigurationError, nearest

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_DEEPEST = 20


@dataclass(frozen=True)
class Parameter:
    """One parameter of a written distribution.

    Attributes:
        name: as torch spells it.
        range: what its values must be, in words that follow "must".
        valid: whether a tensor of values, all finite, is in range.
        dimensions: of the tensor: 0 takes a number (or, for coordinatewise distributions, a list of them), 1 a list, 2 a list of
            lists, −1 a list of either.
        default: the value if none is written; None if one must be.
    """

    name: str
    range: str = "be a finite number"
    valid: Callable[[Tensor], bool] = lambda _: True
    dimensions: int = 0
    default: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class WrittenDistribution:
    """How a distribution is written: its parameters in order, and what makes it of their values."""

    make: Callable[..., td.Distribution]
    parameters: tuple[Parameter, ...]

    @property
    def signature(self) -> str:
        """The parameters as one writes them, such as `loc, scale`."""
        return ", ".join(p.name if p.default is None and not p.optional else f"[{p.name}]" for p in self.parameters)


def _positive(name: str, default: float | None = None) -> Parameter:
    return Parameter(name, "be > 0", lambda value: bool((value > 0).all()), default=default)


def _is_simplex(value: Tensor) -> bool:
    return bool((value >= 0).all()) and abs(value.sum().item() - 1) < 1e-6


def _is_covariance(value: Tensor) -> bool:
    square = value.shape[0] == value.shape[1] and torch.allclose(value, value.T)
    return square and torch.linalg.cholesky_ex(value).info.item() == 0


def _uniform(low: Tensor, high: Tensor) -> td.Distribution:
    if not bool((low < high).all()):
        raise ConfigurationError(f"high must be > low = {low.tolist()}")
    return td.Uniform(low, high)


def _gaussian(loc: Tensor, covariance_matrix: Tensor) -> td.Distribution:
    if len(loc) != len(covariance_matrix):
        d = len(loc)
        raise ConfigurationError(f"covariance_matrix must be {d} × {d}, as loc has {d} coordinates")
    return td.MultivariateNormal(loc, covariance_matrix)


_LOC, _SCALE = Parameter("loc"), _positive("scale")
_PROBABILITY = Parameter("probs", "lie in [0, 1]", lambda value: bool(((value >= 0) & (value <= 1)).all()))
_SIMPLEX = "be at least 0 and sum to 1"

DISTRIBUTIONS: Mapping[str, WrittenDistribution] = {
    "Normal": WrittenDistribution(td.Normal, (_LOC, _SCALE)),
    "Uniform": WrittenDistribution(_uniform, (Parameter("low"), Parameter("high"))),
    "Laplace": WrittenDistribution(td.Laplace, (_LOC, _SCALE)),
    "Exponential": WrittenDistribution(td.Exponential, (_positive("rate"),)),
    "Gamma": WrittenDistribution(td.Gamma, (_positive("concentration"), _positive("rate"))),
    "Beta": WrittenDistribution(td.Beta, (_positive("concentration1"), _positive("concentration0"))),
    "Cauchy": WrittenDistribution(td.Cauchy, (_LOC, _SCALE)),
    "StudentT": WrittenDistribution(
        td.StudentT, (_positive("df"), Parameter("loc", default=0.0), _positive("scale", 1.0))
    ),
    "LogNormal": WrittenDistribution(td.LogNormal, (_LOC, _SCALE)),
    "Gumbel": WrittenDistribution(td.Gumbel, (_LOC, _SCALE)),
    "Bernoulli": WrittenDistribution(td.Bernoulli, (_PROBABILITY,)),
    "Poisson": WrittenDistribution(td.Poisson, (_positive("rate"),)),
    "Categorical": WrittenDistribution(td.Categorical, (Parameter("probs", _SIMPLEX, _is_simplex, 1),)),
    "Finite": WrittenDistribution(
        Finite,
        (
            Parameter("points", "be a list of numbers, or of lists of one length", dimensions=-1),
            Parameter("weights", _SIMPLEX, _is_simplex, 1, optional=True),
        ),
    ),
    "MultivariateNormal": WrittenDistribution(
        _gaussian,
        (
            Parameter("loc", "be a list of finite numbers", dimensions=1),
            Parameter("covariance_matrix", "be square, symmetric and positive definite", _is_covariance, 2),
        ),
    ),
}
"""Every distribution that can be written, beside `Mixture`. Adding one is one line here."""


def parse_distribution(text: str) -> td.Distribution:
    """The distribution that a text writes, with float64 parameters.

    Args:
        text: such as `Uniform(1/2, 3/2)` or `MultivariateNormal([0,0], [[2,1],[1,2]])`; see the module's grammar.

    Raises:
        ConfigurationError: with the text and a caret below the character where it goes wrong. A parameter out of range
            is named with its range.

    Examples:
        >>> parse_distribution("Uniform(0, 1/2)").mean.item()
        0.25
    """
    reader = _Reader(text)
    distribution = reader.distribution(0)
    if reader.peek():
        reader.fail("the distribution ends before this")
    return distribution


class _Reader:
    """A recursive-descent parser: one method for each rule of the grammar."""

    def __init__(self, text: str):
        self.text = text
        self.at = 0

    def fail(self, message: str, at: int | None = None) -> NoReturn:
        place = self.at if at is None else at
        line = self.text.replace("\n", " ").replace("\t", " ")
        raise ConfigurationError(f"{message}\n  {line}\n  {' ' * place}^")

    def peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, symbol: str) -> bool:
        found = self.peek() == symbol
        self.at += found
        return found

    def expect(self, symbol: str, why: str) -> None:
        if not self.take(symbol):
            self.fail(f"here must stand {symbol!r}, {why}")

    def match(self, pattern: re.Pattern[str]) -> str:
        self.peek()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found.group() if found else ""

    def distribution(self, depth: int) -> td.Distribution:
        self.peek()
        start = self.at
        name = self.match(_NAME)
        if not name:
            self.fail("here must stand the name of a distribution, such as Normal(0, 1)")
        if name != "Mixture" and name not in DISTRIBUTIONS:
            self.fail(f"there is no distribution named {name!r}. {nearest(name, ['Mixture', *DISTRIBUTIONS])}", start)
        if depth > _DEEPEST:
            self.fail(f"mixtures are nested more than {_DEEPEST} deep", start)
        self.expect(
            "(",
            f"as in {name}({DISTRIBUTIONS[name].signature if name in DISTRIBUTIONS else '0.3*Normal(-2,1) + 0.7*Normal(2,1)'})",
        )
        return self.mixture(depth, start) if name == "Mixture" else self.simple(name, start)

    def mixture(self, depth: int, start: int) -> td.Distribution:
        weights, distributions = [], []
        while True:
            self.peek()
            at = self.at
            weights.append(self.number())
            if weights[-1] < 0:
                self.fail("the weight of a component must be >= 0", at)
            self.expect("*", "between a weight and its distribution, as in 0.3*Normal(0,1)")
            distributions.append(self.distribution(depth + 1))
            if not self.take("+"):
                break
        self.expect(")", "or '+' and another component")
        return self.build(lambda: Mixture(torch.tensor(weights, dtype=torch.float64), distributions), start)

    def simple(self, name: str, start: int) -> td.Distribution:
        written = DISTRIBUTIONS[name]
        given: dict[str, tuple[Any, int]] = {}
        while self.peek() != ")":
            self.argument(name, given)
            if not self.take(","):
                break
        closing = self.at
        self.expect(")", "or ',' and another parameter")
        missing = [p.name for p in written.parameters if p.name not in given and p.default is None and not p.optional]
        if missing:
            self.fail(f"{name}({written.signature}) lacks {' and '.join(missing)}", closing)
        values = {p.name: self.tensor(p, *given[p.name]) for p in written.parameters if p.name in given}
        defaults = {
            p.name: torch.tensor(p.default, dtype=torch.float64) for p in written.parameters if p.default is not None
        }
        values = {**defaults, **values}
        free = [p.name for p in written.parameters if p.dimensions == 0]
        if any(values[key].dim() for key in free):
            lengths = {len(values[key]) for key in free if values[key].dim()}
            if len(lengths) > 1:
                self.fail(
                    f"the lists in {name}(…) have different lengths: {', '.join(map(str, sorted(lengths)))}", start
                )
            values = {key: value.expand(lengths.copy().pop()) for key, value in values.items()}
            return self.build(lambda: td.Independent(written.make(**values), 1), start)
        return self.build(lambda: written.make(**values), start)

    def argument(self, distribution: str, given: dict[str, tuple[Any, int]]) -> None:
        """Read one argument into `given` under its parameter's name, with the place where it stands."""
        names = [p.name for p in DISTRIBUTIONS[distribution].parameters]
        self.peek()
        start = self.at
        key = self.match(_NAME)
        if key and not self.take("="):
            self.fail("here must stand a number, a list, or parameter=value", start)
        if not key and len(given) >= len(names):
            self.fail(f"{distribution} takes {len(names)} parameter{'s' * (len(names) > 1)}: {', '.join(names)}", start)
        if not key:
            key = names[len(given)]
        if key not in names:
            self.fail(f"{distribution} has no parameter {key!r}. {nearest(key, names)}", start)
        if key in given:
            self.fail(f"{key} is given twice", start)
        self.peek()
        start = self.at
        given[key] = (self.value(0), start)

    def value(self, depth: int) -> Any:
        if not self.take("["):
            return self.number()
        if depth > 1:
            self.fail("lists are nested at most two deep", self.at - 1)
        items = [] if self.peek() == "]" else [self.value(depth + 1)]
        while items and self.take(","):
            items.append(self.value(depth + 1))
        self.expect("]", "or ',' and another item")
        return items

    def number(self) -> float:
        self.peek()
        start = self.at
        digits = self.match(_NUMBER)
        if not digits:
            self.fail("here must stand a number")
        value = float(digits)
        if self.take("/"):
            at = self.at
            below = self.match(_NUMBER)
            if not below or float(below) == 0:
                self.fail("here must stand a number other than 0, to divide by", at)
            value /= float(below)
        if value in (float("inf"), float("-inf")):
            self.fail("this number is too large for a float", start)
        return value

    def tensor(self, parameter: Parameter, value: Any, at: int) -> Tensor:
        """The value of a parameter as a float64 tensor, its shape and range checked."""
        try:
            tensor = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError):
            self.fail(f"the lists in {parameter.name} have different lengths", at)
        allowed = {0: (0, 1), 1: (1,), 2: (2,), -1: (1, 2)}[parameter.dimensions]
        if tensor.dim() not in allowed or tensor.numel() == 0:
            shape = {0: "a number or a list", 1: "a list", 2: "a list of lists", -1: "a list, or a list of lists"}
            self.fail(f"{parameter.name} must be {shape[parameter.dimensions]}", at)
        if not parameter.valid(tensor):
            self.fail(f"{parameter.name} must {parameter.range}", at)
        return tensor

    def build(self, make: Callable[[], td.Distribution], start: int) -> td.Distribution:
        try:
            return make()
        except ConfigurationError as error:
            self.fail(str(error), start)
