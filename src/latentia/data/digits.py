"""The handwritten digits that scikit-learn carries: 1 797 images of 8×8 pixels with 17 gray levels; no download."""

from __future__ import annotations

__all__ = ["Digits"]

from pathlib import Path

import numpy as np
import torch

from latentia.data.source import Parts, Source
from latentia.data.split import Split


class Digits(Source, name="digits"):
    """Handwritten digits, 8×8 (Alpaydin and Kaynak 1998, the test part of the UCI set). The default; needs no network.

    Gray levels 0 to 16 become the nearest of 0 to 255. No test part is published: a fixed fifth of each class is one.
    """

    def _read(self, folder: Path | None) -> Parts:
        from sklearn.datasets import load_digits  # slow to import, and no other source needs it

        pixels, target = load_digits(return_X_y=True)
        images = torch.from_numpy(np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)).reshape(-1, 1, 8, 8)
        return Parts(Split(images, torch.from_numpy(np.asarray(target)).long()), None, tuple("0123456789"))
