"""Which library computes float32 matrix products, where two give the same digits, and products that skip zeros."""

from __future__ import annotations

__all__ = ["SkipZeros", "exact_float32_setting"]

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

ROWS = 256  # of an input at least, for which it pays to look for columns of zeros
SHARE = 0.8  # of the columns may be used at most, for the others to be left out


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


class SkipZeros(TorchFunctionMode):
    """Leave out of linear layers, inside the block, the inputs that are 0 for every row.

    A rectifier unit gives 0 on half of the space or more, so that for points near each other most units do. The result
    is the same up to the order of its sums. A product with infinite weights is not changed.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `linear`; call anything else."""
        if func is linear and not kwargs and args[0].is_cpu and args[0].dim() == 2 and len(args[0]) >= ROWS:
            return _linear_without_zeros(*args)
        return func(*args, **(kwargs or {}))


def _linear_without_zeros(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    used = ((x.amax(0) != 0) | (x.amin(0) != 0)).nonzero().squeeze(1)
    if len(used) > SHARE * x.shape[1] or not bool(torch.isfinite(weight.sum())):
        return linear(x, weight, bias)
    return linear(x.index_select(1, used), weight.index_select(1, used), bias)
