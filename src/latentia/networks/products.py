"""Which library computes float32 matrix products, where two give the same digits."""

from __future__ import annotations

__all__ = ["exact_float32_setting"]

from functools import lru_cache
from typing import Literal

import torch


@lru_cache(maxsize=1)
def exact_float32_setting() -> Literal["highest", "medium"]:
    """The setting of torch's products under which float32 keeps its digits and which is the faster one.

    On a processor `medium` selects oneDNN instead of MKL. It is taken where a probe shows float32 digits; where it
    shortens numbers to bfloat16 a product is off by 1e-3, and `highest` is taken. On a GPU it would allow TF32, so
    `highest` is taken there always.
    """
    if torch.cuda.is_available():
        return "highest"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    error = (a @ b - a.double() @ b.double()).abs().max().item()
    torch.set_float32_matmul_precision(before)
    return "medium" if error < 1e-3 else "highest"  # sums of 512 terms of size 1, about 20 in all
