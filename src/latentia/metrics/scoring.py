"""Scores of samples beside real images: one call, every figure with its card, its floor and its train-against-test
value.

*The floor* is the same figure for real images in the place of the fake ones, as many and none of them among the others:
what a perfect model would get at this n. *Train against test* is that for the training images: what a model that has
learned them by heart would get. A model that scores better than either has not beaten the data; it fits the features.
"""

from __future__ import annotations

__all__ = ["DEFAULT_FEATURES", "Tell", "default_metrics", "quantize", "score"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from latentia.errors import ConfigurationError, DataError
from latentia.estimate import Estimate
from latentia.metrics.cache import cached_features, content_hash
from latentia.metrics.card import AS_GIVEN, Card
from latentia.metrics.features import Features, RandomConvolutional, check_images
from latentia.metrics.metrics import Evidence, Metric

DEFAULT_FEATURES = RandomConvolutional()
QUANTIZATION = "8 bits"

Tell = Callable[[int, int, str], None]


def default_metrics(features: Features, train: bool) -> list[Metric]:
    """Every metric that these features and data can serve."""
    knows_classes = type(features).probabilities is not Features.probabilities
    return [
        member()
        for member in Metric.members().values()
        if (train or not member.needs_train) and (knows_classes or not member.needs_classes)
    ]


def quantize(images: Tensor, name: str = "the images") -> Tensor:
    """Images as uint8, so that both sets have the same 256 levels.

    Raises:
        DataError: see `check_images`; and for images so dark that they were scaled twice or hold 0 and 1 as bytes.
    """
    check_images(images, name)
    pixels = images if images.dtype == torch.uint8 else (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    brightest = int(pixels.max())
    if brightest == 1:
        raise DataError(
            f"{name} have no value above {'1 of 255' if images.dtype == torch.uint8 else '1/255'}: multiply bytes of 0 "
            "and 1 by 255, and divide floats by 255 only once"
        )
    return pixels


def score(
    real: Tensor,
    fake: Tensor,
    *,
    metrics: Sequence[Metric | str] | None = None,
    features: Features | str = DEFAULT_FEATURES,
    train: Tensor | None = None,
    n: int | None = None,
    floor: bool = True,
    split: str = "not stated",
    samples: str = AS_GIVEN,
    seed: int = 0,
    tell: Tell | None = None,
) -> list[Estimate]:
    """Score samples against real images.

    Args:
        real: (N, C, H, W), uint8 or floats in [0, 1]; images that the model was not trained on.
        fake: (M, C, H, W), likewise.
        metrics: members of `Metric` or their names; all that can be served if not given.
        features: a member of `Features` or its name.
        train: the images that the model was trained on, for memorization and the train-against-test figures.
        n: how many real and how many fake images; as many as there are, if not given, and with a floor at most half of
            the real ones.
        floor: also score real images against real ones.
        split: which part of the data `real` is, for the card.
        samples: what of a model `fake` is, for the card; see there.
        seed: of the draw of images, and of metrics that draw.
        tell: is called before each piece of work with the number of pieces done, that of all, and what comes.

    Returns:
        Each figure; then, named `…/floor` and `…/train_vs_test`, what real and training images get in its place. Each
        has its card in `settings["card"]`.

    Raises:
        DataError: for images of another range, of different sizes, too few (saying how many it takes), constant, not
        finite. ConfigurationError: for a metric or features that are not known.
        UnsupportedError: for a metric that these features or data cannot serve.
    """
    seen: Features = _parsed(Features, features, "features")
    pixels = {"real": quantize(real, "the real images"), "fake": quantize(fake, "the fake images")}
    if train is not None:
        pixels["train"] = quantize(train, "the training images")
    _require_same_size(pixels)
    chosen = (
        default_metrics(seen, train is not None)
        if metrics is None
        else [_parsed(Metric, m, "metrics") for m in metrics]
    )
    size = _how_many(n, len(real), len(fake), floor)
    order = {name: _order(len(images), seed, name) for name, images in pixels.items()}
    rows = {"real": order["real"][:size], "fake": order["fake"][:size], "floor": order["real"][size : 2 * size]}
    with_train = train is not None and len(train) >= size
    pieces = count(0)
    total = 1 + len(chosen) * (1 + floor + with_train)

    def begin(what: str) -> None:
        if tell is not None:
            tell(next(pieces), total, what)

    begin("features")
    real_features, fake_features = cached_features(seen, pixels["real"]), seen(pixels["fake"][rows["fake"]])
    train_features = cached_features(seen, pixels["train"]) if train is not None else None
    _refuse_constant(fake_features)
    card = Card(
        real=content_hash(pixels["real"]),
        split=split,
        n_real=size,
        n_fake=size,
        size="×".join(map(str, real.shape[1:])),
        resize=seen.resized_to(*real.shape[2:]),
        quantization=QUANTIZATION,
        features=seen.to_mapping(),
        features_hash=seen.fingerprint(),
        seed=seed,
        reals=_levels(pixels["real"]),
        samples=samples,
    )

    def figures(other: Tensor, other_images: Callable[[], Tensor], suffix: str) -> list[Estimate]:
        def probabilities() -> tuple[Tensor, Tensor]:
            return seen.probabilities(pixels["real"][rows["real"]]), seen.probabilities(other_images())

        evidence = Evidence(seen, real_features[rows["real"]], other, train_features, probabilities, seed)
        return list(_with_cards(chosen, evidence, card, suffix, begin))

    found = figures(fake_features, lambda: pixels["fake"][rows["fake"]], "")
    if floor:
        found += figures(real_features[rows["floor"]], lambda: pixels["real"][rows["floor"]], "/floor")
    if train_features is not None and with_train:
        known = order["train"][:size]
        found += figures(train_features[known], lambda: pixels["train"][known], "/train_vs_test")
    if tell is not None:
        tell(total, total, "")
    return found


def _with_cards(
    metrics: Sequence[Metric], evidence: Evidence, card: Card, suffix: str, begin: Callable[[str], None]
) -> Iterable[Estimate]:
    for metric in metrics:
        begin(f"{metric.type_name}{suffix}")
        settings = replace(card, metric=metric.to_mapping()).to_mapping()
        for estimate in metric(evidence):
            yield replace(estimate, name=f"{estimate.name}{suffix}", settings={**estimate.settings, "card": settings})


def _parsed(family: Any, value: Any, key: str) -> Any:
    try:
        return family.parse(value)
    except ConfigurationError as error:
        raise ConfigurationError([(key, str(error))]) from None


def _require_same_size(pixels: dict[str, Tensor]) -> None:
    shapes = {name: tuple(images.shape[1:]) for name, images in pixels.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"the {name} ones are {shape}" for name, shape in shapes.items())
        raise DataError(f"the images have different sizes (C, H, W): {listed}. Resize one set, and say so")


def _how_many(n: int | None, real: int, fake: int, floor: bool) -> int:
    most, without = min(real // 2 if floor else real, fake), min(real, fake)
    size = most if n is None else n
    if not 1 <= size <= most:
        halved = " (half of them for the floor)" if floor else ""
        needed = f"{size * 2 if floor else size} real images{halved} and {size} fake ones"
        cure = f"give at most {most}"
        if without > most:
            cure += f", or at most {without} without the floor (--no-floor, in Python floor=False)"
        raise DataError(f"n = {size} takes {needed}, and there are {real} and {fake}; {cure}")
    return size


def _order(length: int, seed: int, name: str) -> Tensor:
    """A fixed shuffling; that of the fake ones differs from that of the real ones."""
    generator = torch.Generator().manual_seed(2 * seed + (name == "fake"))
    return torch.randperm(length, generator=generator)


def _levels(pixels: Tensor) -> str:
    """What the real images are made of, for the card."""
    if bool(((pixels == 0) | (pixels == 255)).all()):
        return "binary"
    return "gray" if pixels.shape[1] == 1 else "color"


def _refuse_constant(features: Tensor) -> None:
    if len(features) > 1 and bool((features == features[0]).all()):
        raise DataError(
            f"all {len(features)} samples have the same features: the model has collapsed to one image, or these "
            "features see none of what differs"
        )
