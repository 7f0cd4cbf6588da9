"""What every peer of the DCGAN benchmark shares: the game's sizes and its images.

Each plays without end, and stops at its gate before each step. At the end of a turn it tells `costs`: the players' mean
costs at its last step, in nats; the discriminator's over real and fake summed.
"""

from __future__ import annotations

import numpy as np
from gate import DEVICE as DEVICE
from gate import Gate as Gate

SIDE, LATENT, WIDTH, BATCH = 28, 100, 64, 128
RATE, BETA1, BETA2, EPSILON = 2e-4, 0.5, 0.999, 1e-8
START = SIDE // 4  # side of the feature maps next to the code, of 2 × WIDTH channels
SLOPE = 0.2  # of the leaky rectifiers
STEPS = 60_000 // BATCH  # of an epoch


def images() -> np.ndarray:
    """MNIST's 60 000 training images, uint8, (N, 28, 28)."""
    from latentia.data import MNIST

    return MNIST(validation=0).load().train.x.numpy()[:, 0]
