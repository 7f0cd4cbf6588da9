"""Adam's step as one compiled loop over all parameters of a player, on a processor.

torch's fused Adam writes the new weights where the old ones were. Both cores have just read all weights in the products
of the step, so each line of cache that a core writes must first be taken from the other: where the cores share no
cache, that takes five times as long as the arithmetic (1.3 to 1.4 ms of a step for 650 000 weights, in place of
0.25, docs/speed.md). This loop writes the weights past the caches. The moments, which one core alone reads and writes,
stay in its cache. Besides, the step is a single parallel region, and no Python runs around each tensor.

The state is torch's own, name by name, and the numbers agree with torch's to rounding.
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Kingma and Ba 2015, algorithm 1, as torch computes it; `decay` is 1, or AdamW's 1 - lr * weight_decay.
_SOURCE = r"""
#include <torch/csrc/inductor/cpp_prefix.h>
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
#include <immintrin.h>
#endif
using Vector = at::vec::Vectorized<float>;
constexpr int64_t UNIT = 16;  // numbers of a line of cache

static inline void store_past_caches(float* to, const Vector& value) {
#if defined(CPU_CAPABILITY_AVX512)
    _mm512_stream_ps(to, value);
#elif defined(CPU_CAPABILITY_AVX2)
    _mm256_stream_ps(to, value);
#else
    value.store(to);
#endif
}

// addresses: count weights, gradients, means, squares; then the sizes
extern "C" void kernel(const int64_t* addresses, const double* settings, const int64_t count) {
    const int64_t* sizes = addresses + 4 * count;
    int64_t units = 0;
    for (int64_t k = 0; k < count; k++) units += (sizes[k] + UNIT - 1) / UNIT;
    #pragma omp parallel
    {
        const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
        const int64_t first = units * thread / threads, last = units * (thread + 1) / threads;
        const Vector decay(settings[0]), new_mean(settings[1]), old_square(settings[2]), new_square(settings[3]);
        const Vector minus_size(settings[4]), over_root(settings[5]), epsilon(settings[6]);
        int64_t before = 0;
        for (int64_t k = 0; k < count; k++) {
            const int64_t size = sizes[k], all = (size + UNIT - 1) / UNIT;
            const int64_t from = std::max<int64_t>(first - before, 0) * UNIT;
            const int64_t to = std::min<int64_t>((last - before) * UNIT, size);
            before += all;
            float* weight = reinterpret_cast<float*>(addresses[k]);
            const float* gradient = reinterpret_cast<const float*>(addresses[count + k]);
            float* mean = reinterpret_cast<float*>(addresses[2 * count + k]);
            float* square = reinterpret_cast<float*>(addresses[3 * count + k]);
            const bool past = threads > 1 && addresses[k] % 64 == 0;
            for (int64_t i = from; i < to; i += Vector::size()) {
                const int64_t width = std::min<int64_t>(Vector::size(), to - i);
                const Vector g = Vector::loadu(gradient + i, width), m0 = Vector::loadu(mean + i, width);
                const Vector m = at::vec::fmadd(new_mean, g - m0, m0);
                const Vector v = Vector::loadu(square + i, width) * old_square + new_square * g * g;
                const Vector w = at::vec::fmadd(
                    minus_size, m / (v.sqrt() * over_root + epsilon), Vector::loadu(weight + i, width) * decay);
                m.store(mean + i, width);
                v.store(square + i, width);
                if (past && width == Vector::size()) store_past_caches(weight + i, w);
                else w.store(weight + i, width);
            }
        }
#if defined(CPU_CAPABILITY_AVX512) || defined(CPU_CAPABILITY_AVX2)
        _mm_sfence();
#endif
    }
}
"""


def compiled_step(optimizer: torch.optim.Optimizer) -> Callable[[], None] | None:
    """What makes an optimizer's step by the compiled loop; None where that cannot be.

    It can for torch's Adam and AdamW, not for classes derived from them, over float32 parameters on a processor. The
    first step, which makes the state, and a step without the gradient of some parameter, or with one of another layout
    than its parameter, are torch's own.
    """
    decoupled = type(optimizer) is torch.optim.AdamW
    if not (decoupled or type(optimizer) is torch.optim.Adam) or len(optimizer.param_groups) != 1:
        return None
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return None
    group = optimizer.param_groups[0]
    parameters: list[Tensor] = group["params"]
    if group["amsgrad"] or group["maximize"] or not all(_suits(p) for p in parameters):
        return None
    if group["weight_decay"] and not decoupled:
        return None
    try:
        loop = _loop()
    except Exception:  # whatever a compiler may meet: torch's step does the same
        return None
    counts: list[Tensor] = []
    fixed: tuple[list[int], list[int]] = [], []  # addresses of the moments, and sizes
    made_of: object = None

    def step() -> None:
        nonlocal counts, fixed, made_of
        gradients = [_gradient(p) for p in parameters]
        if made_of is not optimizer.state:
            states = [optimizer.state.get(p, {}) for p in parameters]
            counts = [state["step"] for state in states if state]
            same = len(counts) == len(parameters) and len({float(count) for count in counts}) == 1
            if same and all(g is not None for g in gradients):
                moments = [state[name] for name in ("exp_avg", "exp_avg_sq") for state in states]
                fixed, made_of = ([m.data_ptr() for m in moments], [p.numel() for p in parameters]), optimizer.state
        if made_of is not optimizer.state or any(g is None for g in gradients):
            made_of = None
            optimizer.step()
            return
        torch._foreach_add_(counts, 1)
        count, (beta1, beta2), lr = counts[0].item(), group["betas"], group["lr"]
        settings = (
            1 - lr * group["weight_decay"],
            1 - beta1,
            beta2,
            1 - beta2,
            -lr / (1 - beta1**count),
            (1 - beta2**count) ** -0.5,
            group["eps"],
        )
        addresses = [p.data_ptr() for p in parameters], [g.data_ptr() for g in gradients if g is not None], *fixed
        table = torch.tensor([address for part in addresses for address in part])
        loop(table, torch.tensor(settings, dtype=torch.float64), len(parameters))

    return step


def _gradient(parameter: Tensor) -> Tensor | None:
    """The gradient, where its numbers lie in memory as the parameter's do."""
    found = parameter.grad
    alike = found is not None and found.stride() == parameter.stride() and found.dtype == torch.float32
    return found if alike else None


def _suits(parameter: Tensor) -> bool:
    dense = parameter.is_contiguous() or (parameter.dim() == 4 and _channels_last(parameter))
    return parameter.device.type == "cpu" and parameter.dtype == torch.float32 and dense


def _channels_last(parameter: Tensor) -> bool:
    return parameter.is_contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=1)
def _loop() -> Callable[[Tensor, Tensor, int], None]:
    from torch._inductor.async_compile import AsyncCompile

    compiler = AsyncCompile()
    made: dict[str, Any] = {
        "loop": compiler.cpp_pybinding(["const int64_t*", "const double*", "const int64_t"], _SOURCE)
    }
    compiler.wait(made)
    return made["loop"]
