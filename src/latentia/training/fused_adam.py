"""torch's fused Adam and AdamW, without the bookkeeping that torch does around it in every step.

A step of a small network takes a few milliseconds, and torch spends some 0.3 of them on sorting the tensors by device
and type, on hooks and on a label for its profiler, around one call that does the arithmetic. Here the lists for that
call are made once and kept, and a step is the same call on the same tensors: it leaves the same bits. The state is
torch's own, name by name, so checkpoints of either go into the other.

Whatever is out of the ordinary (a first step, a parameter without a gradient, hooks, a closure, a gradient scaler) goes
to torch's own `step`.
"""

from __future__ import annotations

__all__ = ["FusedAdam", "FusedAdamW"]

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.optim.optimizer as torchs
from torch import Tensor


class _Lists(NamedTuple):
    """A group's tensors, one of each for each parameter."""

    group: dict[str, Any]
    parameters: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    counts: list[Tensor]
    one: Tensor | None


class _Direct(torch.optim.Optimizer):
    """What goes before torch's Adam or AdamW among a class's bases: its ordinary steps go straight to `_update`."""

    _update: Callable[..., Any]
    # The lists, and the state that they were made of: torch puts another dictionary there when it loads one. Neither
    # goes into a copy or a pickle, which take what torch itself keeps.
    _lists: list[_Lists] | None = None
    _made_of: tuple[object, int] = (None, 0)

    def step(self, closure: Any = None) -> Any:
        """One step on the gradients that are there; returns what the closure returns, and None without one."""
        made_of, size = self._made_of
        if made_of is not self.state or size != len(self.state):
            self._lists = None
        lists = self._lists
        if lists is None or closure is not None or self._watched():
            return self._torchs_step(closure)
        steps = [[parameter.grad for parameter in of_group.parameters] for of_group in lists]
        if any(gradient is None for gradients in steps for gradient in gradients):
            return self._torchs_step(closure)
        with torch.no_grad():
            for (group, parameters, means, squares, counts, one), gradients in zip(lists, steps, strict=True):
                beta1, beta2 = group["betas"]
                if one is None:
                    torch._foreach_add_(counts, 1)
                else:
                    torch._foreach_add_(counts, one, alpha=1.0)
                self._update(
                    parameters,
                    gradients,
                    means,
                    squares,
                    [],
                    counts,
                    lr=group["lr"],
                    beta1=beta1,
                    beta2=beta2,
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=group["maximize"],
                )
        return None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with settings of their own."""
        super().add_param_group(param_group)
        self._lists = None

    def _torchs_step(self, closure: Any) -> Any:
        theirs = super().step.__func__  # pyright: ignore[reportAttributeAccessIssue, reportFunctionMemberAccess]
        if not getattr(theirs, "hooked", False):  # torch wraps a class's step when the first of the class is made
            theirs = self.profile_hook_step(theirs)
        result = theirs(self, closure)
        if self._lists is None:
            lists = [_lists_of(self, group) for group in self.param_groups]
            kept = [of_group for of_group in lists if of_group is not None]
            self._lists = kept if len(kept) == len(lists) else None
            self._made_of = (self.state, len(self.state))
        return result

    def _watched(self) -> bool:
        """Whether somebody waits for hooks to be called, or scales gradients."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torchs._global_optimizer_pre_hooks
            or torchs._global_optimizer_post_hooks
            or "grad_scale" in self.__dict__
            or "found_inf" in self.__dict__
        )


_Direct.step.hooked = True  # pyright: ignore[reportFunctionMemberAccess]  (torch shall not wrap it)


class FusedAdam(_Direct, torch.optim.Adam):
    """Adam (Kingma and Ba 2015), the same as `torch.optim.Adam(..., fused=True)` bit by bit."""

    _update = staticmethod(torch._fused_adam_)


class FusedAdamW(_Direct, torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as `torch.optim.AdamW(..., fused=True)`."""

    _update = staticmethod(torch._fused_adamw_)


def _lists_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> _Lists | None:
    """The group's lists, where it is an ordinary one and every parameter has a state."""
    parameters = group["params"]
    states = [optimizer.state.get(parameter, {}) for parameter in parameters]
    kinds = {(parameter.device, parameter.dtype) for parameter in parameters}
    ordinary = group["fused"] and not group["amsgrad"] and not group["capturable"] and not group["differentiable"]
    if not ordinary or len(kinds) != 1 or not all(states) or not isinstance(group["lr"], float):
        return None
    means, squares, counts = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
    # On a CPU torch adds to the counts one by one, and would make a tensor of a number each time.
    one = torch.ones_like(counts[0]) if counts[0].is_cpu else None
    return _Lists(group, list(parameters), means, squares, counts, one)
