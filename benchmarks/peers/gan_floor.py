"""The limit: the convolutions and matrix products of one step alone, in sequence; with `--bf16`, in bfloat16.

One step of the game with shared fake examples needs: the discriminator forward three times (real, fake, fake once
more), back to its weights twice, back to its inputs three times (the first layer's input, the image, once); the
generator forward once, back to its weights once, back to its inputs once (but for the code). The wide layers are called
as convolutions, with channels last; those with one channel as products with patches, which are faster here.
"""

from __future__ import annotations

import sys

import torch
from gan_common import BATCH, DEVICE, LATENT, START, STEPS, WIDTH, Gate
from torch.nn.functional import conv2d


def main() -> None:
    torch.manual_seed(0)
    dtype = torch.bfloat16 if "--bf16" in sys.argv else torch.float32
    flat, pixels = 2 * WIDTH * START**2, BATCH * (2 * START) ** 2

    def drawn(*shape: int) -> torch.Tensor:
        value = torch.randn(shape, device=DEVICE).to(dtype)
        return value.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else value

    larger, smaller = drawn(BATCH, WIDTH, 2 * START, 2 * START), drawn(BATCH, 2 * WIDTH, START, START)
    kernel = drawn(2 * WIDTH, WIDTH, 4, 4)
    patches, maps, edge = drawn(pixels, 16), drawn(pixels, WIDTH), drawn(16, WIDTH)
    code, start, first = drawn(BATCH, LATENT), drawn(BATCH, flat), drawn(LATENT, flat)
    logit, head = drawn(BATCH, 1), drawn(flat, 1)

    def back(inputs: bool, weights: bool) -> None:
        which = [inputs, weights, False]
        torch.ops.aten.convolution_backward(
            smaller, larger, kernel, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, which
        )

    def discriminator_forward() -> None:
        _ = patches @ edge, conv2d(larger, kernel, None, 2, 1), start @ head

    def discriminator_back(weights: bool) -> None:
        back(True, weights)
        _ = logit @ head.T, (patches.T @ maps, start.T @ logit) if weights else maps @ edge.T

    gate = Gate(STEPS)
    with torch.no_grad():
        while True:
            gate.wait()
            _ = code @ first, back(True, False), maps @ edge.T  # the generator: its convolution is this one's way back
            for _ in range(2):
                discriminator_forward()
                discriminator_back(weights=True)
            discriminator_forward()
            discriminator_back(weights=False)
            _ = patches @ edge, maps.T @ patches, conv2d(larger, kernel, None, 2, 1), back(False, True), code.T @ start


if __name__ == "__main__":
    main()
