"""Features: the numbers that the metrics compare instead of pixels, and their cache.

A `Features` is a setting that does the work: `Classifier()(images)` is (N, D). None of them is trained on the data that
are scored. Scores on different features cannot be compared, so the protocol of each score names the features and the
hash of their weights.

Features of real images are cached in LATENTIA_CACHE or ~/.cache/latentia, one safetensors file for each pair of images
and features. The name of a file is the hash of both, and the file holds the hash of its content, so a damaged or
exchanged file is refused.
"""

from __future__ import annotations

__all__ = ["Classifier", "Features", "Inception", "Module", "Pixels", "RandomConvolutional"]

import hashlib
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_serializer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from latentia.configuration import Component
from latentia.errors import DataError, RunError, UnsupportedError
from latentia.files import atomic_write, cache_folder
from latentia.metrics.classifier import SIDE, DigitClassifier, as_digits, classifier_facts, classify, load_classifier
from latentia.metrics.inception import ORIGINAL_SHA256, load_inception

_KEY = "features"


class Features(Component, family=True):
    """The family of features. To add one, write `module`, `fingerprint` and, where it resizes, `resized_to`.

    Attributes:
        frechet_name: the name of the Fréchet distance on these features; "fid" on the original Inception only.
        kernel_name: likewise of the kernel distance, and "kid".
        score_name: likewise of the inception-type score, and "inception_score".
    """

    @abstractmethod
    def module(self, channels: int) -> nn.Module:
        """Images (B, channels, H, W) in [0, 1], float32, to features (B, D)."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Sha256 of everything except the images that determines the result."""

    def resized_to(self, height: int, width: int) -> str:
        """How images of this size are resized, in words for the protocol."""
        return f"none ({height}×{width})"

    def probabilities(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """p(y|x) of the features' own classes, (N, K).

        Raises:
            UnsupportedError: unless these features come from a classifier.
        """
        raise UnsupportedError(f"{self.type_name} features have no classes; use features=classifier, or inception")

    @property
    def frechet_name(self) -> str:
        return f"frechet_distance/{self.type_name}"

    @property
    def kernel_name(self) -> str:
        return f"kernel_distance/{self.type_name}"

    @property
    def score_name(self) -> str:
        return f"inception_score/{self.type_name}"

    @torch.no_grad()
    def __call__(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """Features of images, float32 (N, D), on the images' device.

        Args:
            images: (N, C, H, W), uint8 of 0 to 255 or floats in [0, 1].
            batch_size: images at a time; it changes rounding alone.

        Raises:
            DataError: see `check_images`; or for images that these features do not accept.
        """
        check_images(images)
        module = self.module(images.shape[1]).to(images.device).eval()
        return torch.cat([module(as_unit(part)).float().flatten(1) for part in images.split(batch_size)])


class Pixels(Features):
    """The pixels, in [0, 1]. They lose no information and know nothing of content."""

    def module(self, channels: int) -> nn.Module:
        return nn.Flatten()

    def fingerprint(self) -> str:
        return _sha256("pixels in [0, 1]")


class RandomConvolutional(Features):
    """An untrained network with random weights: three layers of 3×3 convolutions, the channels of each averaged.

    It is not adapted to any data set. It responds to textures and edges, not to content. D = 16 + 32 + 64 = 112.

    Attributes:
        seed: of the weights.
    """

    seed: int = 0
    _widths: ClassVar[tuple[int, ...]] = (16, 32, 64)

    def module(self, channels: int) -> nn.Module:
        generator = torch.Generator().manual_seed(self.seed)
        return _RandomLayers(channels, self._widths, generator)

    def fingerprint(self) -> str:
        return _sha256(*(_hash_of_state(self.module(channels)) for channels in (1, 3)))


class Classifier(Features):
    """The 64 numbers before the last layer of the shipped digit classifier; for gray images that look like digits.

    White strokes on black. Sizes other than 28×28 are resized bilinearly.
    """

    def module(self, channels: int) -> nn.Module:
        return _Penultimate()

    def fingerprint(self) -> str:
        return classifier_facts()["sha256"]

    def resized_to(self, height: int, width: int) -> str:
        same = (height, width) == (SIDE, SIDE)
        return super().resized_to(height, width) if same else f"bilinear, {height}×{width} to {SIDE}×{SIDE}"

    def probabilities(self, images: Tensor, batch_size: int = 500) -> Tensor:
        check_images(images)
        return torch.cat([classify(as_unit(part), batch_size) for part in images.split(batch_size)])


class Inception(Features):
    """Inception-v3 with the weights of the original FID; D = 2048. You provide the file, see `inception.py`.

    The distances are named "fid" and "kid" and the score "inception_score" only on the original weights.

    Attributes:
        file: the weights; by default pt_inception-2015-12-05-6726825d.pth in the cache's folder.
        sha256: of that file.
    """

    file: Path | None = None
    sha256: str = ORIGINAL_SHA256

    @property
    def place(self) -> Path:
        """The file of the weights."""
        return self.file.expanduser() if self.file else cache_folder() / "pt_inception-2015-12-05-6726825d.pth"

    def module(self, channels: int) -> nn.Module:
        return load_inception(self.place, self.sha256)

    def fingerprint(self) -> str:
        return self.sha256

    def resized_to(self, height: int, width: int) -> str:
        return f"bilinear as in TensorFlow 1, {height}×{width} to 299×299"

    @torch.no_grad()
    def probabilities(self, images: Tensor, batch_size: int = 500) -> Tensor:
        check_images(images)
        model = load_inception(self.place, self.sha256).to(images.device)
        return torch.cat([model.probabilities(model(as_unit(part))) for part in images.split(batch_size)])

    @property
    def _is_original(self) -> bool:
        return self.sha256 == ORIGINAL_SHA256

    @property
    def frechet_name(self) -> str:
        return "fid" if self._is_original else super().frechet_name

    @property
    def kernel_name(self) -> str:
        return "kid" if self._is_original else super().kernel_name

    @property
    def score_name(self) -> str:
        return "inception_score" if self._is_original else super().score_name


class Module(Features):
    """Any module that maps images (B, C, H, W) in [0, 1] to (B, D). The module itself handles the image size.

    Attributes:
        network: used in evaluation mode. A recipe or a protocol stores its class and the hash of its weights.
        label: the suffix of the names of the scores.
    """

    network: nn.Module
    label: str = Field(default="module", min_length=1)

    def module(self, channels: int) -> nn.Module:
        return self.network

    def fingerprint(self) -> str:
        kind = type(self.network)
        return _sha256(kind.__module__, kind.__qualname__, repr(self.network), _hash_of_state(self.network))

    @property
    def frechet_name(self) -> str:
        return f"frechet_distance/{self.label}"

    @property
    def kernel_name(self) -> str:
        return f"kernel_distance/{self.label}"

    @model_serializer(mode="wrap")
    def _serialize(self, handler: Any) -> dict[str, Any]:
        kind = type(self.network)
        return {"type": self.type_name, "network": f"{kind.__module__}.{kind.__qualname__}", "label": self.label}


def check_images(images: Tensor, name: str = "the images") -> None:
    """Check for images: (N, C, H, W), N ≥ 1, uint8, or finite floats in [0, 1].

    Raises:
        DataError: names the range that was found, and the cure.
    """
    if images.dim() != 4 or not images.numel():
        raise DataError(f"{name} must be (N, C, H, W) with N at least 1, and have the shape {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise DataError(f"{name} are {images.dtype}; give uint8 of 0 to 255 or floats in [0, 1]")
    bad = int((~torch.isfinite(images)).flatten(1).any(1).sum())
    if bad:
        raise DataError(f"{bad} of {len(images)} of {name} have pixels that are not finite (NaN or infinite)")
    low, high = images.min().item(), images.max().item()
    slack = 1e-4
    if low < -slack and low >= -1 - slack and high <= 1 + slack:
        raise DataError(f"{name} reach from {low:.3g} to {high:.3g}: they lie in [−1, 1]; map them by (x + 1) / 2")
    if low >= -slack and 1 + slack < high <= 255:
        raise DataError(f"{name} reach from {low:.3g} to {high:.3g}: they lie in [0, 255]; divide them by 255")
    if low < -slack or high > 1 + slack:
        raise DataError(
            f"{name} reach from {low:.3g} to {high:.3g}, and must lie in [0, 1]; undo their standardization, or clip "
            "samples of a Gaussian likelihood to [0, 1]"
        )


def as_unit(images: Tensor) -> Tensor:
    """Bytes or floats as float32 in [0, 1]."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float().clamp(0, 1)


def cached_features(features: Features, images: Tensor, batch_size: int = 500) -> Tensor:
    """`features(images)`, read from the cache where it is there, and stored there otherwise.

    If the cache folder cannot be written, the features are computed each time.

    Raises:
        DataError: a cache file whose content does not match its hash.
    """
    key = hashlib.sha256(f"{content_hash(images)} {features.fingerprint()}".encode()).hexdigest()
    path = cache_folder() / "features" / f"{key}.safetensors"
    if path.exists():
        return _read_cached(path, key).to(images.device)
    values = features(images, batch_size)
    plain = values.detach().cpu().contiguous()
    with suppress(OSError, RunError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file({_KEY: plain}, temporary, metadata={"key": key, "sha256": content_hash(plain)})
    return values


def content_hash(values: Tensor) -> str:
    """Sha256 of the dtype, shape and content of a tensor."""
    plain = values.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype} {tuple(plain.shape)}\n".encode())
    digest.update(plain.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_cached(path: Path, key: str) -> Tensor:
    cure = f"remove {path}, and the features are computed again"
    try:
        with safe_open(path, framework="pt") as file:
            facts, values = file.metadata() or {}, file.get_tensor(_KEY)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the cached features are damaged ({error}); {cure}") from None
    if facts.get("key") != key or facts.get("sha256") != content_hash(values):
        raise DataError(f"the cached features have a wrong hash; {cure}")
    return values


class _Penultimate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = DigitClassifier()
        self.classifier.load_state_dict(load_classifier().state_dict())

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(as_digits(images))


class _RandomLayers(nn.Module):
    """Random 3×3 convolutions of stride 2, their weights scaled to keep the variance (He et al. 2015)."""

    def __init__(self, channels: int, widths: tuple[int, ...], generator: torch.Generator):
        super().__init__()
        self.weights = nn.ParameterList()
        for width in widths:
            weight = torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
            self.weights.append(nn.Parameter(weight, requires_grad=False))
            channels = width

    def forward(self, images: Tensor) -> Tensor:
        x, means = images * 2 - 1, []
        for weight in self.weights:
            x = leaky_relu(nn.functional.conv2d(x, weight, stride=2, padding=1), 0.2)
            means.append(x.mean((2, 3)))
        return torch.cat(means, dim=1)


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _hash_of_state(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
