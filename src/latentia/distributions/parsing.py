"""Distributions as text: `parse_distribution("Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,.5))")`.

    distribution = name "(" [argument {"," argument}] ")"
                 | "Mixture" "(" number "*" distribution {"+" number "*" distribution} ")"
    argument     = [parameter "="] value
    value        = number | "[" value {"," value} "]"
    number       = decimal ["/" decimal]                  so that 1/2 and 3/2 can be written

The text is parsed by Python's `ast` and walked; nothing but these nodes is accepted, and nothing is evaluated. It may
have at most 4 096 characters and 20 nested brackets, and its numbers must be 0 or between 1e-150 and 1e150 in size.
Parameters have torch's names and meaning. A list where a distribution takes a number makes independent coordinates:
`Normal([0,0], 1)` is the standard Gaussian of the plane.
"""

from __future__ import annotations

__all__ = ["parse_distribution"]

import ast
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch import distributions as td

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture
from latentia.errors import ConfigurationError, nearest

_LONGEST = 4096
_DEEPEST = 20
_SMALLEST, _LARGEST = 1e-150, 1e150  # squares of the numbers are floats


@dataclass(frozen=True)
class _Parameter:
    """One parameter of a distribution.

    Attributes:
        name: as torch spells it.
        range: what its values must be, in words after "must".
        valid: whether a tensor of values, all finite, is in range.
        dimensions: of the tensor: 0 takes a number or a list of numbers (independent coordinates), 1 a list, 2 a list
            of lists, −1 a list of either.
        default: the value if none is given.
        optional: whether the parameter may be left out without a default.
    """

    name: str
    range: str = "be a finite number"
    valid: Callable[[Tensor], bool] = lambda _: True
    dimensions: int = 0
    default: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class _Entry:
    """A distribution that can be parsed: its parameters in order, and the function that makes it from their values."""

    make: Callable[..., td.Distribution]
    parameters: tuple[_Parameter, ...]

    @property
    def signature(self) -> str:
        """The parameters as in `loc, scale`; optional ones in brackets."""
        return ", ".join(p.name if p.default is None and not p.optional else f"[{p.name}]" for p in self.parameters)


def _positive(name: str, default: float | None = None) -> _Parameter:
    return _Parameter(name, "be > 0", lambda value: bool((value > 0).all()), default=default)


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


_LOC, _SCALE = _Parameter("loc"), _positive("scale")
_PROBABILITY = _Parameter("probs", "lie in [0, 1]", lambda value: bool(((value >= 0) & (value <= 1)).all()))
_SIMPLEX = "be at least 0 and sum to 1"

_DISTRIBUTIONS: Mapping[str, _Entry] = {
    "Normal": _Entry(td.Normal, (_LOC, _SCALE)),
    "Uniform": _Entry(_uniform, (_Parameter("low"), _Parameter("high"))),
    "Laplace": _Entry(td.Laplace, (_LOC, _SCALE)),
    "Exponential": _Entry(td.Exponential, (_positive("rate"),)),
    "Gamma": _Entry(td.Gamma, (_positive("concentration"), _positive("rate"))),
    "Beta": _Entry(td.Beta, (_positive("concentration1"), _positive("concentration0"))),
    "Cauchy": _Entry(td.Cauchy, (_LOC, _SCALE)),
    "StudentT": _Entry(td.StudentT, (_positive("df"), _Parameter("loc", default=0.0), _positive("scale", 1.0))),
    "LogNormal": _Entry(td.LogNormal, (_LOC, _SCALE)),
    "Gumbel": _Entry(td.Gumbel, (_LOC, _SCALE)),
    "Bernoulli": _Entry(td.Bernoulli, (_PROBABILITY,)),
    "Poisson": _Entry(td.Poisson, (_positive("rate"),)),
    "Categorical": _Entry(td.Categorical, (_Parameter("probs", _SIMPLEX, _is_simplex, 1),)),
    "Finite": _Entry(
        Finite,
        (
            _Parameter("points", "be a list of numbers, or of lists of one length", dimensions=-1),
            _Parameter("weights", _SIMPLEX, _is_simplex, 1, optional=True),
        ),
    ),
    "MultivariateNormal": _Entry(
        _gaussian,
        (
            _Parameter("loc", "be a list of finite numbers", dimensions=1),
            _Parameter("covariance_matrix", "be square, symmetric and positive definite", _is_covariance, 2),
        ),
    ),
}
"""Every distribution that can be parsed, except `Mixture`. Adding one is one line here."""


def parse_distribution(text: str) -> td.Distribution:
    """The distribution that a text describes, with float64 parameters.

    Args:
        text: such as `Uniform(1/2, 3/2)` or `MultivariateNormal([0,0], [[2,1],[1,2]])`; see the module's grammar.

    Raises:
        ConfigurationError: with the text and a caret below the character at fault. A parameter out of range is named
            with its range.

    Examples:
        >>> parse_distribution("Uniform(0, 1/2)").mean.item()
        0.25
    """
    return _Reader(text).read()


class _Reader:
    """Walks the syntax tree of one text; one method for each rule of the grammar."""

    def __init__(self, text: str):
        self.text = text
        self.start = len(text) - len(text.lstrip())
        self.lines = text[self.start :].rstrip().split("\n")

    def fail(self, message: str, at: ast.expr | int) -> NoReturn:
        """Raise with the text and a caret below a node or a character."""
        place = at if isinstance(at, int) else self.place(at.lineno, at.col_offset)
        lines = "".join(character if character.isprintable() else " " for character in self.text)
        if len(lines) > 200:  # a window around the fault
            first = max(0, min(place - 100, len(lines) - 200))
            lines, place = lines[first : first + 200], place - first
        raise ConfigurationError(f"{message}\n  {lines}\n  {' ' * place}^")

    def place(self, line: int, column: int) -> int:
        """Index into the text from a line and a column in bytes, as `ast` counts them."""
        before = sum(len(part) + 1 for part in self.lines[: line - 1])
        current = self.lines[line - 1] if line <= len(self.lines) else ""
        return self.start + before + len(current.encode()[:column].decode(errors="ignore"))

    def read(self) -> td.Distribution:
        if len(self.text) > _LONGEST:
            raise ConfigurationError(f"the expression has {len(self.text)} characters; at most {_LONGEST} are read")
        depth = 0
        for at, character in enumerate(self.text):
            depth += (character in "([{") - (character in ")]}")
            if depth > _DEEPEST:
                self.fail(f"brackets are nested more than {_DEEPEST} deep", at)
        if not self.text.strip():
            self.fail("here must be the name of a distribution, such as Normal(0, 1)", 0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse("\n".join(self.lines), mode="eval")
        except SyntaxError as error:
            line, column = error.lineno or 1, max(0, (error.offset or 1) - 1)
            before = sum(len(part) + 1 for part in self.lines[: line - 1])
            reason = (error.msg or "invalid syntax").split(". Perhaps")[0]
            self.fail(f"this is not a distribution, such as Normal(0, 1): {reason}", self.start + before + column)
        except (ValueError, RecursionError, MemoryError) as error:
            self.fail(f"this cannot be read: {error}", self.start)
        return self.distribution(tree.body)

    def distribution(self, node: ast.expr) -> td.Distribution:
        name_node = node.func if isinstance(node, ast.Call) else node
        if not isinstance(name_node, ast.Name):
            self.fail("here must be the name of a distribution, such as Normal(0, 1)", node)
        name = name_node.id
        if name != "Mixture" and name not in _DISTRIBUTIONS:
            self.fail(
                f"no distribution is named {name[:40]!r}. {nearest(name[:40], ['Mixture', *_DISTRIBUTIONS])}",
                name_node,
            )
        if not isinstance(node, ast.Call):
            example = _DISTRIBUTIONS[name].signature if name in _DISTRIBUTIONS else "0.3*Normal(-2,1) + 0.7*Normal(2,1)"
            self.fail(f"'(' must follow, as in {name}({example})", node)
        return self.mixture(node) if name == "Mixture" else self.simple(name, node)

    def mixture(self, node: ast.Call) -> td.Distribution:
        if len(node.args) != 1 or node.keywords:
            self.fail("a mixture is a sum, as in Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,1))", node)
        terms, rest = [], node.args[0]
        while isinstance(rest, ast.BinOp) and isinstance(rest.op, ast.Add):
            terms.append(rest.right)
            rest = rest.left
        weights, parts = [], []
        for term in [rest, *reversed(terms)]:
            if not isinstance(term, ast.BinOp) or not isinstance(term.op, ast.Mult):
                self.fail("here must be a number, '*' and a distribution, as in 0.3*Normal(0,1)", term)
            weights.append(self.number(term.left))
            if weights[-1] < 0:
                self.fail("the weight of a component must be >= 0", term.left)
            parts.append(self.distribution(term.right))
        return self.build(lambda: Mixture(torch.tensor(weights, dtype=torch.float64), parts), node)

    def simple(self, name: str, node: ast.Call) -> td.Distribution:
        entry = _DISTRIBUTIONS[name]
        given = self.arguments(name, entry, node)
        missing = [p.name for p in entry.parameters if p.name not in given and p.default is None and not p.optional]
        if missing:
            end = self.place(node.end_lineno or 1, (node.end_col_offset or 1) - 1)
            self.fail(f"{name}({entry.signature}) lacks {' and '.join(missing)}", end)
        values = {p.name: self.tensor(p, given[p.name]) for p in entry.parameters if p.name in given}
        defaults = {
            p.name: torch.tensor(p.default, dtype=torch.float64) for p in entry.parameters if p.default is not None
        }
        values = {**defaults, **values}
        lengths = {len(values[p.name]) for p in entry.parameters if p.dimensions == 0 and values[p.name].dim()}
        if len(lengths) > 1:
            self.fail(f"the lists in {name}(…) have different lengths: {', '.join(map(str, sorted(lengths)))}", node)
        if lengths:
            values = {key: value.expand(*lengths) for key, value in values.items()}
            return self.build(lambda: td.Independent(entry.make(**values), 1), node)
        return self.build(lambda: entry.make(**values), node)

    def arguments(self, name: str, entry: _Entry, node: ast.Call) -> dict[str, ast.expr]:
        """The values given, by the names of their parameters."""
        names = [p.name for p in entry.parameters]
        if len(node.args) > len(names):
            plural = "s" * (len(names) > 1)
            self.fail(f"{name} takes {len(names)} parameter{plural}: {', '.join(names)}", node.args[len(names)])
        given = dict(zip(names, node.args, strict=False))
        for starred in node.args:
            if isinstance(starred, ast.Starred):
                self.fail("here must be a number, a list of numbers, or parameter=value", starred)
        for keyword in node.keywords:
            at = self.place(keyword.lineno, keyword.col_offset)
            if keyword.arg not in names:
                self.fail(f"{name} has no parameter {keyword.arg!r}. {nearest(keyword.arg or '**', names)}", at)
            if keyword.arg in given:
                self.fail(f"{keyword.arg} is given twice", at)
            given[keyword.arg] = keyword.value
        return given

    def value(self, node: ast.expr, depth: int = 0) -> Any:
        if not isinstance(node, ast.List):
            return self.number(node)
        if depth > 1:
            self.fail("lists are nested at most two deep", node)
        return [self.value(item, depth + 1) for item in node.elts]

    def number(self, node: ast.expr) -> float:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            above, below = self.decimal(node.left), self.decimal(node.right)
            if below == 0:
                self.fail("here must be a number other than 0, to divide by", node.right)
            return self.limited(above / below, node)
        return self.decimal(node)

    def decimal(self, node: ast.expr) -> float:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
            return (-1 if isinstance(node.op, ast.USub) else 1) * self.decimal(node.operand)
        if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
            self.fail("here must be a number, a list of numbers, or parameter=value", node)
        return self.limited(node.value, node)  # pyright: ignore[reportArgumentType]

    def limited(self, value: float, node: ast.expr) -> float:
        if value != 0 and not _SMALLEST <= abs(value) <= _LARGEST:
            self.fail(f"numbers must be 0 or between {_SMALLEST:g} and {_LARGEST:g} in size", node)
        return float(value)

    def tensor(self, parameter: _Parameter, node: ast.expr) -> Tensor:
        """The value of a parameter as a float64 tensor; its shape and range are checked."""
        value = self.value(node)
        try:
            tensor = torch.tensor(value, dtype=torch.float64)
        except (TypeError, ValueError):
            self.fail(f"the lists in {parameter.name} have different lengths", node)
        allowed = {0: (0, 1), 1: (1,), 2: (2,), -1: (1, 2)}[parameter.dimensions]
        if tensor.dim() not in allowed or tensor.numel() == 0:
            shape = {0: "a number or a list", 1: "a list", 2: "a list of lists", -1: "a list, or a list of lists"}
            self.fail(f"{parameter.name} must be {shape[parameter.dimensions]}", node)
        if not parameter.valid(tensor):
            self.fail(f"{parameter.name} must {parameter.range}", node)
        return tensor

    def build(self, make: Callable[[], td.Distribution], node: ast.expr) -> td.Distribution:
        try:
            return make()
        except ConfigurationError as error:
            self.fail(str(error), node)
