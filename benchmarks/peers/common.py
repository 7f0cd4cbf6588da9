"""What every peer of the VAE benchmark shares: the data and the shape of the VAE.

Each trains without end, an epoch after the other, and stops at its gate before each step. At the end of a turn it tells
its `loss`: the mean −ELBO over its last complete epoch, in nats.
"""

from __future__ import annotations

import numpy as np
from gate import DEVICE as DEVICE
from gate import Gate as Gate

PIXELS, HIDDEN, LATENT, BATCH = 784, 400, 20, 128
RATE = 1e-3
STEPS = 60_000 // BATCH  # of an epoch whose last 96 images are left out; with them, one more


def binary_images() -> np.ndarray:
    """MNIST's 60 000 training images, cut at half: uint8 in {0, 1}, (N, 784). Every peer sees these."""
    from latentia.data import MNIST

    splits = MNIST(binarize="threshold", validation=0).load()
    return (splits.train.x.numpy().reshape(-1, PIXELS) > 127).astype(np.uint8)
