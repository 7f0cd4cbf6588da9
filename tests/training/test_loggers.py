"""Loggers get the records of the run, in files that the real clients read back."""

from __future__ import annotations

import csv
import json
import math
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from latentia.errors import ConfigurationError, Interrupted, RunError
from latentia.estimate import Estimate
from latentia.recipes import Run, VAERecipe, train
from latentia.training import CSV, MLflow, TensorBoard, WandB
from latentia.training.loggers import Log, Logger, Logs

SMALL: dict[str, Any] = {
    "data": {"type": "digits", "binarize": "dynamic"},
    "network": {"type": "mlp", "hidden": [8]},
    "epochs": 2,
    "record_every": 5,
}


def recorded(run: Run) -> dict[tuple[int, str], float]:
    """What the loggers are to hold: values and standard errors by step and name."""
    found = {}
    for record in run.records:
        found[record["step"], record["name"]] = record["value"]
        if record["stderr"] is not None:
            found[record["step"], f"{record['name']}/stderr"] = record["stderr"]
    return {key: value for key, value in found.items() if math.isfinite(value)}


def test_event_files(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(VAERecipe(**SMALL, loggers=[TensorBoard()]), tmp_path / "run", quiet=True)
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    written = {(e.step, name): e.value for name in events.Tags()["scalars"] for e in events.Scalars(name)}
    assert written == {key: pytest.approx(value, rel=1e-6) for key, value in recorded(run).items()}


def test_table(tmp_path: Path) -> None:
    run = train(VAERecipe(**SMALL, loggers=["csv"]), tmp_path / "run", quiet=True)
    with (run.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(int(row["step"]), row["name"]): float(row["value"]) for row in rows} == recorded(run)


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log with a header of 7 bytes: blocks of 32 KiB, parts with CRC, length and type."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = train(VAERecipe(**SMALL, loggers=[WandB(mode="offline")]), tmp_path / "run", quiet=True)
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    assert (run.path / ".wandb-run").read_text().strip() in file.name
    from wandb.proto.wandb_internal_pb2 import Record

    found, config = {}, {}
    for data in log_records(file.read_bytes()):
        record = Record.FromString(data)
        for item in record.run.config.update:
            config[item.key] = json.loads(item.value_json)
        values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        step = record.history.step.num
        found |= {(step, name): value for name, value in values.items() if not name.startswith("_")}
    assert found == recorded(run)
    assert config["epochs"] == 2
    assert wandb.run is None


def test_mlflow(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    run = train(VAERecipe(**SMALL, loggers=[MLflow()]), tmp_path / "run", quiet=True)
    client = MlflowClient(tracking_uri=f"sqlite:///{run.path.resolve()}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'latentia'")
    (there,) = client.search_runs([experiment.experiment_id])
    assert there.info.status == "FINISHED"
    assert there.data.params["objective.type"] == "elbo"
    names = {name for _, name in recorded(run)}
    assert set(there.data.metrics) == names
    history = {(m.step, name): m.value for name in names for m in client.get_metric_history(there.info.run_id, name)}
    assert history == recorded(run)


def test_an_interrupted_run_goes_on_in_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Counter[str]()
    original = Logs.record

    def stopping(self: Logs, step: int, estimates: list[Estimate]) -> None:
        original(self, step, estimates)
        calls["records"] += 1
        if calls["records"] == 3:
            raise KeyboardInterrupt

    recipe = VAERecipe(**SMALL, loggers=["csv"], checkpoint_every=0.1)
    whole = train(recipe, tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr(Logs, "record", stopping)
        with pytest.raises((Interrupted, KeyboardInterrupt)):
            train(recipe, tmp_path / "run", quiet=True)
    train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


class Failing(Logger):
    """Fails at its second record."""

    def open(self, folder: Path, recipe: Any, step: int) -> Log:
        class Its(Log):
            count = 0

            def scalars(self, step: int, values: Any) -> None:
                self.count += 1
                if self.count == 2:
                    raise OSError("the server has gone")

            def close(self) -> None:
                raise AssertionError("a failed logger is left alone")

        return Its()


def test_a_logger_that_fails_does_not_cost_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(VAERecipe(**SMALL, loggers=[Failing(), CSV()]), tmp_path / "run", quiet=True)
    assert run.status == "ended"
    assert "the logger failing failed (the server has gone)" in "".join(capsys.readouterr())
    assert len((run.path / "metrics.csv").read_text().splitlines()) == len(recorded(run)) + 1


def test_pictures_are_given_once_each(tmp_path: Path) -> None:
    seen = []

    class Collecting(Logger, name="collecting"):
        """Keeps the names of pictures."""

        def open(self, folder: Path, recipe: Any, step: int) -> Log:
            class Its(Log):
                def scalars(self, step: int, values: Any) -> None: ...

                def picture(self, step: int, path: Path) -> None:
                    seen.append((step, path.name))

                def close(self) -> None: ...

            return Its()

    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old.png").write_bytes(b"x")
    logs = Logs([Collecting()], tmp_path, {}, 0, print)
    logs.record(1, [])
    (tmp_path / "figures" / "a.png").write_bytes(b"x")
    logs.record(2, [])
    logs.record(3, [])
    (tmp_path / "figures" / "b.png").write_bytes(b"x")
    logs.close()
    assert seen == [(2, "a.png"), (3, "b.png")]


@pytest.mark.parametrize(
    ("module", "logger", "cure"),
    [
        ("torch.utils.tensorboard", "tensorboard", r"latentia\[tensorboard\]"),
        ("wandb", "wandb", r"latentia\[wandb\]"),
        ("mlflow.tracking", "mlflow", r"latentia\[mlflow\]"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, logger: str, cure: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RunError, match=cure):
        train(VAERecipe(**SMALL, loggers=[logger]), tmp_path / "run", quiet=True)


def test_mlflow_where_nothing_can_be_written(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(RunError, match="uri"):
        MLflow(uri="sqlite:////proc/none/x.db").open(tmp_path, {}, 0)


def test_unknown_loggers() -> None:
    with pytest.raises(ConfigurationError, match="tensorboard"):
        VAERecipe(loggers=["tensorbord"])
