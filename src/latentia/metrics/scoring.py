"""Scores of samples against real images, with the protocol of each score and two reference values.

The *real-vs-real* value is the same score for real images in place of the samples, equally many and disjoint from the
others: what a perfect model scores at this n. The *train-vs-test* value is the score of the training images: what a
model that copies them scores. A model that scores better than either fits the features, not the data.

*Means or draws.* A VAE's p(x|z) is a distribution. Its *means* E[x|z] are smooth gray images; its *draws* include the
pixel noise. Means are scored against the gray images of the data, whatever the run was trained on; draws are scored
against images binarized like those of the run. G(z) of a GAN has no observation noise, so mean and draw are equal. The
protocol of each score names which of them was used.
"""

from __future__ import annotations

__all__ = [
    "Labels",
    "Output",
    "ProgressCallback",
    "Scores",
    "default_features",
    "draw_samples",
    "reference_images",
    "score",
]

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from latentia.data import Source, Splits
from latentia.errors import ConfigurationError, DataError, UnsupportedError, nearest
from latentia.estimate import Estimate
from latentia.metrics.features import (
    Classifier,
    Features,
    RandomConvolutional,
    cached_features,
    check_images,
    content_hash,
)
from latentia.metrics.metric import Metric, MetricInputs
from latentia.metrics.protocol import AS_GIVEN, NOISELESS, Protocol

DEFAULT_FEATURES = RandomConvolutional()
_AT_ONCE = 500
_CLASSIFIED = ("mnist", "mnist-5k", "digits")  # data whose classes the shipped classifier knows
_UNSEEN = ("validation", "test")
_QUANTIZATION = "8 bits"

ProgressCallback = Callable[[int, int, str], None]  # pieces done, pieces in all, the next piece
Output = Literal["means", "draws"]


class Scores(list[Estimate]):
    """A list of estimates, and why metrics that were not asked for by name are missing from it.

    Attributes:
        skipped: the reason for each metric that cannot serve these images.
    """

    def __init__(self, estimates: Iterable[Estimate] = (), skipped: Mapping[str, str] | None = None):
        super().__init__(estimates)
        self.skipped = dict(skipped or {})


class Labels(NamedTuple):
    """The labels of the images that are scored, int64, (N,) each; None where they are not known."""

    real: Tensor | None = None
    fake: Tensor | None = None
    train: Tensor | None = None


def default_metrics(features: Features, train: bool, labels: bool = False) -> list[Metric]:
    """Every metric that these features and data allow."""
    has_classes = type(features).probabilities is not Features.probabilities
    return [
        member()
        for member in Metric.members().values()
        if (train or not member.needs_train)
        and (has_classes or not member.needs_classes)
        and (labels or not member.needs_labels)
        and not member.needs_columns
    ]


def quantize(images: Tensor, name: str = "the images") -> Tensor:
    """Images as uint8, so that both sets have the same 256 levels.

    Raises:
        DataError: see `check_images`; or for images so dark that they were divided by 255 twice or hold bytes 0 and 1.
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
    real_vs_real: bool = True,
    split: str = "not stated",
    samples: str = AS_GIVEN,
    labels: Labels | None = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Scores:
    """Score samples against real images.

    Args:
        real: (N, C, H, W), uint8 or floats in [0, 1]; images that the model was not trained on.
        fake: (M, C, H, W), likewise.
        metrics: members of `Metric` or their names; all that the features and data allow, if not given; those that
            then turn out to need more images are left out and listed in `skipped`.
        features: a member of `Features` or its name.
        train: the images that the model was trained on, for memorization and the train-vs-test scores.
        n: number of real and of fake images; as many as there are, if not given, and with `real_vs_real` at most half
            of the real ones.
        real_vs_real: also score real images against real ones.
        split: the part of the data that `real` belongs to, for the protocol.
        samples: what `fake` is, for the protocol; see `Protocol`.
        labels: of all images, for metrics of class-conditional samples.
        seed: of the subsets of images, and of metrics that sample.
        progress: is called before each piece of work with the numbers of pieces done and in all, and a name.

    Returns:
        Each score; then, named `…/real_vs_real` and `…/train_vs_test`, those of real and of training images. Each has
        its protocol in `settings["protocol"]`.

    Raises:
        DataError: images of another range, of different sizes, too few (the message states how many are needed),
            constant, or not finite.
        ConfigurationError: an unknown metric or unknown features.
        UnsupportedError: a named metric that these features or data do not allow.
    """
    seen: Features = parsed(Features, features, "features")
    labels = labels or Labels()
    pixels = {"real": quantize(real, "the real images"), "fake": quantize(fake, "the fake images")}
    if train is not None:
        pixels["train"] = quantize(train, "the training images")
    _require_same_size(pixels)
    chosen = (
        default_metrics(seen, train is not None, labels.real is not None and labels.fake is not None)
        if metrics is None
        else [parsed(Metric, m, "metrics") for m in metrics]
    )
    size = how_many(n, len(real), len(fake), real_vs_real)
    order = {name: order_of(len(images), seed, name) for name, images in pixels.items()}
    rows = {"real": order["real"][:size], "fake": order["fake"][:size], "other": order["real"][size : 2 * size]}
    with_train = train is not None and len(train) >= size
    pieces = count(0)
    total = 1 + len(chosen) * (1 + real_vs_real + with_train)

    def begin(what: str) -> None:
        if progress is not None:
            progress(next(pieces), total, what)

    begin("features")
    real_features, fake_features = cached_features(seen, pixels["real"]), seen(pixels["fake"][rows["fake"]])
    train_features = cached_features(seen, pixels["train"]) if train is not None else None
    refuse_constant(fake_features)
    protocol = Protocol(
        real=content_hash(pixels["real"]),
        split=split,
        n_real=size,
        n_fake=size,
        size="×".join(map(str, real.shape[1:])),
        resize=seen.resized_to(*real.shape[2:]),
        quantization=_QUANTIZATION,
        features=seen.to_mapping(),
        features_hash=seen.fingerprint(),
        seed=seed,
        reals=_levels(pixels["real"]),
        samples=samples,
    )

    skipped: dict[str, str] | None = {} if metrics is None else None

    def scores(
        other: Tensor, other_images: Callable[[], Tensor], other_labels: Tensor | None, suffix: str
    ) -> list[Estimate]:
        def labeled() -> tuple[Tensor, Tensor, Tensor, Tensor]:
            own, others = cast(Tensor, labels.real)[rows["real"]], cast(Tensor, other_labels)
            return pixels["real"][rows["real"]], own, other_images(), others

        def probabilities() -> tuple[Tensor, Tensor]:
            return seen.probabilities(pixels["real"][rows["real"]]), seen.probabilities(other_images())

        known = labeled if labels.real is not None and other_labels is not None else None
        inputs = MetricInputs(seen, real_features[rows["real"]], other, train_features, probabilities, seed, known)
        return list(with_protocols(chosen, inputs, protocol, suffix, begin, skipped))

    def labels_at(of: Tensor | None, chosen: Tensor) -> Tensor | None:
        return None if of is None else of[chosen]

    own = labels_at(labels.fake, rows["fake"])
    found = Scores(scores(fake_features, lambda: pixels["fake"][rows["fake"]], own, ""))
    if real_vs_real:
        own = labels_at(labels.real, rows["other"])
        found += scores(real_features[rows["other"]], lambda: pixels["real"][rows["other"]], own, "/real_vs_real")
    if train_features is not None and with_train:
        known = order["train"][:size]
        own = labels_at(labels.train, known)
        found += scores(train_features[known], lambda: pixels["train"][known], own, "/train_vs_test")
    found.skipped = skipped or {}
    if progress is not None:
        progress(total, total, "")
    return found


@dataclass(frozen=True)
class Reference:
    """Real images, uint8 (N, C, H, W), their split, the training images, the hash of the data, and labels of both."""

    images: Tensor
    split: str
    train: Tensor | None
    data_hash: str
    labels: Tensor | None = None
    train_labels: Tensor | None = None


def default_features(data: str) -> Features:
    """Those of the shipped classifier for digits, random convolutional ones for other data, by the name of the data."""
    return Classifier() if data in _CLASSIFIED else DEFAULT_FEATURES


def reference_images(source: Source, split: str = "test", output: Output = "means") -> Reference:
    """The real images to score samples against: gray for means, binarized like those of the run for draws.

    Args:
        source: the run's data setting.
        split: `validation`, for model selection, or `test`, for reports.
        output: what is scored.

    Raises:
        ConfigurationError: another split; images that the model was trained on are not a reference.
    """
    if split not in _UNSEEN:
        raise ConfigurationError(
            [
                (
                    "split",
                    f"samples are scored against images that the model was not trained on: validation (for selection) "
                    f"or "
                    f"test (for reports), not {split!r}. {nearest(split, _UNSEEN)}",
                )
            ]
        )
    how = "none" if output == "means" else {"dynamic": "static"}.get(source.binarize, source.binarize)
    splits: Splits = source.model_copy(update={"binarize": how}).load()
    part, train = getattr(splits, split), splits.train.in_memory()
    return Reference(part.x, split, train.x, splits.content_hash, part.labels, train.labels)


@torch.no_grad()
def draw_samples(
    model: nn.Module,
    n: int,
    *,
    output: Output = "means",
    progress: ProgressCallback | None = None,
    labels: Tensor | None = None,
) -> tuple[Tensor, str]:
    """n images from a model, floats (n, C, H, W) in [0, 1] on the CPU, and what they are, for the protocol.

    Args:
        model: with `sample(n)`; one with `sample(n, mean=…)` has observation noise, and gives its means or its draws.
        n: the number of images.
        output: `means` or `draws`; a generator without noise ignores it.
        progress: is called before each part with the number of images so far, n, and a name.
        labels: (n,), for a class-conditional model; drawn by the model if not given.
    """
    noisy = "mean" in inspect.signature(model.sample).parameters  # pyright: ignore[reportArgumentType]
    options: dict[str, Any] = {"mean": output == "means"} if noisy else {}
    parts = []
    for start in range(0, n, _AT_ONCE):
        if progress is not None:
            progress(start, n, "samples")
        count = min(_AT_ONCE, n - start)
        own = options if labels is None else {**options, "labels": labels[start : start + count]}
        parts.append(model.sample(count, **own).cpu())  # pyright: ignore[reportCallIssue]
    return torch.cat(parts), f"{output} of p(x|z)" if noisy else NOISELESS


def with_protocols(
    metrics: Sequence[Metric],
    inputs: MetricInputs,
    protocol: Protocol,
    suffix: str,
    begin: Callable[[str], None],
    skipped: dict[str, str] | None,
) -> Iterable[Estimate]:
    for metric in metrics:
        begin(f"{metric.type_name}{suffix}")
        settings = replace(protocol, metric=metric.to_mapping()).to_mapping()
        try:
            estimates = metric(inputs)
        except (DataError, UnsupportedError) as error:
            if skipped is None:
                raise
            skipped[metric.type_name] = str(error)
            continue
        for estimate in estimates:
            yield replace(
                estimate, name=f"{estimate.name}{suffix}", settings={**estimate.settings, "protocol": settings}
            )


def parsed(family: Any, value: Any, key: str) -> Any:
    try:
        return family.parse(value)
    except ConfigurationError as error:
        raise ConfigurationError([(key, str(error))]) from None


def _require_same_size(pixels: dict[str, Tensor]) -> None:
    shapes = {name: tuple(images.shape[1:]) for name, images in pixels.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"the {name} ones are {shape}" for name, shape in shapes.items())
        raise DataError(f"the images have different sizes (C, H, W): {listed}. Resize one set to the size of the other")


def how_many(n: int | None, real: int, fake: int, real_vs_real: bool) -> int:
    most, without = min(real // 2 if real_vs_real else real, fake), min(real, fake)
    if without < 2:
        raise DataError(f"there are {real} real and {fake} other images; give at least 2 of each, or better thousands")
    size = most if n is None else n
    if not 1 <= size <= most:
        halved = " (half of them for real against real)" if real_vs_real else ""
        needed = f"{size * 2 if real_vs_real else size} real images{halved} and {size} fake ones"
        cure = f"give at most {most}"
        if without > most:
            cure += (
                f", or at most {without} without real against real (--no-real-vs-real, in Python real_vs_real=False)"
            )
        raise DataError(f"n = {size} takes {needed}, and there are {real} and {fake}; {cure}")
    return size


def order_of(length: int, seed: int, name: str) -> Tensor:
    """A fixed permutation; that of the fake images differs from that of the real ones."""
    generator = torch.Generator().manual_seed(2 * seed + (name == "fake"))
    return torch.randperm(length, generator=generator)


def _levels(pixels: Tensor) -> str:
    """The levels of the real images, for the protocol."""
    if bool(((pixels == 0) | (pixels == 255)).all()):
        return "binary"
    return "gray" if pixels.shape[1] == 1 else "color"


def refuse_constant(features: Tensor) -> None:
    if len(features) > 1 and bool((features == features[0]).all()):
        raise DataError(
            f"all {len(features)} samples have the same features: the model has collapsed to one image, or the "
            "images differ in nothing that these features detect"
        )
