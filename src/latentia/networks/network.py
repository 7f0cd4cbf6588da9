"""What a network is here: a setting that builds modules.

A `Network` is not itself a module. It is the frozen description of a pair, an *encoder* that maps x to a vector
and a *decoder* that maps a vector to the shape of x, and it builds either for any shape that is asked for. What
the vectors mean is no affair of this layer: a VAE reads the parameters of a distribution from the encoder and logits from
the decoder, a GAN takes `encoder(shape, outputs=1)` for its discriminator and `decoder` for its generator.

With `classes > 0` the modules are class-conditional: their `forward` takes (x, labels), labels of shape (B,) and
an integer dtype with values in 0 … classes − 1.
"""

from __future__ import annotations

__all__ = ["Network", "count_parameters"]

from abc import abstractmethod

from torch import nn

from latentia.configuration import Component


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
            ConfigurationError: for a shape that this network cannot serve, naming one that can.
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
            ConfigurationError: for a shape that this network cannot serve, naming one that can.
        """


def count_parameters(module: nn.Module) -> int:
    """Count the numbers that training may change: shared tensors once, buffers and frozen parameters not."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
