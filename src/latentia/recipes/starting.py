"""How a run starts from another: the weights that both models share, and the parts that training leaves as they are.

    latentia train vae data=fashion-mnist init_from=runs/mnist freeze=[encoder]

Weights are matched by name and shape. What a model does not find in the other run keeps the usual initial weights, and
is listed in environment.json and at the start of training.
"""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from latentia.errors import ConfigurationError, RunError, nearest
from latentia.files import hash_of_file
from latentia.training import RunDirectory

PART_NAMES = {"posterior": "encoder", "likelihood": "decoder", "prior_module": "prior"}  # of a VAE's modules


@dataclass(frozen=True)
class InitialWeights:
    """The weights of a finished run, to start from.

    Attributes:
        run: its directory, as it was given.
        tensors: by name.
        sha256: of its file of weights.
    """

    run: str
    tensors: dict[str, Tensor]
    sha256: str

    @classmethod
    def read(cls, run: str) -> InitialWeights:
        """Read them.

        Raises:
            ConfigurationError: for a folder that holds no finished run.
        """
        directory = RunDirectory(run)
        try:
            directory.recipe()
            return cls(run, directory.weights(), hash_of_file(Path(run) / "weights.safetensors"))
        except RunError as error:
            raise ConfigurationError([("init_from", str(error))]) from None

    def load_into(self, model: nn.Module) -> dict[str, Any]:
        """Load the weights whose name and shape match those of the model.

        Returns:
            What environment.json says of it: the run, how many tensors were taken, the names that the model has alone
            (or in another shape), and those that the other run has alone.

        Raises:
            ConfigurationError: if the two share no matrix of weights; biases alone are of no use.
        """
        own = model.state_dict()
        shared = {name: value for name, value in self.tensors.items() if name in own and value.shape == own[name].shape}
        if not any(name in shared and value.dim() > 1 for name, value in model.named_parameters()):
            reshaped = [name for name in self.tensors if name in own and name not in shared]
            if reshaped:
                name = reshaped[0]
                first = f"{name} is {_shape(self.tensors[name])} there and {_shape(own[name])} here"
            else:
                first = f"it has {next(iter(self.tensors), 'none')}, and this model {next(iter(own), 'none')}"
            text = f"no matrix of weights of {self.run} has the name and shape of one of this model ({first})"
            cure = f"Give the networks and the latent dimension of {self.run}, or leave init_from out"
            raise ConfigurationError([("init_from", f"{text}. {cure}")])
        model.load_state_dict(shared, strict=False)
        return {
            "run": self.run,
            "weights_sha256": self.sha256,
            "taken": len(shared),
            "left_out_here": sorted(set(own) - set(shared)),
            "left_out_there": sorted(set(self.tensors) - set(shared)),
        }


def describe_start(facts: dict[str, Any]) -> list[str]:
    """Lines that say what was taken from the other run and what was left out."""
    here, there = facts["left_out_here"], facts["left_out_there"]
    lines = [f"init_from={facts['run']}: {facts['taken']} tensors have the name and shape of one there, and start so"]
    if here:
        lines.append(f"of this model alone, with the usual initial values: {_listed(here)}")
    if there:
        lines.append(f"of {facts['run']} alone, left out: {_listed(there)}")
    return lines


def freeze_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Take the named parts of a model out of training.

    Raises:
        ConfigurationError: for a part that the model does not have, or that has no parameters, or if nothing is left.
    """
    parts = {PART_NAMES.get(name, name): part for name, part in model.named_children()}
    parts = {name: part for name, part in parts.items() if next(part.parameters(), None) is not None}
    for name in names:
        if name not in parts:
            text = f"this model has no part {name!r} with parameters"
            raise ConfigurationError([("freeze", f"{text}. {nearest(name, parts)}")])
        parts[name].requires_grad_(False).eval()
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        text = f"nothing is left to train; the parts of this model are {', '.join(parts)}"
        raise ConfigurationError([("freeze", f"{text}. Freeze fewer of them")])


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown} and {len(names) - 6} more (all in environment.json)" if len(names) > 6 else shown


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"
