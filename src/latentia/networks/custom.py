"""A user's own modules as a network.

    network = Custom(encoder=my_encoder, decoder=my_decoder)

The modules must map tensors of the shapes that the model needs; each is tried on a batch of two zeros before training.
Images come in [0, 1]; a module that wants another range must rescale them itself.

A recipe is text, so that only the names of the classes are written to it. To load a run made with custom modules, pass
the modules again; the weights then come from the run.
"""

from __future__ import annotations

__all__ = ["Custom"]

from typing import Any

import torch
from pydantic import ConfigDict, Field, model_serializer
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from latentia.errors import ConfigurationError
from latentia.networks.network import Network, evaluating


class Custom(Network):
    """Holds modules; `encoder` and `decoder` return the given module itself, so that training changes it.

    Class-conditional modules take (x, labels) and (z, labels), those of a model of covariates (x, covariates) and (z,
    covariates), which are standardized, (B, k). One of the two may be left out where the model does not use it.

    Attributes:
        encoder_module: passed as `encoder`; a module, or the name of its class as read from a recipe.
        decoder_module: passed as `decoder`; likewise.
    """

    model_config = ConfigDict(populate_by_name=True)

    encoder_module: nn.Module | str | None = Field(default=None, alias="encoder")
    decoder_module: nn.Module | str | None = Field(default=None, alias="decoder")

    def encoder(
        self, input_shape: tuple[int, ...], outputs: int, classes: int = 0, *, covariates: int = 0
    ) -> nn.Module:
        """Return the user's encoder, after a trial that it maps (2, *input_shape) to (2, outputs).

        Raises:
            ConfigurationError: if the module is missing, fails, or gives another shape.
        """
        module = _present(self.encoder_module, "encoder")
        _probe(module, "encoder", tuple(input_shape), (outputs,), classes, covariates)
        return module

    def decoder(
        self, inputs: int, output_shape: tuple[int, ...], classes: int = 0, *, covariates: int = 0
    ) -> nn.Module:
        """Return the user's decoder, after a trial that it maps (2, inputs) to (2, *output_shape).

        Raises:
            ConfigurationError: if the module is missing, fails, or gives another shape.
        """
        module = _present(self.decoder_module, "decoder")
        _probe(module, "decoder", (inputs,), tuple(output_shape), classes, covariates)
        return module

    @property
    def bounds_slope(self) -> bool:
        if not isinstance(self.encoder_module, nn.Module):
            return True  # a name read from a recipe; what it stands for is checked when the module is passed
        return any(is_parametrized(part) for part in self.encoder_module.modules())

    @model_serializer(mode="wrap")
    def _serialize(self, handler: Any) -> dict[str, Any]:  # the keys that users write; modules as class names
        return {
            "type": self.type_name,
            "encoder": _class_name(self.encoder_module),
            "decoder": _class_name(self.decoder_module),
        }


def _class_name(module: nn.Module | str | None) -> str | None:
    if isinstance(module, nn.Module):
        return f"{type(module).__module__}.{type(module).__qualname__}"
    return module


def _present(module: nn.Module | str | None, role: str) -> nn.Module:
    if isinstance(module, nn.Module):
        return module
    if module is None:
        text = f"this custom network has no {role}, and the model needs one. Use Custom({role}=module)."
    else:
        text = (
            f"the {role} of this recipe is a module of the class {module}, and a recipe does not hold modules. Pass "
            "them: latentia.load(run, network=Custom(encoder=..., decoder=...)), or Custom(...) in a recipe in Python."
        )
    raise ConfigurationError([(f"network.{role}", text)])


def _probe(
    module: nn.Module, role: str, given: tuple[int, ...], wanted: tuple[int, ...], classes: int, covariates: int
) -> None:
    """Run two zeros through the module in evaluation mode; its modes, buffers and weights do not change."""
    name, expected = type(module).__name__, (2, *wanted)
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    arguments = [torch.zeros(2, *given, device=first.device, dtype=first.dtype)]
    if classes:
        arguments.append(torch.zeros(2, device=first.device, dtype=torch.int64))
    if covariates:
        arguments.append(torch.zeros(2, covariates, device=first.device, dtype=first.dtype))
    takes = " and ".join(str(tuple(argument.shape)) for argument in arguments)
    try:
        with torch.no_grad(), evaluating(module):
            got = module(*arguments)
    except Exception as error:
        what = "x" if role == "encoder" else "z"
        cure = "Its forward must take one tensor."
        if classes or covariates:
            many = f"{classes} classes its forward must take ({what}, labels)"
            cure = f"With {many if classes else f'covariates its forward must take ({what}, covariates)'}."
        text = f"{name} fails on zeros of shape {takes}, and {expected} is expected: {error}. {cure}"
        raise ConfigurationError([(f"network.{role}", text)]) from error
    shown = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
    if shown != expected:
        cure = "Change its last layer to give that."
        text = f"{name} maps zeros of shape {takes} to {shown}, and {expected} is expected. {cure}"
        raise ConfigurationError([(f"network.{role}", text)])
    if not got.is_floating_point():
        text = f"{name} gives numbers of {got.dtype}, and reals are expected. Change its last layer to give those."
        raise ConfigurationError([(f"network.{role}", text)])
    if any(argument._version for argument in arguments):  # counts operations in place
        text = f"{name} changes the tensor that it is given. Use operations that make a new one: x * 2, not x.mul_(2)."
        raise ConfigurationError([(f"network.{role}", text)])
