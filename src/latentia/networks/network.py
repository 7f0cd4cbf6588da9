"""What a network is: a setting that builds modules, and what can be asked of a module.

A `Network` is not itself a module. It is the frozen description of a pair: an *encoder* that maps x to a vector and a
*decoder* that maps a vector to the shape of x. It builds either for any shape. It does not know what the vectors mean:
a VAE reads the parameters of a distribution from the encoder and logits from the decoder; a GAN takes
`encoder(shape, outputs=1)` as its discriminator and `decoder` as its generator.

With `classes > 0` the modules are class-conditional: their `forward` takes (x, labels), with labels of shape (B,) and
an integer dtype, with values in 0 … classes − 1.
"""

from __future__ import annotations

__all__ = ["Network", "has_batch_norm", "require_logits", "require_memory", "require_memory_for_step"]

import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from latentia.configuration import Component
from latentia.errors import ConfigurationError, LatentiaError


class Network(Component, family=True):
    """The family of networks; see the module's docstring."""

    @abstractmethod
    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Build a module from x to a vector of unconstrained reals; with `outputs=1`, a GAN's discriminator.

        Args:
            input_shape: (D,) or (C, H, W), without the batch.
            outputs: how many numbers the module gives for each x.
            classes: number of classes to condition on; 0 for none.

        Returns:
            A module (B, *input_shape) → (B, outputs); with classes, ((B, *input_shape), (B,)) → (B, outputs).

        Raises:
            ConfigurationError: for a shape that this network does not support, naming one that does.
        """

    @abstractmethod
    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """Build a module from a vector to unconstrained reals in the shape of x (logits); also a GAN's generator.

        Args:
            inputs: length of the vector z.
            output_shape: (D,) or (C, H, W), without the batch.
            classes: number of classes to condition on; 0 for none.

        Returns:
            A module (B, inputs) → (B, *output_shape); with classes, ((B, inputs), (B,)) → (B, *output_shape).

        Raises:
            ConfigurationError: for a shape that this network does not support, naming one that does.
        """

    @property
    def bounds_slope(self) -> bool:
        """Whether the encoder's weights are normalized so that its slope is bounded (spectral normalization)."""
        return False


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any part of the module normalizes over the batch."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(part, kinds) for part in module.modules())


def require_logits(part: str, module: nn.Module, shape: tuple[int, ...], reason: str, classes: int = 0) -> None:
    """Refuse a module that ends in a sigmoid where its outputs are taken as logits.

    Args:
        part: what the module is, such as `decoder`; the key of the error.
        module: (B, *shape) → reals; with classes, it also takes labels (B,).
        shape: of one input.
        reason: why logits are needed.
        classes: number of classes; 0 for none.

    Raises:
        ConfigurationError: if all outputs lie in [0, 1].
    """
    if isinstance(module, nn.Module) and _ends_in_sigmoid(module, shape, classes):
        text = f"all its outputs lie in [0, 1]: it ends in a sigmoid, and {reason}. Remove its last layer, the sigmoid"
        raise ConfigurationError([(part, text)])


@torch.no_grad()
def _ends_in_sigmoid(module: nn.Module, shape: tuple[int, ...], classes: int) -> bool:
    """Whether the module maps all inputs into [0, 1], by a trial with 32 inputs from size 0.1 to 10⁴.

    The module's modes, its buffers and torch's random state do not change. A module that fails on such inputs passes;
    it fails where it is used, with an error that fits.
    """
    first = next(module.parameters(), torch.zeros(()))
    if first.is_meta:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, *shape, generator=generator) * torch.logspace(-1, 4, 32).reshape(-1, *[1] * len(shape))
    labels = [torch.arange(32, device=first.device) % classes] if classes else []
    try:
        with evaluating(module):
            outputs = cast(Tensor, module(x.to(first.device, first.dtype), *labels))
        return bool(((outputs >= 0) & (outputs <= 1)).all()) and bool(outputs.max() > outputs.min())
    except Exception:
        return False


def require_memory(build: Callable[[], nn.Module], device: torch.device, copies: int, key: str) -> None:
    """Refuse a model whose training does not fit into the memory of the device, before any of it is allocated.

    Args:
        build: makes the model; it is called on torch's meta device, where tensors have shapes and no memory.
        device: where the model will be trained.
        copies: of each parameter: itself, its gradient, the states of the optimizer, averaged weights.
        key: the setting to make smaller.

    Raises:
        ConfigurationError: with the estimate and the memory of the device.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build()
    except LatentiaError:
        raise
    except MemoryError as error:
        raise ConfigurationError([(key, f"this model does not fit into memory. Set a smaller {key}")]) from error
    except Exception as error:  # modules that cannot be built without memory are not estimated
        if "overflow" in str(error):  # of the number of bytes, as torch words it
            raise ConfigurationError([(key, f"no memory holds this model. Set a smaller {key}")]) from error
        return
    needed = copies * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    memory = _memory_of(device)
    if needed > memory:
        text = f"training this model needs about {needed / 2**30:.3g} GiB for its parameters, and {device} has"
        raise ConfigurationError([(key, f"{text} {memory / 2**30:.3g} GiB. Set a smaller {key}")])


def require_memory_for_step(examples: int, shape: Sequence[int], device: torch.device, key: str) -> None:
    """Refuse a step whose decoded examples alone do not fit into the memory of the device.

    Args:
        examples: decoded in a step.
        shape: of an example.
        device: where the model will be trained.
        key: the setting to make smaller.

    Raises:
        ConfigurationError: with the estimate and a number that fits.
    """
    copies = 4  # logits, terms and their gradients
    needed, memory = copies * 4 * examples * math.prod(shape), _memory_of(device)
    if needed > memory:
        text = f"a step would decode {examples} examples, which need about {needed / 2**30:.3g} GiB, and {device} has"
        raise ConfigurationError([(key, f"{text} {memory / 2**30:.3g} GiB. Set a smaller {key} or batch_size")])


def _memory_of(device: torch.device) -> int:
    """All memory of a device in bytes; of the CPU, as much as this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(pages, int(text)) if text.isdigit() else pages


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards each part of the module is in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
