"""Differentiable augmentation: random changes of all images that the discriminator gets, real and fake.

A discriminator overfits to few images. If it only gets T(x), with T random and differentiable, for real images and for
fake ones, the generator still learns the distribution of x as long as the distribution of T(x) determines it (Zhao et
al. 2020, "Differentiable augmentation for data-efficient GAN training", eqs. 6 and 7).
"""

from __future__ import annotations

__all__ = ["Augmentation", "DiffAugment", "NoAugmentation"]

from abc import abstractmethod

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from latentia.configuration import Component
from latentia.errors import DataError


class Augmentation(Component, family=True):
    """A random, differentiable change of images."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Change images (B, C, H, W), each by a separate draw from torch's global generator."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse examples of a shape that it cannot change, by a DataError."""
        return


class NoAugmentation(Augmentation, name="none"):
    """No change."""

    def __call__(self, images: Tensor) -> Tensor:
        return images


class DiffAugment(Augmentation):
    """Brightness, translation and cutout, in this order; 0 switches each off (Zhao et al. 2020, section 3.2).

    Attributes:
        brightness: all pixels of an image are increased by a number from U(−½, ½) times this.
        translation: images move by whole pixels, by up to this part of a side in both directions; new pixels are 0.
        cutout: a rectangle of this part of each side is set to 0, its center anywhere in the image.
    """

    brightness: float = Field(default=1.0, ge=0)
    translation: float = Field(default=0.125, ge=0, lt=1)
    cutout: float = Field(default=0.5, ge=0, lt=1)

    def check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 3:
            raise DataError(
                f"diff-augment changes images, and the data are points of R{shape[0]}; use augmentation=none"
            )

    def __call__(self, images: Tensor) -> Tensor:
        if self.brightness:
            images = images + self.brightness * (torch.rand(len(images), 1, 1, 1, device=images.device) - 0.5)
        if self.translation:
            images = _translate(images, self.translation)
        if self.cutout:
            images = images * _mask(images, self.cutout)
        return images


def _translate(images: Tensor, part: float) -> Tensor:
    """Gather each image's pixels from a padded copy, at a separate offset."""
    count, channels, height, width = images.shape
    reach = (round(height * part), round(width * part))
    rows, columns = (
        torch.randint(0, 2 * most + 1, (count, 1), device=images.device)
        + torch.arange(side, device=images.device)  # (B, side)
        for most, side in zip(reach, (height, width), strict=True)
    )
    padded = pad(images, (reach[1], reach[1], reach[0], reach[0]))
    by_row = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, padded.shape[3]))
    return by_row.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _mask(images: Tensor, part: float) -> Tensor:
    """(B, 1, H, W), 0 in a rectangle around a pixel drawn uniformly and 1 elsewhere."""
    inside = []
    for side in images.shape[2:]:
        size = round(side * part)
        start = torch.randint(0, side + (1 - size % 2), (len(images), 1), device=images.device) - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= start) & (place < start + size))
    return 1 - (inside[0].unsqueeze(2) & inside[1].unsqueeze(1)).unsqueeze(1).to(images.dtype)
