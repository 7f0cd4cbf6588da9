"""Other places that get the records of a training: TensorBoard, Weights & Biases, MLflow, a CSV table.

A logger gets what metrics.jsonl gets, at the same steps: each value under its name, its standard error under
`name/stderr`, the recipe as the run's configuration, and pictures that appear in figures/. The records stay the
authority: a logger that fails during training is named in a warning and left out, and the training goes on. A resumed
run goes on in the same TensorBoard folder, CSV table, W&B run or MLflow run.
"""

from __future__ import annotations

__all__ = ["CSV", "Logger", "MLflow", "TensorBoard", "WandB"]

import csv
import math
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from latentia.configuration import Component
from latentia.errors import LatentiaError, RunError, first_line
from latentia.estimate import Estimate
from latentia.files import atomic_write


class Log(ABC):
    """An open logger."""

    @abstractmethod
    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Keep finite values of one step."""

    def picture(self, step: int, path: Path) -> None:  # noqa: B027
        """Keep a PNG, where the place takes pictures."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class Logger(Component, family=True):
    """A place that gets the records; see the module's docstring."""

    @abstractmethod
    def open(self, folder: Path, recipe: Mapping[str, Any], step: int) -> Log:
        """Begin, or go on after a step.

        Args:
            folder: the run directory.
            recipe: as plain data.
            step: the last step that is kept; 0 at the beginning.

        Raises:
            RunError: if the package is not installed, or the place cannot be written.
        """


class TensorBoard(Logger, name="tensorboard"):
    """Event files in RUN/tensorboard (extra: tensorboard)."""

    def open(self, folder: Path, recipe: Mapping[str, Any], step: int) -> Log:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise _missing("tensorboard", "tensorboard") from None
        return _TensorBoardLog(
            SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None), recipe
        )


class _TensorBoardLog(Log):
    def __init__(self, writer: Any, recipe: Mapping[str, Any]):
        import yaml

        self._writer = writer
        text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
        writer.add_text("recipe", "    " + text.replace("\n", "\n    "))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            self._writer.add_image(path.stem, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class CSV(Logger, name="csv"):
    """RUN/metrics.csv with the columns step, name, value: one row for each value."""

    def open(self, folder: Path, recipe: Mapping[str, Any], step: int) -> Log:
        path = folder / "metrics.csv"
        rows = list(_rows(path, step)) if step else []
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["step", "name", "value"], *rows])
        return _CSVLog(path)


def _rows(path: Path, step: int) -> Iterator[list[str]]:
    """The sound rows up to a step."""
    if path.exists():
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            for row in csv.reader(file):
                if len(row) == 3 and row[0].isdigit() and int(row[0]) <= step:
                    yield row


class _CSVLog(Log):
    def __init__(self, path: Path):
        self._path = path

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        with self._path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([step, name, repr(value)] for name, value in values.items())

    def close(self) -> None:
        pass


class WandB(Logger, name="wandb"):
    """A run of Weights & Biases (extra: wandb); offline files lie in RUN/wandb and go up by `wandb sync`."""

    project: str = Field(default="latentia", min_length=1, description="the project")
    mode: Literal["online", "offline"] = Field(default="online", description="offline keeps files for `wandb sync`")

    def open(self, folder: Path, recipe: Mapping[str, Any], step: int) -> Log:
        try:
            import wandb
        except ImportError:
            raise _missing("wandb", "wandb") from None
        try:
            run = wandb.init(
                project=self.project,
                name=folder.name,
                id=_identity(folder, self.type_name, uuid.uuid4().hex[:12], step),
                resume="allow",
                dir=str(folder),
                config=dict(recipe),
                mode=self.mode,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, OSError) as error:
            cure = "log in with `wandb login`, or set loggers=[{type: wandb, mode: offline}]"
            raise RunError(f"Weights & Biases cannot begin a run ({first_line(error)}); {cure}") from None
        return _WandBLog(wandb, run)


class _WandBLog(Log):
    def __init__(self, wandb: Any, run: Any):
        self._wandb, self._run = wandb, run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, step: int, path: Path) -> None:
        self._run.log({path.stem: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow(Logger, name="mlflow"):
    """A run of MLflow (extra: mlflow), in RUN/mlflow.db unless `uri` names a tracking server."""

    uri: str | None = Field(
        default=None, description="of the tracking server; null for a database in the run directory"
    )
    experiment: str = Field(default="latentia", min_length=1, description="the experiment")

    def open(self, folder: Path, recipe: Mapping[str, Any], step: int) -> Log:
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise _missing("mlflow", "mlflow") from None
        uri = self.uri or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
        try:
            client = MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(self.experiment)
            place = None if self.uri else (folder / "mlflow").resolve().as_uri()
            experiment = found.experiment_id if found else client.create_experiment(self.experiment, place)
            run = _identity(folder, self.type_name, "", step)
            if not run:
                run = client.create_run(experiment, run_name=folder.name).info.run_id
                _identity(folder, self.type_name, run, 0)
                for key, value in _flat(recipe):
                    client.log_param(run, key, value)
            client.update_run(run, status="RUNNING")
        except (MlflowException, OSError) as error:
            raise RunError(
                f"MLflow cannot write to {uri} ({first_line(error)}); set another uri of the logger"
            ) from None
        return _MLflowLog(client, run)


class _MLflowLog(Log):
    def __init__(self, client: Any, run: str):
        self._client, self._run = client, run

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, 0, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def picture(self, step: int, path: Path) -> None:
        self._client.log_artifact(self._run, str(path), "figures")

    def close(self) -> None:
        self._client.set_terminated(self._run)


class Logs:
    """All loggers of a training. A logger that fails is closed, with a warning, and the others go on.

    Args:
        loggers: to open.
        folder: the run directory.
        recipe: as plain data.
        step: the last step that is kept.
        warn: shows a warning.
    """

    def __init__(self, loggers: Sequence[Logger], folder: Path, recipe: Mapping[str, Any], step: int, warn: Any):
        self._folder, self._warn, self._step = folder, warn, step
        self._open: dict[str, Log] = {}
        try:
            for logger in loggers:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the clients, about their own future
                    self._open[logger.type_name] = logger.open(folder, recipe, step)
        except BaseException:
            self.close()
            raise
        self._seen = self._pictures()

    def record(self, step: int, estimates: Sequence[Estimate]) -> None:
        """Give the estimates of a step, and new pictures, to all."""
        if not self._open:
            return
        self._step = step
        values = {estimate.name: estimate.value for estimate in estimates}
        values |= {f"{estimate.name}/stderr": estimate.stderr for estimate in estimates if estimate.stderr is not None}
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._each(lambda log: log.scalars(step, finite))
        self._give_pictures()

    def close(self) -> None:
        """Give the last pictures and close all."""
        self._seen = getattr(self, "_seen", self._pictures())
        self._give_pictures()
        self._each(lambda log: log.close())
        self._open.clear()

    def _give_pictures(self) -> None:
        now = self._pictures()
        for path, changed in now.items():
            if self._seen.get(path) != changed:
                self._each(lambda log, path=path: log.picture(self._step, path))
        self._seen = now

    def _pictures(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted((self._folder / "figures").glob("[!.]*.png"))}

    def _each(self, action: Any) -> None:
        for name, log in list(self._open.items()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    action(log)
            except LatentiaError:
                raise
            except Exception as error:  # a client's failure, of whatever type, must not cost the run
                del self._open[name]
                self._warn(
                    f"the logger {name} failed ({first_line(error)}) and gets no more; metrics.jsonl has all records"
                )


def _identity(folder: Path, kind: str, new: str, step: int) -> str:
    """The identity that a service knows the run by, kept in RUN/.KIND-run; `new` at the beginning of a run."""
    path = folder / f".{kind}-run"
    if step and path.exists():
        return path.read_text(encoding="utf-8").strip()
    if new:
        with atomic_write(path) as temporary:
            temporary.write_text(new + "\n", encoding="utf-8")
    return new


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), str(value)[:500]


def _missing(package: str, extra: str) -> RunError:
    return RunError(f"loggers=[{extra}] needs the package {package}; install it with pip install 'latentia[{extra}]'")
