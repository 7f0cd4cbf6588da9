"""The protocol of a score: everything about how it was made that must agree for two scores to be compared."""

from __future__ import annotations

__all__ = ["Protocol", "protocol_text", "require_comparable", "same_protocol"]

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from latentia.errors import DataError
from latentia.estimate import Estimate

AS_GIVEN = "as given"
NOISELESS = "G(z)"  # a generator without observation noise: its mean and its sample of p(x|z) are equal


@dataclass(frozen=True)
class Protocol:
    """How a score was made. It is stored in `Estimate.settings["protocol"]`, as a mapping.

    Attributes:
        real: sha256 of the real images that the subset was taken from.
        split: the part of the data that they belong to.
        n_real: how many of them were used.
        n_fake: how many samples were used.
        size: of an image, such as 1×28×28.
        resize: how the features resize it.
        quantization: of both sets of images.
        features: the setting.
        features_hash: sha256 of the features' weights.
        seed: of the subset of images, and of a metric that samples.
        reals: `gray`, `color`, or `binary` (0 and 255 alone), as the real images are; `values` of tables and signals.
        samples: what was scored: `means of p(x|z)`, `draws of p(x|z)`, `G(z)`, or `as given`. The means of a Bernoulli
            decoder are gray and smooth, its draws binary and speckled, so their scores cannot be compared.
        metric: the metric's setting.
    """

    real: str
    split: str
    n_real: int
    n_fake: int
    size: str
    resize: str
    quantization: str
    features: Mapping[str, Any]
    features_hash: str
    seed: int
    reals: str = "gray"
    samples: str = AS_GIVEN
    metric: Mapping[str, Any] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """The protocol as plain data."""
        return asdict(self)


def same_protocol(first: Estimate, second: Estimate) -> bool:
    """Whether two scores, possibly by different metrics, were made from the same images and features."""
    protocols = [dict(estimate.settings.get("protocol", {})) for estimate in (first, second)]
    for protocol in protocols:
        protocol.pop("metric", None)
    return bool(protocols[0]) and protocols[0] == protocols[1]


def require_comparable(estimates: Iterable[Estimate]) -> None:
    """Check that these scores may be compared in one row of a table.

    Raises:
        DataError: names what differs between the first and another.
    """
    first, *others = estimates
    for other in others:
        differences = _differences(first, other)
        if differences:
            raise DataError(
                f"these two {first.name} cannot be compared: {'; '.join(differences)}. Score both again with one "
                "protocol"
            )


def protocol_text(protocol: Mapping[str, Any]) -> str:
    """A protocol on one line, for captions."""
    if protocol.get("reals") == "values":  # of tables and signals
        return (
            f"{protocol['n_real']} real examples ({protocol['split']}) and {protocol['n_fake']} samples "
            f"({protocol.get('samples', AS_GIVEN)}) of {protocol['size']}, standardized; seed {protocol['seed']}"
        )
    return (
        f"{protocol['n_real']} {protocol.get('reals', 'gray')} real images ({protocol['split']}) and "
        f"{protocol['n_fake']} fake ones ({protocol.get('samples', AS_GIVEN)}), {protocol['size']}, "
        f"{protocol['quantization']}; features {protocol['features']['type']} {protocol['features_hash'][:8]}, "
        f"resize {protocol['resize']}; seed {protocol['seed']}"
    )


def _differences(first: Estimate, second: Estimate) -> list[str]:
    """What differs between the protocols of two scores, in words.

    A generator without noise gives the mean and the sample of p(x|z) at once, so `G(z)` is comparable with either.
    """
    if first.name != second.name:
        return [f"the score is {first.name} in one and {second.name} in the other"]
    protocols = [estimate.settings.get("protocol") for estimate in (first, second)]
    if not all(isinstance(protocol, Mapping) for protocol in protocols):
        return [f"one of the two {first.name} has no protocol, so nothing is known of how it was made"]
    one, other = ({str(key): value for key, value in p.items()} for p in protocols if isinstance(p, Mapping))
    keys = [*one, *(key for key in other if key not in one)]
    return [
        f"{key} is {one.get(key)!r} in one and {other.get(key)!r} in the other"
        for key in keys
        if one.get(key) != other.get(key) and not (key == "samples" and NOISELESS in (one.get(key), other.get(key)))
    ]
