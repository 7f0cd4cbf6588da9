"""The card of a score: everything about how it was made that must be the same in another for the two to be compared."""

from __future__ import annotations

__all__ = ["AS_GIVEN", "NOISELESS", "Card", "card_differences", "card_text", "require_comparable", "same_way"]

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from latentia.errors import DataError
from latentia.estimate import Estimate

AS_GIVEN = "as given"
NOISELESS = "G(z)"  # of a generator without noise of its own: mean and draw of p(x|z) are one


@dataclass(frozen=True)
class Card:
    """How a score was made. It stands in `Estimate.settings["card"]`, as a mapping.

    Attributes:
        real: sha256 of the real images that were drawn from.
        split: which part of the data those are.
        n_real: how many of them were used.
        n_fake: how many samples were.
        size: of an image, such as 1×28×28.
        resize: what the features did to that.
        quantization: of both sets of images.
        reals: `gray`, `color`, or `binary` (0 and 255 alone), as the real images are.
        samples: what of the model was scored: `means of p(x|z)`, `draws of p(x|z)`, `G(z)`, or `as given`. The means of
            a Bernoulli decoder are gray and smooth, its draws binary and speckled, so their figures are not one figure.
        features: the setting.
        features_hash: sha256 of the features' weights.
        seed: of the draw of images, and of a metric that draws.
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
        """The card as plain data."""
        return asdict(self)


def card_differences(first: Estimate, second: Estimate) -> list[str]:
    """What differs between the cards of two scores, in words; nothing where they can be compared.

    A generator without noise gives the mean and the draw of p(x|z) at once, so `G(z)` may stand beside either.
    """
    if first.name != second.name:
        return [f"the figure is {first.name} in one and {second.name} in the other"]
    cards = [estimate.settings.get("card") for estimate in (first, second)]
    if not all(isinstance(card, Mapping) for card in cards):
        return [f"{first.name} has no card in one of them, so nothing is known of how it was made"]
    one, other = ({str(key): value for key, value in card.items()} for card in cards if isinstance(card, Mapping))
    keys = [*one, *(key for key in other if key not in one)]
    return [
        f"{key} is {one.get(key)!r} in one and {other.get(key)!r} in the other"
        for key in keys
        if one.get(key) != other.get(key) and not (key == "samples" and NOISELESS in (one.get(key), other.get(key)))
    ]


def same_way(first: Estimate, second: Estimate) -> bool:
    """Whether two scores, maybe by different metrics, were made of the same images and features."""
    cards = [dict(estimate.settings.get("card", {})) for estimate in (first, second)]
    for card in cards:
        card.pop("metric", None)
    return bool(cards[0]) and cards[0] == cards[1]


def require_comparable(estimates: Iterable[Estimate]) -> None:
    """See that these scores may stand in one row of a table.

    Raises:
        DataError: naming what differs between the first and another.
    """
    first, *others = estimates
    for other in others:
        differences = card_differences(first, other)
        if differences:
            raise DataError(
                f"these two {first.name} cannot be compared: {'; '.join(differences)}. Score both again in one way"
            )


def card_text(card: Mapping[str, Any]) -> str:
    """A card on one line, for captions."""
    return (
        f"{card['n_real']} {card.get('reals', 'gray')} real images ({card['split']}) and {card['n_fake']} fake ones "
        f"({card.get('samples', AS_GIVEN)}), {card['size']}, {card['quantization']}; features "
        f"{card['features']['type']} {card['features_hash'][:8]}, resize {card['resize']}; seed {card['seed']}"
    )
