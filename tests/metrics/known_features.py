"""Features of known moments."""

import torch

DIMENSION = 6


def normal(n: int, seed: int, shift: float = 0.0, scale: float = 1.0, dimension: int = DIMENSION) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dimension, generator=generator, dtype=torch.float64) * scale + shift
