"""Seeds trained at once: each step is the steps of the single runs, and what would mix the seeds is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from latentia.data import Batch, Digits, Ring
from latentia.distributions import Full, GaussianLearnedScale
from latentia.errors import ConfigurationError
from latentia.networks import DCGAN, MLP, R3GAN, Custom, Fourier, Residual
from latentia.objectives import (
    ELBO,
    IWAE,
    R1,
    R1R2,
    BetaTC,
    Clip,
    Consensus,
    DiffAugment,
    Info,
    NonSaturating,
    Progress,
    Relativistic,
    Wasserstein,
    ZeroCentered,
)
from latentia.recipes import GANRecipe, Recipe, VAERecipe
from latentia.recipes.train import build_games
from latentia.training import SGD, Adam, Game, Player, Worker, seed_of
from latentia.training.ensemble import stacked_game

SEEDS = (3, 0, 8)
TINY = MLP(hidden=(16, 16), activation="leaky-relu")
SMOOTH = Adam(lr=1e-2, epsilon=1e-2)  # a step that does not turn the rounding of a tiny gradient into a whole rate
RING: dict[str, Any] = {
    "data": Ring(),
    "latent": 2,
    "network": TINY,
    "batch_size": 12,
    "epochs": 2,
    "steps_per_epoch": 4,
    "generator_optimizer": SMOOTH,
    "discriminator_optimizer": SMOOTH,
    "accelerator": "cpu",
}
DIGITS = RING | {"data": Digits(), "batch_size": 20}
VAE: dict[str, Any] = {
    "data": Digits(binarize="dynamic"),
    "network": MLP(hidden=(16,)),
    "batch_size": 20,
    "epochs": 2,
    "optimizer": SMOOTH,
    "accelerator": "cpu",
}
RECIPES: dict[str, Recipe] = {
    "relativistic + r1r2": GANRecipe(**RING | {"loss": Relativistic(), "penalty": R1R2(gamma=0.2, final=0.01)}),
    "fourier, lazy r1": GANRecipe(**RING | {"network": Fourier(hidden=(8,), features=4), "penalty": R1(every=2)}),
    "zero-centered between": GANRecipe(**RING | {"loss": NonSaturating(), "penalty": ZeroCentered()}),
    "clipped wasserstein": GANRecipe(**RING | {"loss": Wasserstein(), "penalty": Clip(), "discriminator_steps": 2}),
    "conditional images": GANRecipe(**DIGITS | {"conditional": True, "augmentation": DiffAugment()}),
    "r3gan": GANRecipe(**DIGITS | {"network": R3GAN(width=4), "loss": Relativistic(), "penalty": R1R2()}),
    "dcgan": GANRecipe(**DIGITS | {"network": DCGAN(width=4), "penalty": R1()}),
    "vae": VAERecipe(**VAE),
    "iwae, full posterior": VAERecipe(**VAE | {"objective": IWAE(k=3), "posterior": Full(), "optimizer": SGD()}),
    "beta-vae, residual": VAERecipe(**VAE | {"network": Residual(width=4), "objective": ELBO(beta=2, samples=2)}),
}


def games_of(recipe: Recipe, seeds: tuple[int, ...] = SEEDS) -> tuple[Game, dict[int, Game]]:
    return build_games(recipe, seeds, recipe.data.load(), Worker())


class Noise:
    """In place of torch's draws: the stacked game gets all seeds' numbers, the game of a seed its own part of them.

    Every draw of a step has its number, so that both sides get the same draw for the same purpose.
    """

    def __init__(self, patch: pytest.MonkeyPatch):
        self.part: int | None = None
        self.key, self.number = 0, 0
        self._normal, self._rand, self._integers = torch.randn, torch.rand, torch.randint
        patch.setattr(torch.distributions.normal, "_standard_normal", lambda shape, **_: self.draw(self._normal, shape))
        patch.setattr(
            torch.distributions.multivariate_normal,
            "_standard_normal",
            lambda shape, **_: self.draw(self._normal, shape),
        )
        patch.setattr(torch, "randn", lambda shape, **_: self.draw(self._normal, shape))
        patch.setattr(torch, "randn_like", lambda like, **_: self.draw(self._normal, like.shape))
        patch.setattr(torch, "normal", lambda mean, std, **_: mean + std * self.draw(self._normal, mean.shape))
        patch.setattr(torch, "rand", lambda *shape, **_: self.draw(self._rand, shape))
        patch.setattr(torch, "randint", self._randint)

    def start(self, key: int, part: int | None) -> None:
        self.key, self.part, self.number = key, part, 0

    def _randint(self, low: int, high: int | tuple[int, ...], size: tuple[int, ...] | None = None, **_: Any) -> Tensor:
        low, high, size = (low, high, size) if size is not None else (0, low, high)  # type: ignore[assignment]
        return self.draw(lambda shape, generator: self._integers(low, high, shape, generator=generator), size)

    def draw(self, kind: Any, shape: Any) -> Tensor:
        """All seeds' numbers, (…, N·S, …), or every S-th of them, the batch being the first axis of 12, 20 or more."""
        self.number += 1
        generator = torch.Generator().manual_seed(1000 * self.key + self.number)
        shape = tuple(shape)
        axis = next(axis for axis, size in enumerate(shape) if size >= 12)
        if self.part is None:
            return kind(shape, generator=generator)
        whole = kind((*shape[:axis], shape[axis] * len(SEEDS), *shape[axis + 1 :]), generator=generator)
        return whole.unflatten(axis, (-1, len(SEEDS))).select(axis + 1, self.part)


def move(player: Player, optimizer: torch.optim.Optimizer, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    for parameter in player.parameters:
        parameter.grad = None
    terms = player.cost(batch, progress)
    terms["cost"].mean().backward(inputs=player.parameters)
    optimizer.step()
    if player.after is not None:
        player.after()
    return terms


def optimizers_of(game: Game) -> dict[str, torch.optim.Optimizer]:
    return {player.name: player.optimizer.build(player.parameters) for player in game.players}


def single_game(recipe: Recipe, like: nn.Module) -> Game:
    """An ordinary game that starts from the weights of another model, and shares nothing with it."""
    splits = recipe.data.load()
    model = recipe.build_model(splits.shape, len(splits.classes))
    model.load_state_dict(like.state_dict())
    return recipe.build_game(model, splits, Worker())


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_all_seeds_is_the_steps_of_the_single_games(name: str, monkeypatch: pytest.MonkeyPatch):
    recipe = RECIPES[name]
    whole, views = games_of(recipe)
    singles = {seed: single_game(recipe, views[seed].model) for seed in SEEDS}
    together = optimizers_of(whole)
    apart = {seed: optimizers_of(game) for seed, game in singles.items()}
    batches = [whole.draw(number) for number in range(4)]
    noise = Noise(monkeypatch)
    for step in range(3):
        progress = Progress(step, step / 4, whole.data_size)
        for index, player in enumerate(whole.players):
            key = 2 * step + index + 1
            batch = batches[step]
            noise.start(key, None)
            terms = move(player, together[player.name], batch, progress)
            assert torch.allclose(terms["cost"], sum(terms[f"cost@{seed}"] for seed in SEEDS))
            for part, seed in enumerate(SEEDS):
                noise.start(key, part)
                own = Batch(
                    batch.x[part :: len(SEEDS)], None if batch.labels is None else batch.labels[part :: len(SEEDS)]
                )
                single = singles[seed].players[index]
                expected = move(single, apart[seed][player.name], own, progress)
                assert set(terms) == {"cost"} | {f"{term}@{s}" for term in expected for s in SEEDS}
                for term, value in expected.items():
                    torch.testing.assert_close(terms[f"{term}@{seed}"], value, rtol=2e-4, atol=2e-5)
                for mine, theirs in zip(player.parameters, single.parameters, strict=True):
                    torch.testing.assert_close(mine.grad[part], theirs.grad, rtol=2e-3, atol=2e-4)  # type: ignore[index]
                    torch.testing.assert_close(mine[part], theirs, rtol=1e-4, atol=2e-5)


def test_a_seed_starts_from_the_weights_and_goes_in_the_order_of_its_single_run():
    recipe = RECIPES["vae"]
    whole, views = games_of(recipe)
    for part, seed in enumerate(SEEDS):
        with torch.random.fork_rng():
            torch.manual_seed(seed_of("weights", seed))
            splits = recipe.data.load()
            model = recipe.build_model(splits.shape, len(splits.classes))
        for name, value in model.state_dict().items():
            assert torch.equal(value, views[seed].model.state_dict()[name])
            assert torch.equal(value, whole.model.state_dict()[name][part])
    still = recipe.model_copy(update={"data": Digits(binarize="threshold")})
    whole, _ = games_of(still)
    for part, seed in enumerate(SEEDS):
        splits = still.data.load()
        model = still.build_model(splits.shape, len(splits.classes))
        single = still.model_copy(update={"seed": seed}).build_game(model, splits, Worker())
        for number in (0, 7, whole.steps_per_epoch + 1):
            assert torch.equal(whole.draw(number).x[part :: len(SEEDS)], single.draw(number).x)


MIXING = {
    "few free bits": VAERecipe(**VAE | {"objective": ELBO(free_bits=0.01)}),
    "many free bits": VAERecipe(**VAE | {"objective": ELBO(free_bits=5.0)}),
    "score": VAERecipe(**VAE | {"objective": ELBO(gradient="score")}),
    "total correlation": VAERecipe(**VAE | {"objective": BetaTC()}),
    "mean discrepancy": VAERecipe(**VAE | {"objective": Info()}),
    "consensus": GANRecipe(**RING | {"penalty": Consensus()}),
    "packing": GANRecipe(**RING | {"packing": 2}),
}


@pytest.mark.parametrize("name", MIXING)
def test_costs_that_mix_examples_are_refused(name: str):
    with pytest.raises(ConfigurationError, match="mixes the examples") as caught:
        games_of(MIXING[name])
    assert "one by one" in str(caught.value)


def test_looking_for_mixing_leaves_the_weights_as_they_were():
    recipe = RECIPES["dcgan"]
    _, views = games_of(recipe)
    first, again = games_of(recipe)[0].model.state_dict(), games_of(recipe)[0].model.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    counts = [value for name, value in views[0].model.state_dict().items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 0 for count in counts)


OWN = Custom(encoder=nn.Linear(2, 1), decoder=nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (VAERecipe(**VAE | {"likelihood": GaussianLearnedScale()}), "likelihood.shared is learned outside"),
        (GANRecipe(**RING | {"network": OWN}), "network=custom"),
    ],
    ids=["learned scale", "custom"],
)
def test_models_that_cannot_be_stacked_are_refused(recipe: Recipe, words: str):
    with pytest.raises(ConfigurationError, match=words):
        games_of(recipe)


def test_networks_that_fail_are_named_with_the_cure():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 12:
                raise RuntimeError("odd")
            return self.layer(x)

    def game() -> Game:
        odd = Odd()
        return Game(
            model=odd,
            players=[Player("odd", [odd], lambda batch, _: {"cost": odd(batch.x)[:, 0]})],
            draw=lambda _: Batch(torch.randn(12, 2)),
            steps_per_epoch=1,
            data_size=12,
        )

    with pytest.raises(ConfigurationError, match=r"the odd .*odd\. Train such seeds one by one"):
        stacked_game(game(), {0: game(), 1: game()}, torch.device("cpu"))
