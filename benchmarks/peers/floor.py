"""The limit: the matrix products of the steps alone, forward and backward, in sequence, in float32.

With `--medium`, by oneDNN, at PyTorch's precision of that name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from common import BATCH, DEVICE, HIDDEN, LATENT, PIXELS, STEPS, Gate


def products_of_a_step() -> Callable[[], object]:
    """What computes the products of one step: four forward, seven backward (x itself has no gradient)."""
    x, h, m, z, o = (torch.randn(BATCH, n, device=DEVICE) for n in (PIXELS, HIDDEN, 2 * LATENT, LATENT, PIXELS))
    shapes = ((PIXELS, HIDDEN), (HIDDEN, 2 * LATENT), (LATENT, HIDDEN), (HIDDEN, PIXELS))
    w1, w2, w3, w4 = (torch.randn(shape, device=DEVICE) for shape in shapes)

    def products() -> None:
        x @ w1, h @ w2, z @ w3, h @ w4  # forward
        h.T @ o, o @ w4.T, z.T @ h, h @ w3.T  # backward: weights and inputs of each layer
        h.T @ m, m @ w2.T, x.T @ h

    return products


def main() -> None:
    if "--medium" in sys.argv:
        torch.set_float32_matmul_precision("medium")
    products = products_of_a_step()
    gate = Gate(STEPS)
    while True:
        gate.wait()
        products()


if __name__ == "__main__":
    main()
