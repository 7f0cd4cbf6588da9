"""A small classifier of gray digits, shipped with its weights: it gives class probabilities and features.

Five convolutions, a mean over the image, one linear layer: 28×28 gray pixels to ten classes. The 64 numbers before the
last layer are the features. The weights are part of this package; `classifier.json` states their sha256, the accuracy
on the MNIST test images and the command that trains them again:

    LATENTIA_DATA=… python benchmarks/train_classifier.py

The normalization layers of training are folded into the convolutions, so the output for an image does not depend on its
batch.
"""

from __future__ import annotations

__all__ = ["classify"]

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn.functional import interpolate

from latentia.errors import DataError

CLASSES = 10
SIDE = 28
WEIGHTS = "classifier.safetensors"
FACTS = "classifier.json"
# (channels in, channels out, stride) of each convolution
LAYERS = ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1))


class DigitClassifier(nn.Module):
    """Gray images (B, 1, 28, 28) in [0, 1], white strokes on black, to logits (B, 10).

    Args:
        normalize: put a batch normalization behind each convolution, as training does.
    """

    def __init__(self, normalize: bool = False):
        super().__init__()
        blocks = [
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride, padding=1),
                nn.BatchNorm2d(outputs) if normalize else nn.Identity(),
                nn.ReLU(),
            )
            for inputs, outputs, stride in LAYERS
        ]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(LAYERS[-1][1], CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """The 64 numbers before the last layer, (B, 1, 28, 28) → (B, 64)."""
        return self.blocks(images * 2 - 1).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def classifier_facts() -> dict[str, Any]:
    """The content of classifier.json: sha256, accuracy, error counts, command and versions of the shipped weights."""
    return json.loads(files("latentia.metrics").joinpath(FACTS).read_text(encoding="utf-8"))


@cache
def load_classifier() -> DigitClassifier:
    """The shipped classifier, in evaluation mode on the CPU, one object per process.

    Raises:
        DataError: if the weights are not those that classifier.json names.
    """
    content = files("latentia.metrics").joinpath(WEIGHTS).read_bytes()
    found, stated = hashlib.sha256(content).hexdigest(), classifier_facts()["sha256"]
    if found != stated:
        raise DataError(f"{WEIGHTS} has the sha256 {found}, and {FACTS} states {stated}; install latentia again")
    model = DigitClassifier()
    model.load_state_dict(load(content))
    return model.eval().requires_grad_(False)


def as_digits(images: Tensor) -> Tensor:
    """Gray images of any size as the classifier takes them, by bilinear resizing to 28×28.

    Raises:
        DataError: for images of more than one channel.
    """
    if images.dim() != 4 or images.shape[1] != 1:
        raise DataError(
            f"the digit classifier takes gray images, (N, 1, H, W), and these are {tuple(images.shape)}. Give each "
            "channel separately, or use features=random-convolutional"
        )
    if images.shape[2:] == (SIDE, SIDE):
        return images
    return interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True)


@torch.no_grad()
def classify(images: Tensor, batch_size: int = 500) -> Tensor:
    """The probabilities of the ten digits, (N, 1, H, W) → (N, 10), on the images' device.

    Args:
        images: floats in [0, 1], white strokes on black; sizes other than 28×28 are resized.
        batch_size: images at a time; it does not change the result.

    Raises:
        DataError: for colored images.
    """
    model = load_classifier()
    if images.device.type != "cpu":
        copy = DigitClassifier()
        copy.load_state_dict(model.state_dict())
        model = copy.eval().to(images.device)
    parts = [model(as_digits(some.float())).softmax(1) for some in images.split(batch_size)]
    return torch.cat(parts) if parts else images.new_zeros(0, CLASSES, dtype=torch.float32)
