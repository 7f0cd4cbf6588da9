"""A run: a trained model with its recipe, data, records and estimates, read from its directory."""

from __future__ import annotations

__all__ = ["Run", "load"]

import math
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from html import escape
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from torch import nn

from latentia.data import Batch, Schema, Source, Splits, ToyDistribution
from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate, read_estimates, write_estimates
from latentia.files import hash_of_file, read_tensors, write_tensors
from latentia.models import VAE, ConditionalVAE
from latentia.recipes.recipe import Recipe
from latentia.samplers import FittedSampler, Sampler, fit_sampler, parse_sampler, with_prior
from latentia.training import RunDirectory, seed_of, seeded
from latentia.training.checkpoint import find_checkpoints

if TYPE_CHECKING:
    from latentia.sharing.exporting import Format

ModelT = TypeVar("ModelT")

MOST_NUMBERS = 10**9  # of the images that a sampler is fitted to; 1.2 million of 28×28


class Run(Generic[ModelT]):
    """A run read from its directory; `Run[VAE]` is one whose model is a VAE.

    Nothing is read before it is asked for, except the recipe.

    Args:
        path: the run directory, or `hf://user/name` for a run that was shared on the Hugging Face Hub.
        **replaced: recipe fields that replace those on disk: `network=Custom(…)` for networks of your own, `data=x` for
            data that were given in Python.

    Raises:
        RunError: for a folder that is not a run directory, or whose recipe is damaged.
        ConfigurationError: for a recipe that this version cannot read.
    """

    def __init__(self, path: Path | str, **replaced: Any):
        if str(path).startswith("hf://"):
            from latentia.sharing import pull

            path = pull(str(path))
        self.directory = RunDirectory(path)
        try:
            self.recipe = Recipe.parse(_with_replaced(self.directory.recipe(), replaced))
        except ConfigurationError as error:
            raise name_file(error, self.directory.recipe_file, replaced) from None
        self._splits: Splits | None = None
        self._model: ModelT | None = None
        self._parts: dict[str, Batch] = {}
        self._plots: Any = None

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.directory.path

    @property
    def environment(self) -> dict[str, Any]:
        """The content of environment.json: versions, machine, data, seconds of training."""
        return self.directory.environment()

    @property
    def model(self) -> ModelT:
        """The trained model, in evaluation mode.

        Raises:
            RunError: for a run that has not ended, or weights that are damaged or of another model.
        """
        if self._model is None:
            weights = self.directory.weights()
            changed = self.directory.changes_of_recipe()
            if changed:
                warnings.warn(changed, RuntimeWarning, stacklevel=2)
            model = self.recipe.build(Schema.from_mapping(self.environment))
            try:
                model.load_state_dict(weights)
            except RuntimeError as error:
                first = str(error).split("\n\t")[1] if "\n\t" in str(error) else str(error)
                cure = changed or "give the networks that the run was trained with, or train again"
                raise RunError(f"the weights in {self.path} do not fit the recipe's model: {first}; {cure}") from None
            self._model = cast(ModelT, model.eval())
        return self._model

    @property
    def splits(self) -> Splits:
        """The run's data, loaded again.

        Raises:
            RunError: if they are not the bits that the run was trained on.
        """
        if self._splits is None:
            splits = self.recipe.data.load()
            if splits.content_hash != self.environment["data_hash"]:
                raise RunError(
                    f"the data that {self.recipe.data.type_name} loads now are not those of the run {self.path}; bring "
                    "the files back that it was trained on, or give other data by name"
                )
            self._splits = splits
        return self._splits

    def sampler(
        self, sampler: str | Sampler = "mixture", progress: Callable[[int, int], None] | None = None
    ) -> FittedSampler:
        """A sampler fitted to the codes of the training images, with the model that samples by it.

        It is fitted once, kept in samplers/, and fitted again when the weights or its settings have changed. What it
        gains is in evaluation/sampler-<name>.json.

        Args:
            sampler: a name such as `mixture`, with settings as in `mixture,components=50`, or a `Sampler`.
            progress: is called with the number of steps of the fit done and the most that there are.

        Raises:
            RunError: a model that is not a VAE, or a run that has not ended.
        """
        sampler, vae = parse_sampler(sampler), self.model
        if isinstance(vae, ConditionalVAE):
            text = "whose codes depend on the label; sample it by --label, or train it with conditional_prior=true"
            raise RunError(f"{self.path} holds a class-conditional VAE, {text}")
        if not isinstance(vae, VAE):
            raise RunError(
                f"{self.path} holds a {type(vae).__name__}; a sampler takes the place of the prior of a VAE, and is "
                "fitted to the codes of its encoder. Sample this model without a sampler"
            )
        weights = hash_of_file(self.path / "weights.safetensors")
        facts = {"sampler": sampler.to_mapping(), "weights": weights[:16]}
        file = self.path / "samplers" / f"{sampler.type_name}.safetensors"
        about = self.directory.evaluation / f"sampler-{sampler.type_name}.json"
        if file.exists() and about.exists():
            cure = "remove it, and the sampler is fitted again"
            estimates = read_estimates(about)
            if estimates and all({**e.settings, **facts} == e.settings for e in estimates):
                module = sampler.build(vae.latent)
                try:
                    module.load_state_dict(read_tensors(file, cure)[0])
                except RuntimeError:
                    raise RunError(f"{file} is damaged: it is not a {sampler.type_name} sampler; {cure}") from None
                module.eval().requires_grad_(False)
                return FittedSampler(sampler, with_prior(vae, module), estimates)
        most = MOST_NUMBERS // math.prod(vae.event_shape)
        images = self.splits.examples("train", most).x
        with seeded(seed_of("sampler", self.recipe.seed)):
            fitted = fit_sampler(sampler, vae, images, self.validation.x, progress)
        found = [replace(estimate, settings={**estimate.settings, **facts}) for estimate in fitted.estimates]
        try:
            write_tensors(file, fitted.vae.prior_module.state_dict())
            write_estimates(about, found)
        except RunError as error:
            warnings.warn(f"the sampler is not kept: {error}", RuntimeWarning, stacklevel=2)
        return FittedSampler(sampler, fitted.vae, found)

    @property
    def test(self) -> Batch:
        """The test split as the model sees it: `run.test.x` and `run.test.labels`."""
        return self._part("test")

    @property
    def validation(self) -> Batch:
        """The validation split as the model sees it: `run.validation.x` and `run.validation.labels`."""
        return self._part("validation")

    def _part(self, which: Literal["validation", "test"]) -> Batch:
        if which not in self._parts:
            self._parts[which] = self.splits.examples(which)
        return self._parts[which]

    @property
    def records(self) -> list[dict[str, Any]]:
        """All that was recorded during training, in order."""
        return self.directory.records()

    @property
    def history(self) -> dict[str, tuple[list[int], list[float]]]:
        """Steps and values of every recorded name: `steps, costs = run.history["vae/cost"]`."""
        found: dict[str, tuple[list[int], list[float]]] = {}
        for record in self.records:
            steps, values = found.setdefault(record["name"], ([], []))
            steps.append(record["step"])
            values.append(record["value"])
        return found

    @property
    def estimates(self) -> list[Estimate]:
        """The estimates of the end of training, on the test split."""
        return self.directory.evaluations().get("training", [])

    @property
    def status(self) -> str:
        """`ended`, `in training by …`, or `stopped after step …`."""
        holder = self.directory.holder()
        if holder:
            return f"in training by {holder}"
        if (self.path / "weights.safetensors").exists():
            longer = [f"extended from {each['from']} to {each['to']} epochs" for each in self._extensions]
            return ", ".join(["ended", *longer])
        found = find_checkpoints(self.directory.checkpoints)
        return f"stopped after step {int(found[-1].name[5:])}" if found else "not begun"

    @property
    def _extensions(self) -> list[dict[str, Any]]:
        try:
            return self.environment.get("extended", [])
        except RunError:  # the status of a damaged run can be shown as well
            return []

    def export(
        self, out: Path | str | None = None, *, format: Format = "onnx", parts: str | Iterable[str] | None = None
    ) -> list[Path]:
        """Write the model's networks for other programs: see `latentia.sharing.export`.

        Args:
            out: the folder; `export` in the run directory by default.
            format: `onnx`, `torch-export` or `safetensors`.
            parts: such as `encoder,decoder`; all by default.
        """
        from latentia.sharing import export

        about = {
            "run": self.path.name,
            "recipe": self.recipe.type_name,
            "data": self.recipe.data.type_name,
            "classes": list(self.environment["classes"]),
        }
        model = cast(nn.Module, self.model)
        return export(model, self.path / "export" if out is None else out, format=format, parts=parts, about=about)

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Share the run on the Hugging Face Hub with a model card: see `latentia.sharing.push`.

        Args:
            name: of the repository, `user/name`.
            private: whether a new repository is visible to its owner alone.
            token: of the Hub; the stored one by default.

        Returns:
            The address of the repository.
        """
        from latentia.sharing import push

        return push(self.path, name, private=private, token=token)

    @property
    def plot(self) -> Any:
        """The run's pictures as matplotlib figures: `run.plot.samples()`; see `latentia.reports.gallery.Plots`.

        Raises:
            RunError: for a run that has not ended.
        """
        if self._plots is None:
            self._plots = import_module("latentia.reports.gallery").Plots(self)  # by name: pictures are made of runs
        return self._plots

    def explore(self, out: Path | str | None = None, **options: Any) -> Any:
        """Write the explorer of this run, explorer.html; see `latentia.explore`. In a notebook it shows itself."""
        interface = import_module("latentia.interface")  # by name: the explorer is built on runs
        return interface.explore(self, out, **options)

    def _summary(self) -> list[tuple[str, str]]:
        return [
            ("recipe", f"{self.recipe.type_name} on {self.recipe.data.type_name}, {self.recipe.epochs} epochs"),
            ("status", self.status),
            *((estimate.name, str(estimate)) for estimate in self.estimates),
        ]

    def __repr__(self) -> str:
        lines = "\n".join(f"  {name}: {value}" for name, value in self._summary())
        return f"Run({str(self.path)!r})\n{lines}"

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in self._summary())
        return f"<table><caption>{escape(str(self.path))}</caption>{rows}</table>"


def _with_replaced(written: dict[str, Any], replaced: dict[str, Any]) -> dict[str, Any]:
    """The recipe on disk with replaced fields; data given in Python keep the settings that the run had."""
    data, before = replaced.get("data"), written.get("data")
    known = data is None or isinstance(data, Source | ToyDistribution | str | dict)
    if not known and isinstance(before, dict) and before.get("type") == "memory":
        replaced = {**replaced, "data": {**before, "data": data}}
    return {**written, **replaced}


def name_file(error: ConfigurationError, file: Path, given: Collection[str]) -> ConfigurationError:
    """The faults of a recipe that was read from a file, except those of the keys that were given besides it."""
    cure = "; bring the file back from a copy if it is damaged, or import the module of a class of yours first"
    return ConfigurationError(
        [
            (key, text) if key.split(".")[0] in given else (f"{file}: {key}" if key else str(file), text + cure)
            for key, text in error.problems
        ]
    )


def load(path: Path | str, **replaced: Any) -> Any:
    """The trained model of a run directory, such as a `VAE` or a `GAN`, in evaluation mode.

    Args:
        path: the run directory, or `hf://user/name`.
        **replaced: see `Run`.

    Raises:
        RunError: for a directory that holds no finished run.
    """
    return cast(nn.Module, Run(path, **replaced).model)
