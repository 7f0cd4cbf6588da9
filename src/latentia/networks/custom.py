"""A user's own modules in the place of a network.

    network = Custom(encoder=my_encoder, decoder=my_decoder)

The modules must map tensors of the shapes that the model needs; a batch of two zeros is run through each to see that
they do before anything is trained. What a module does with the range of its inputs is its own affair: images come
in [0, 1].

A recipe is text, so only the classes' names are written to it. A run made with custom modules is loaded by
passing the modules again; the weights then come from the run.
"""

from __future__ import annotations

__all__ = ["Custom"]

from typing import Any

import torch
from pydantic import ConfigDict, Field, model_serializer
from torch import Tensor, nn

from latentia.errors import ConfigurationError
from latentia.networks.network import Network


class Custom(Network):
    """Holds modules; the methods `encoder` and `decoder` return the very module given, so that training changes it.

    Class-conditional modules take (x, labels) and (z, labels). One of the two may be left out where the model has no
    use for it.

    Attributes:
        encoder_module: passed as `encoder`; a module, or the name of its class as read from a recipe.
        decoder_module: passed as `decoder`, likewise.
    """

    model_config = ConfigDict(populate_by_name=True)

    encoder_module: nn.Module | str | None = Field(default=None, alias="encoder")
    decoder_module: nn.Module | str | None = Field(default=None, alias="decoder")

    def encoder(self, input_shape: tuple[int, ...], outputs: int, classes: int = 0) -> nn.Module:
        """Return the user's encoder once it has been seen to map (2, *input_shape) to (2, outputs).

        Raises:
            ConfigurationError: where there is no module, where it fails, and where its output has another shape.
        """
        module = _present(self.encoder_module, "encoder")
        _probe(module, "encoder", tuple(input_shape), (outputs,), classes)
        return module

    def decoder(self, inputs: int, output_shape: tuple[int, ...], classes: int = 0) -> nn.Module:
        """Return the user's decoder once it has been seen to map (2, inputs) to (2, *output_shape).

        Raises:
            ConfigurationError: where there is no module, where it fails, and where its output has another shape.
        """
        module = _present(self.decoder_module, "decoder")
        _probe(module, "decoder", (inputs,), tuple(output_shape), classes)
        return module

    @model_serializer(mode="wrap")
    def _serialize(self, handler: Any) -> dict[str, Any]:  # under the names that people write; modules as class names
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
            f"the {role} of this recipe is a module of the class {module}, and a recipe holds no modules. Pass them: "
            "latentia.load(run, network=Custom(encoder=..., decoder=...)), or Custom(...) in a recipe made in Python."
        )
    raise ConfigurationError([(f"network.{role}", text)])


def _probe(module: nn.Module, role: str, given: tuple[int, ...], wanted: tuple[int, ...], classes: int) -> None:
    """Run two zeros through the module in evaluation mode, and leave it as it was found."""
    name, expected = type(module).__name__, (2, *wanted)
    first = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    arguments = [torch.zeros(2, *given, device=first.device, dtype=first.dtype)]
    if classes:
        arguments.append(torch.zeros(2, device=first.device, dtype=torch.int64))
    takes = " and ".join(str(tuple(argument.shape)) for argument in arguments)
    modes = {part: part.training for part in module.modules()}
    try:
        with torch.no_grad():
            got = module.eval()(*arguments)
    except Exception as error:
        cure = (
            f"With {classes} classes its forward must take (x, labels)."
            if classes
            else "Its forward must take one tensor."
        )
        text = f"{name} fails on zeros of shape {takes}, where {expected} is wanted: {error}. {cure}"
        raise ConfigurationError([(f"network.{role}", text)]) from error
    finally:
        for part, training in modes.items():
            part.training = training
    shown = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
    if shown != expected:
        cure = "Change its last layer to give that."
        text = f"{name} maps zeros of shape {takes} to {shown}, and {expected} is expected. {cure}"
        raise ConfigurationError([(f"network.{role}", text)])
