"""The Lightning callback: the scores of `score`, in one process and in two; module and random state as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn

from latentia.data import Digits
from latentia.errors import ConfigurationError, DataError
from latentia.metrics import score

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own: workers, log intervals, devices

DIGITS = Digits().load()
REAL, FAKE = DIGITS.test.x[:101], DIGITS.train.x[:101]


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
        self.place = 0
        self.noise: list[Tensor] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        self.noise.append(torch.rand(1))
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


def shares(module: Any, n: int) -> Tensor:
    """The images of FAKE, each once: those of this process, in order."""
    assert not module.training
    own = FAKE[module.global_rank :: module.trainer.world_size]
    module.place += n
    return own[module.place - n : module.place]


def trained(callback: Any, folder: Path, epochs: int = 1, validate: bool = True, **options: Any) -> Any:
    torch.manual_seed(0)
    model = Model()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(8, 2)), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback] if callback else [],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
        **{"devices": 1, **options},
    )
    trainer.fit(model, loader, loader if validate else None)
    return trainer, model


@pytest.mark.parametrize("validate", [True, False])
def test_scores_are_those_of_score(tmp_path: Path, validate: bool) -> None:
    from latentia.metrics.lightning import ScoreSamples

    callback = ScoreSamples(shares, REAL, n=len(FAKE), metrics=["kernel", "neighbors"], batch_size=40)
    trainer, model = trained(callback, tmp_path, validate=validate)
    expected = {e.name: e for e in score(REAL, FAKE, metrics=["kernel", "neighbors"], real_vs_real=False)}
    assert set(expected) == {e.name for e in callback.estimates}
    for estimate in callback.estimates:
        assert estimate.value == pytest.approx(expected[estimate.name].value, rel=1e-5, abs=1e-7)
        logged = trainer.callback_metrics[f"{estimate.name}"]
        assert logged.item() == pytest.approx(estimate.value, rel=1e-5, abs=1e-7)
        assert trainer.callback_metrics[f"{estimate.name}/stderr"].item() == pytest.approx(estimate.stderr, rel=1e-4)
    assert model.training


def test_training_draws_the_same_random_numbers_with_the_callback(tmp_path: Path) -> None:
    from latentia.metrics.lightning import ScoreSamples

    callback = ScoreSamples(lambda _, n: torch.rand(n, 1, 8, 8), REAL, n=60, metrics=["kernel"])
    _, scored = trained(callback, tmp_path, epochs=2)
    _, plain = trained(None, tmp_path, epochs=2)
    assert torch.equal(torch.cat(scored.noise), torch.cat(plain.noise))


def test_scores_come_every_so_many_epochs(tmp_path: Path) -> None:
    from latentia.metrics.lightning import ScoreSamples

    asked: list[int] = []

    def sample(module: Any, n: int) -> Tensor:
        asked.append(module.trainer.current_epoch)
        return FAKE[:n]

    trained(ScoreSamples(sample, REAL, n=50, metrics=["kernel"], every_n_epochs=2), tmp_path, epochs=5)
    assert asked == [1, 3]


@pytest.mark.slow
def test_two_processes_score_the_whole(tmp_path: Path) -> None:
    from latentia.metrics.lightning import ScoreSamples

    callback = ScoreSamples(shares, REAL, n=len(FAKE), metrics=["kernel", "neighbors"], batch_size=40)
    trainer, _ = trained(callback, tmp_path, devices=2, strategy="ddp_spawn")
    for estimate in score(REAL, FAKE, metrics=["kernel", "neighbors"], real_vs_real=False):
        assert trainer.callback_metrics[estimate.name].item() == pytest.approx(estimate.value, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["n", "every_n_epochs", "batch_size"])
def test_numbers_below_one_are_refused(name: str) -> None:
    from latentia.metrics.lightning import ScoreSamples

    with pytest.raises(ConfigurationError) as caught:
        ScoreSamples(shares, REAL, **{name: 0})
    assert caught.value.problems[0][0] == name


@pytest.mark.parametrize("given", [None, FAKE[:0], FAKE])
def test_samples_of_another_number_are_refused(tmp_path: Path, given: Tensor | None) -> None:
    from latentia.metrics.lightning import ScoreSamples

    with pytest.raises(DataError, match="sample"):
        trained(ScoreSamples(lambda _module, _n: given, REAL, n=10, metrics=["kernel"]), tmp_path)
