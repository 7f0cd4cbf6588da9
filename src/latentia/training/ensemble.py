"""Several seeds of one recipe, trained at once as one game.

Runs that differ in their seed alone share no parameter, so the gradient of the sum of their costs is the gradients of
all of them, and one Adam over parameters stacked along a new dimension is as many Adams. The stacked game has the
networks of all seeds in one (`networks/stacked.py`) and batches in which example i belongs to seed i mod S; the costs,
distributions and penalties are those of a single run, called once, and `fit` trains it like any other game.

A run made so differs from the same seed trained alone: its weights start from the same bits, it goes through a data
set in the same order, and it is measured with the same random numbers; but the noise of its steps (points of a toy
distribution, binarization, z) comes from one stream that all seeds share, and products are summed in another order. So
the two runs have the same distribution and other bits, and a seed's run depends on which others are trained with it.

A cost that mixes examples (free bits, a penalty on the gradient of the batch's mean) would mix seeds. This is tested
before training: the cost of the first seed and its gradient may not change when the other seeds' weights do.
"""

from __future__ import annotations

__all__ = ["SeedsDirectory"]

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from latentia.data import Batch
from latentia.errors import ConfigurationError, LatentiaError
from latentia.estimate import Estimate
from latentia.networks.stacked import ALONE, stack_networks
from latentia.objectives import Progress, Terms
from latentia.training.checkpoint import Checkpoint, newest_sound, write_checkpoint
from latentia.training.game import Game, Player, Probe, networks_of
from latentia.training.run_directory import RunDirectory, WithDefaults
from latentia.training.seeds import seed_of, seeded

_DISTURBANCES = (10.0, math.nan)  # in units of a weight's mean size: beyond thresholds, and what arithmetic passes on
_MARK = "@"  # `cost@3` is the cost of seed 3


class SeedsDirectory(RunDirectory):
    """The folder of several seeds: their shared checkpoints, and one ordinary run directory for each.

        seeds.yaml         the recipe, with a list of seeds in place of its seed
        environment.json
        checkpoints/       of all seeds at once, to resume from
        seed-0/ …          recipe.yaml, metrics.jsonl, weights.safetensors and all else that a run directory holds

    Attributes:
        runs: the directory of each seed.
        models: the model of each seed, to be set before training; views of the stacked one.
    """

    def __init__(self, path: Path | str):
        super().__init__(path)
        self.runs: dict[int, RunDirectory] = {}
        self.models: dict[int, nn.Module] = {}

    @classmethod
    @contextmanager
    def open(
        cls, path: Path | str, recipe: Mapping[str, Any], *, resume: bool = False, with_defaults: WithDefaults = dict
    ) -> Iterator[Self]:
        """As `RunDirectory.open`, with the directory of each seed.

        Args:
            path: the folder.
            recipe: the recipe with the key `seeds` in place of `seed`.
            resume: whether the folder must hold a run, or must not.
            with_defaults: of the recipe of one seed.
        """
        own = {key: value for key, value in recipe.items() if key != "seeds"}

        def filled(written: Mapping[str, Any]) -> dict[str, Any]:
            one = with_defaults({key: value for key, value in written.items() if key != "seeds"})
            return {"seeds": written.get("seeds"), **{key: value for key, value in one.items() if key != "seed"}}

        directory = cls(path)
        with directory._holding(recipe, resume, filled), ExitStack() as stack:
            for seed in recipe["seeds"]:
                run = directory.runs[seed] = RunDirectory(directory.path / f"seed-{seed}")
                stack.enter_context(run._holding({**own, "seed": seed}, None, with_defaults))
            yield directory

    @property
    def recipe_file(self) -> Path:
        """The recipe, with a list of seeds; not `recipe.yaml`, as the folder is not a run."""
        return self.path / "seeds.yaml"

    def append_records(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Append each record to the run of the seed in its name; sums over seeds are left out."""
        own: dict[int, list[dict[str, Any]]] = {seed: [] for seed in self.runs}
        for record in records:
            name, mark, seed = record["name"].rpartition(_MARK)
            if mark:
                own[int(seed)].append({**record, "name": name})
        return sum(directory.append_records(own[seed]) for seed, directory in self.runs.items())

    def sync_records(self) -> None:
        """Make the disk hold the records of every seed."""
        for directory in self.runs.values():
            directory.sync_records()

    def rewind_records(self, step: int) -> tuple[int, list[str]]:
        """As `RunDirectory.rewind_records`, over all seeds."""
        found = [directory.rewind_records(step) for directory in self.runs.values()]
        return sum(kept for kept, _ in found), [complaint for _, complaints in found for complaint in complaints]

    def write_weights(self, state: Mapping[str, Tensor]) -> None:
        """Write the weights of every seed, from `models`."""
        for seed, directory in self.runs.items():
            directory.write_weights(self.models[seed].state_dict())

    def divide_checkpoint(self) -> None:
        """Give each seed's run its part of the newest checkpoint, so that it can be resumed, too, where it ended."""
        saved, _ = newest_sound(self.checkpoints)
        if saved is None:
            return
        for part, (seed, directory) in enumerate(self.runs.items()):
            own = self.models[seed].state_dict()

            def of_seed(name: str, value: Tensor, part: int = part, own: Mapping[str, Tensor] = own) -> Tensor:
                _, _, key = name.partition(".")
                shared = value.dim() == (own[key].dim() if key in own else 0)  # an optimizer's count of steps is
                return value if shared or name == "costs" else value[part].clone()

            tensors = {name: of_seed(name, value) for name, value in saved.tensors.items()}
            records, _ = directory.rewind_records(saved.step)
            write_checkpoint(
                directory.checkpoints, Checkpoint(saved.step, tensors, {**saved.progress, "records": records})
            )


def stacked_game(whole: Game, games: Mapping[int, Game], device: torch.device) -> Game:
    """One game for all of these.

    Args:
        whole: the same game once more, with another model, which becomes the stacked one.
        games: the game of each seed. Their models become views of the stacked one, and stay in evaluation mode.
        device: where the models are.

    Returns:
        A game whose terms are `cost`, summed over the seeds, and each seed's own, `cost@0` and so on.

    Raises:
        ConfigurationError: for models with parameters outside their networks, networks that are the same object
            for all seeds, and costs that mix examples.
    """
    models = [game.model for game in games.values()]
    _check_outside(whole, models)
    for network, *copies in zip(networks_of(whole), *(networks_of(game) for game in games.values()), strict=True):
        stack_networks(network, copies)
    for model in models:
        model.eval()
    first = next(iter(games.values()))

    def draw(number: int) -> Batch:
        batches = [game.draw(number) for game in games.values()]
        x = torch.stack([batch.x for batch in batches], dim=1).flatten(0, 1)
        labels = [batch.labels for batch in batches if batch.labels is not None]
        return Batch(x, torch.stack(labels, dim=1).flatten(0, 1) if labels else None)

    def validate(progress: Progress) -> list[Estimate]:
        return _of_each(games, device, lambda game: game.validate and game.validate(progress), "validation")

    def probe(number: int) -> Probe:
        def measure(progress: Progress, path: Path) -> list[Estimate]:
            places = {id(game): path / f"seed-{seed}" for seed, game in games.items()}
            return _of_each(games, device, lambda g: g.probes[number].measure(progress, places[id(g)]), "probe", number)

        like = first.probes[number]
        return Probe(measure, every=like.every, epochs=like.epochs)

    def close() -> None:
        for game in (whole, *games.values()):
            if game.close is not None:
                game.close()

    players = [
        Player(
            player.name,
            player.modules,
            _apart(player.cost, list(games)),
            player.optimizer,
            steps=player.steps,
            after=player.after,
            makes=player.makes,
            takes=player.takes,
        )
        for player in whole.players
    ]
    game = Game(
        model=whole.model,
        players=players,
        draw=draw,
        steps_per_epoch=first.steps_per_epoch,
        data_size=first.data_size,
        validate=validate if first.validate is not None else None,
        probes=[probe(number) for number in range(len(first.probes))],
        close=close,
    )
    _check_apart(game, list(games), device)
    return game


def _apart(cost: Callable[..., Terms], seeds: Sequence[int]) -> Callable[..., Terms]:
    """Terms (N·S,) as terms (N,): the sum of the costs, whose mean is the sum of the seeds' means, and each seed's."""

    def apart(*given: Any) -> Terms:
        terms = {name: term.unflatten(0, (-1, len(seeds))) for name, term in cost(*given).items()}
        own = {
            f"{name}{_MARK}{seed}": part
            for name, term in terms.items()
            for seed, part in zip(seeds, term.unbind(1), strict=True)
        }
        return {"cost": terms["cost"].sum(1), **own}

    return apart


def _of_each(
    games: Mapping[int, Game],
    device: torch.device,
    measure: Callable[[Game], Sequence[Estimate] | None],
    *words: str | int,
) -> list[Estimate]:
    """What is measured of each seed, with the random numbers with which a single run would be measured."""
    estimates = []
    for seed, game in games.items():
        what, *number = words
        with seeded(seed_of(what, seed, *number), device):
            estimates += [estimate.named(f"{estimate.name}{_MARK}{seed}") for estimate in measure(game) or ()]
    return estimates


def _check_outside(whole: Game, models: Sequence[nn.Module]) -> None:
    """Refuse models whose seeds differ in more than their networks."""
    networks = networks_of(whole)
    inside = {id(tensor) for network in networks for tensor in network.state_dict(keep_vars=True).values()}
    for name, tensor in whole.model.state_dict(keep_vars=True).items():
        if id(tensor) in inside:
            continue
        if tensor.requires_grad or any(not torch.equal(tensor, model.state_dict()[name]) for model in models):
            raise ConfigurationError(
                f"{name} is learned outside the model's networks, and seeds that are trained at once can differ in "
                f"their networks alone. {ALONE}"
            )


def _check_apart(game: Game, seeds: Sequence[int], device: torch.device) -> None:
    """Refuse costs in which one seed depends on another.

    Raises:
        ConfigurationError: for such a cost, and for networks that fail when they are run stacked.
    """
    mixed: list[str] = []
    failures = (RuntimeError, NotImplementedError, ValueError, AttributeError)
    for player in game.players:
        try:
            with put_back(game.model):
                alone = _first_seed(game, player, seeds, device)
        except LatentiaError:
            raise
        except failures as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigurationError(
                f"the {player.name} of this recipe cannot be run for several seeds at once: {reason}. {ALONE}"
            ) from error
        for strength in _DISTURBANCES:
            with put_back(game.model), suppress(*failures):  # a distribution may refuse NaN
                _disturb_others(game, strength)
                disturbed = _first_seed(game, player, seeds, device)
                if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(alone, disturbed, strict=True)):
                    mixed.append(player.name)
    if mixed:
        raise ConfigurationError(
            f"the cost of the {' and of the '.join(dict.fromkeys(mixed))} mixes the examples of a batch, and with them "
            f"the seeds that are trained at once. {ALONE}"
        )


def _first_seed(game: Game, player: Player, seeds: Sequence[int], device: torch.device) -> list[Tensor]:
    """The first seed's terms, and the gradient of its cost by its own parameters, with fixed noise."""
    parameters = player.parameters
    with seeded(0, device):
        terms = player.cost(game.draw(0), Progress(0, math.inf, game.data_size))  # with all warm-ups over
    gradients = torch.autograd.grad(terms["cost"].mean(), parameters, allow_unused=True)
    own = [term.detach() for name, term in terms.items() if name.endswith(f"{_MARK}{seeds[0]}")]
    return own + [gradient[0] for gradient in gradients if gradient is not None]


def _disturb_others(game: Game, strength: float) -> None:
    """Give all seeds but the first other weights."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in dict.fromkeys(parameter for player in game.players for parameter in player.parameters):
            others = parameter[1:]
            noise = torch.randn(others.shape, generator=generator).to(others)
            others += strength * noise * parameter.abs().mean()


@contextmanager
def put_back(model: nn.Module) -> Iterator[None]:
    """Leave the model's state as it was before the block."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        yield
    finally:
        model.load_state_dict(before)
