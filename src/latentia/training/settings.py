"""How long and how a game is trained: the settings that all recipes share."""

from __future__ import annotations

__all__ = ["Training"]

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from latentia.configuration import Component, OneOf
from latentia.training.loggers import Logger


class Training(Component):
    """The settings of `fit`; every recipe has them as its own keys."""

    epochs: int = Field(default=20, ge=1, le=10**9, description="passes through the training data")
    batch_size: int = Field(default=128, ge=1, description="examples in a step, over all processes")
    seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the weights, the order of the data and all noise")
    clip: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="largest norm of a player's gradient; null for no limit"
    )
    ema: float | None = Field(default=None, gt=0, lt=1, description="decay of averaged weights; null for none")
    validate_every: int = Field(default=1, ge=1, description="epochs between validations")
    patience: int | None = Field(
        default=None, ge=1, description="validations without improvement before stopping; null to go on to the end"
    )
    keep: Literal["last", "best"] = Field(default="last", description="which weights the run ends with")
    checkpoint_every: float = Field(
        default=1.0, gt=0, le=1e9, description="epochs between checkpoints; may be a fraction of one"
    )
    checkpoints: int = Field(
        default=2, ge=1, description="how many of the newest checkpoints are kept, besides the best"
    )
    record_every: int = Field(default=50, ge=1, description="steps between records of the costs")
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        default="auto", description="type of device; auto takes a GPU where there is one"
    )
    devices: int = Field(default=1, ge=1, description="processes on this machine")
    precision: Literal["32-true", "bf16-mixed"] = Field(
        default="32-true", description="of the costs: float32, or bfloat16 where it is safe"
    )
    matmul: Literal["auto", "highest", "high", "medium"] = Field(
        default="auto",
        description="torch's setting of float32 matrix products; auto takes the faster one with whole float32 digits",
    )
    compile: bool | Literal["auto", "cuda-graphs"] = Field(
        default="auto",
        description="compile each player's cost with its gradients; auto does where a long run gains by it; "
        "cuda-graphs replays the programs on a GPU as recorded graphs",
    )
    loggers: tuple[OneOf[Logger], ...] = Field(
        default=(), description="other places that get the records: [tensorboard, csv, wandb, mlflow]"
    )

    @field_validator("compile", mode="before")
    @classmethod
    def _one_of_four(cls, value: object) -> object:
        """`on`, `off`, 1 and 0 are true and false, as everywhere."""
        known = {
            "true": True,
            "on": True,
            "yes": True,
            "1": True,
            "false": False,
            "off": False,
            "no": False,
            "0": False,
        }
        given = known.get(str(value).lower(), value)
        if not isinstance(given, bool) and given not in ("auto", "cuda-graphs"):
            raise ValueError("give one of auto, true, false, cuda-graphs")
        return given

    @model_validator(mode="after")
    def _early_stopping_keeps_the_best(self) -> Self:
        if self.patience is not None and self.keep == "last":
            raise ValueError(
                "patience stops a run that no longer improves, whose last weights are not its best; set keep=best"
            )
        return self
