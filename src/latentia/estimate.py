"""One number with what is needed to read it.

Every number that latentia evaluates is an `Estimate`: a value with its standard error, its unit, its kind (how far the
value can be trusted) and the method that made it with its settings. Two estimates *agree* when they
differ by no more than their errors allow; the theory checks use that test and no fixed tolerances.
"""

from __future__ import annotations

__all__ = ["Estimate", "Kind", "estimates_to_json", "exact", "read_estimates", "write_estimates"]

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, get_args

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from latentia.errors import RunError
from latentia.files import atomic_write, read_json

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["exact", "proven", "numerical", "lower bound", "upper bound", "estimate"]

# Two float64 results of a few thousand operations each may differ by this much, relatively, and still be equal.
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its meaning.

    Attributes:
        value: the number; may be ±inf (KL between distributions without absolute continuity is +inf), never NaN.
        name: what it is the value of, such as `log_likelihood`.
        stderr: standard error, in the same unit; None where nothing is random, +inf where the draws have no finite
            variance. For an exact value per
            image averaged over a sample of images, it is the standard error over the images, and
            `settings["stderr_over"]` is `"images"`.
        n: the number of draws, images or evaluations behind it; None where that has no meaning.
        unit: `nats`, `bits`, `bits/dimension`, `1` for pure numbers, …
        kind: how far the value can be trusted. `exact`: a closed form or a finite sum, with rounding errors alone;
            `proven`: the middle of a rigorous enclosure, rounding included; `numerical`: by quadrature, with an error
            that rests on what the method saw; `lower bound`, `upper bound`: a known side, in expectation where there
            is a standard error; `estimate`: everything else.
        method: such as `closed form`, `quadrature`, `monte carlo`.
        settings: the method's settings. `settings["error"]`, where present, is the numerical error (quadrature,
            floating point), in the unit of the value: a bound, which `kind` says how far to trust.
            `settings["warning"]` and `settings["reason"]` explain a value in words.
    """

    value: float
    name: str = ""
    stderr: float | None = None
    n: int | None = None
    unit: str = "nats"
    kind: Kind = "estimate"
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise ValueError(f"the estimate {self.name or self.method!r} is not a number (NaN)")
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind is {self.kind!r}; it must be one of {', '.join(get_args(Kind))}")
        if self.stderr is not None and not self.stderr >= 0:
            raise ValueError(f"the standard error of {self.name!r} is {self.stderr}; it must be at least 0")

    @classmethod
    def mean(cls, values: Tensor, *, name: str = "", method: str = "monte carlo", **fields: Any) -> Estimate:
        """Mean of independent values with its standard error s/√n.

        Args:
            values: any shape, at least two numbers. One infinity makes the mean infinite, without a standard error;
                infinities of both signs have no mean.
            name: what the mean is an estimate of.
            method: how the values were made.
            **fields: the other attributes of the estimate.

        Raises:
            ValueError: fewer than two values, or a mean that is not a number.
        """
        flat = values.detach().double().flatten()
        n = flat.numel()
        if n < 2:
            raise ValueError(f"a mean with a standard error needs at least 2 values, and there are {n}")
        mean = flat.mean().item()
        stderr = flat.std().item() / math.sqrt(n) if math.isfinite(mean) else None
        return cls(mean, name=name, stderr=stderr, n=n, method=method, **fields)

    @property
    def is_two_sided(self) -> bool:
        """Whether the value is known from both sides: exact, proven or numerical."""
        return self.kind in ("exact", "proven", "numerical")

    @property
    def error(self) -> float:
        """The numerical error, in the unit of the value; 0 where none is recorded."""
        return float(self.settings.get("error", 0.0))

    def slack(self, other: Estimate | float = 0.0, sigmas: float = 5.0) -> float:
        """How far the two may lie apart and still agree: `sigmas` joint standard errors, numerical errors, rounding."""
        other = other if isinstance(other, Estimate) else exact(other)
        random = sigmas * math.hypot(self.stderr or 0.0, other.stderr or 0.0)
        finite = [abs(v) for v in (self.value, other.value) if math.isfinite(v)]
        return random + self.error + other.error + ROUNDING * max([1.0, *finite])

    def agrees_with(self, other: Estimate | float, *, sigmas: float = 5.0) -> bool:
        """Whether the two may be the same number, given both their errors."""
        other = other if isinstance(other, Estimate) else exact(other)
        if math.isinf(self.value) or math.isinf(other.value):
            return self.value == other.value
        return abs(self.value - other.value) <= self.slack(other, sigmas)

    def at_most(self, other: Estimate | float, *, sigmas: float = 5.0) -> bool:
        """Whether this may be no greater than the other, given both their errors."""
        other = other if isinstance(other, Estimate) else exact(other)
        return self.value <= other.value or self.agrees_with(other, sigmas=sigmas)

    def named(self, name: str) -> Estimate:
        """The same number under another name."""
        return replace(self, name=name)

    def __str__(self) -> str:
        unit = "" if self.unit == "1" else f" {self.unit}"
        sign = {"lower bound": "≥ ", "upper bound": "≤ "}.get(self.kind, "")
        return f"{sign}{_digits(self.value, self.stderr or self.error or None)}{unit}"

    def _repr_html_(self) -> str:
        return f"<b>{escape(self.name or self.method)}</b>: {escape(str(self))} <small>({escape(self._origin)})</small>"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(f"{self.name or self.method}: {self} ({self._origin})")

    @property
    def _origin(self) -> str:
        """Kind, method and number of draws, for readers."""
        return ", ".join([self.kind, *([self.method] if self.method else []), *([f"n = {self.n}"] if self.n else [])])

    def to_json(self) -> dict[str, Any]:
        """The estimate as a JSON object; values that are not finite become strings, so that any reader takes it."""
        return {
            "name": self.name,
            "value": _jsonable(self.value),
            "stderr": _jsonable(self.stderr),
            "n": self.n,
            "unit": self.unit,
            "kind": self.kind,
            "method": self.method,
            "settings": _jsonable(dict(self.settings)),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Estimate:
        """Inverse of `to_json`."""
        fields = dict(record)
        fields["value"] = float(fields["value"])
        fields["stderr"] = None if fields["stderr"] is None else float(fields["stderr"])
        return cls(**fields)


def exact(value: float, name: str = "", **fields: Any) -> Estimate:
    """A number known without error."""
    return Estimate(float(value), name=name, kind="exact", **{"method": "closed form", **fields})


def estimates_to_json(estimates: Iterable[Estimate]) -> str:
    """A JSON list of estimates, as every `--json` option prints it."""
    return json.dumps([e.to_json() for e in estimates], indent=2, allow_nan=False)


def write_estimates(path: Path, estimates: Iterable[Estimate]) -> None:
    """Write a JSON list of estimates to a file, whole or not at all, making its folder if need be.

    Raises:
        RunError: if the file cannot be written.
    """
    text = estimates_to_json(estimates) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_estimates(path: Path) -> list[Estimate]:
    """Read what `write_estimates` wrote.

    Raises:
        RunError: if the file is missing, or holds no list of estimates.
    """
    cure = "remove it and evaluate again"
    records = read_json(path, list[_Record], cure)
    try:
        return [Estimate.from_json(record) for record in records]
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}; {cure}") from None


@with_config(ConfigDict(extra="allow"))
class _Features(TypedDict):
    type: str


@with_config(ConfigDict(extra="allow"))
class _Protocol(TypedDict):
    """What tables print of a score's protocol; see `metrics/protocol.py`."""

    split: str
    n_real: int
    n_fake: int
    size: str
    resize: str
    quantization: str
    features: _Features
    features_hash: str
    seed: int
    reals: NotRequired[str]
    samples: NotRequired[str]
    metric: NotRequired[dict[str, Any]]


@with_config(ConfigDict(extra="allow"))
class _Settings(TypedDict, total=False):
    """The settings that are read back, among others."""

    error: float
    protocol: _Protocol


class _Record(TypedDict):
    """An estimate in JSON; numbers that are not finite are text."""

    name: str
    value: float
    stderr: float | None
    n: int | None
    unit: str
    kind: str
    method: str
    settings: _Settings


def _digits(value: float, error: float | None) -> str:
    """Digits down to the second one of the error: −133.730 ± 0.042; errors below 1e-9 as a power of ten."""
    if math.isinf(value):
        return "+∞" if value > 0 else "−∞"
    if not error:
        text = _plain(value)
    elif math.isinf(error):
        text = f"{_plain(value)} ± ∞"
    elif error < 1e-9:
        text = f"{value + 0.0:.10g} ± {error:.1e}"
    else:
        places = max(0, 1 - math.floor(math.log10(error)))
        text = f"{value + 0.0:.{places}f} ± {error:.{places}f}"
    return text.replace("-", "−")


def _plain(value: float) -> str:
    """Six digits; whole numbers in full, such as 1333010; two digits of what is nearly zero."""
    if value.is_integer() and abs(value) < 1e15:
        return f"{value + 0.0:.0f}"  # + 0.0 takes the sign off a negative zero
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    return f"{value:.10g}" if 1e6 <= abs(value) < 1e10 else f"{value:.6g}"


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value
