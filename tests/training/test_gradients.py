"""Compiled gradients: the same numbers as eager ones, the same bits when resumed, and a way out if nothing compiles.

Most cases are traced, derivatives and all, and run by torch's own operations: what can go wrong is in the tracing, and
a C++ compiler takes seconds for each. Some also pass through AOTAutograd; two cases and the slow ones go the whole way.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.eval_frame import TorchPatcher
from torch._dynamo.utils import counters

from latentia.data import Batch, Digits, Ring
from latentia.distributions import (
    DiscretizedLogisticMixture,
    Full,
    Gaussian,
    GaussianLearnedScale,
    MixturePrior,
    VampPrior,
)
from latentia.errors import ConfigurationError
from latentia.networks import DCGAN, MLP
from latentia.objectives import (
    ELBO,
    IWAE,
    R1,
    R1R2,
    BetaTC,
    Clip,
    DiffAugment,
    Info,
    NoPenalty,
    OneCentered,
    Progress,
    Relativistic,
    Wasserstein,
)
from latentia.recipes import (
    AdversarialAutoencoderRecipe,
    BiGANRecipe,
    GANRecipe,
    Recipe,
    VAEGANRecipe,
    VAERecipe,
    train,
    train_seeds,
)
from latentia.training import Adam, Player, RunDirectory, Training, start_worker
from latentia.training.compiled_adam import compiled_step
from latentia.training.compiling import worth_compiling
from latentia.training.gradients import compiled_gradients, eager_gradients, traceable_gradients

from .toys import duel, play_duel, same_run

BINARY, SMALL = Digits(binarize="dynamic"), MLP(hidden=(16,))

RECIPES: dict[str, Recipe] = {
    "elbo": VAERecipe(data=BINARY, network=SMALL),
    "bf16": VAERecipe(data=BINARY, network=SMALL, precision="bf16-mixed"),
    "warm-up": VAERecipe(data=BINARY, network=SMALL, objective=ELBO(warm_up=2, samples=2)),
    "free bits": VAERecipe(data=BINARY, network=SMALL, objective=ELBO(free_bits=0.1)),
    "score": VAERecipe(data=BINARY, network=SMALL, objective=ELBO(gradient="score", samples=2)),
    "iwae": VAERecipe(data=BINARY, network=SMALL, objective=IWAE(k=3)),
    "total correlation": VAERecipe(data=BINARY, network=SMALL, objective=BetaTC()),
    "info": VAERecipe(data=BINARY, network=SMALL, objective=Info()),
    "full": VAERecipe(data=BINARY, network=SMALL, posterior=Full(), latent=3),
    "gaussian": VAERecipe(data=Digits(), network=SMALL, likelihood=Gaussian()),
    "learned scale": VAERecipe(data=Digits(), network=SMALL, likelihood=GaussianLearnedScale()),
    "logistics": VAERecipe(data=Digits(), network=SMALL, likelihood=DiscretizedLogisticMixture()),
    "mixture": VAERecipe(data=BINARY, network=SMALL, prior=MixturePrior(), objective=ELBO(kl="monte-carlo")),
    "vamp": VAERecipe(data=BINARY, network=SMALL, prior=VampPrior(), objective=ELBO(kl="monte-carlo")),
    "dcgan": GANRecipe(data=Digits(), network=DCGAN(width=4), discriminator=DCGAN(width=4)),
    "reused fakes": GANRecipe(
        data=Digits(), network=DCGAN(width=4), discriminator=DCGAN(width=4), conditional=True, reuse_fakes=True
    ),
    "lazy r1": GANRecipe(data=Digits(), network=SMALL, penalty=R1(every=2)),
    "falling penalty": GANRecipe(data=Ring(), latent=2, network=SMALL, penalty=R1R2(final=0.01), epochs=9),
    "r1r2": GANRecipe(data=Ring(), latent=2, network=SMALL, loss=Relativistic(), penalty=R1R2()),
    "wasserstein": GANRecipe(data=Ring(), latent=2, network=SMALL, loss=Wasserstein(), penalty=OneCentered()),
    "packed": GANRecipe(data=Digits(), network=SMALL, loss=Wasserstein(), penalty=Clip(), packing=2),
    "augmented": GANRecipe(data=Digits(), network=SMALL, augmentation=DiffAugment()),
    "labels": GANRecipe(data=Digits(), network=SMALL, conditional=True),
    "bigan": BiGANRecipe(data=Digits(), network=SMALL, discriminator=SMALL),
    "adversarial autoencoder": AdversarialAutoencoderRecipe(data=BINARY, network=SMALL, discriminator=SMALL),
    "vae-gan": VAEGANRecipe(data=BINARY, network=SMALL, discriminator=SMALL),
}


def refuse(text: str) -> None:
    raise AssertionError(text)


def same_gradients(recipe: Recipe, steps: int = 3, cuda_graphs: bool = False) -> None:
    """Both ways give the same terms, gradients and buffers for every player, by the same random numbers."""
    worker = start_worker(recipe)
    splits = recipe.data.load()
    torch.manual_seed(0)
    model = recipe.build_model(splits.shape, len(splits.classes))
    game = recipe.build_game(model, splits, worker)
    model.train()
    loose = recipe.precision != "32-true"  # bfloat16 keeps eight bits, and the graph rounds where it likes
    quiet: dict[str, Any] = {"say": lambda _: None, "warn": refuse, "cuda_graphs": cuda_graphs}
    ways = [
        [make(player, player.parameters, worker, **settings) for player in game.players]
        for make, settings in ((eager_gradients, {}), (compiled_gradients, quiet))
    ]
    for step in range(steps):
        batch, progress = game.draw(step), Progress(step, step / 2, game.data_size)
        start = {name: value.clone() for name, value in model.state_dict().items()}
        found: list[list[Any]] = []
        for way in ways:
            model.load_state_dict(start)
            torch.manual_seed(step)
            found.append([])
            for player, compute in zip(game.players, way, strict=True):
                terms = compute(batch, progress)
                gradients = [None if p.grad is None else p.grad.clone() for p in player.parameters]
                found[-1].append((terms, gradients, [value.clone() for value in model.buffers()], torch.rand(())))
        for (terms, gradients, buffers, after), (terms2, gradients2, buffers2, after2) in zip(*found, strict=True):
            assert terms.keys() == terms2.keys()
            scale = max(terms["cost"].abs().max().item(), 1e-3)
            for name, term in terms.items():
                assert not terms2[name].requires_grad
                torch.testing.assert_close(terms2[name], term, rtol=0.05 if loose else 1e-4, atol=1e-4 * scale)
            assert [g is None for g in gradients] == [g is None for g in gradients2]
            for a, b in zip(gradients, gradients2, strict=True):
                if a is not None and b is not None:
                    assert (a - b).norm() <= (0.02 if loose else 2e-4) * a.norm() + 1e-7
            torch.testing.assert_close(buffers2, buffers, rtol=1e-4, atol=1e-5)
            assert after == after2  # as many numbers were drawn


@pytest.fixture
def traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    trace_alone(monkeypatch, "eager")


def trace_alone(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    def without_compiler(function: Any, *, options: dict[str, Any], **settings: Any) -> Any:
        return torchs(function, backend=backend, **settings)

    torchs = torch.compile
    monkeypatch.setattr(torch, "compile", without_compiler)


MANY_STEPS = {"warm-up", "falling penalty", "lazy r1"}  # what their costs compute depends on the step
BY_AUTOGRAD = {"elbo", "bf16", "mixture", "reused fakes", "r1r2"}  # buffers, second derivatives, labels


@pytest.mark.parametrize("name", RECIPES)
def test_traced_gradients_are_the_eager_ones_and_no_step_calls_for_a_new_program(name: str, monkeypatch):
    trace_alone(monkeypatch, "aot_eager" if name in BY_AUTOGRAD else "eager")
    counters.clear()
    with traceable_gradients():
        same_gradients(RECIPES[name], steps=12 if name in MANY_STEPS else 3)
    assert 1 <= counters["stats"]["unique_graphs"] <= 8  # for one player or two


def test_cuda_graphs_need_a_gpu_and_their_way_gives_the_same_gradients(tmp_path: Path):
    """On a CPU the same program runs without graphs: what is copied and marked is right; the replay is not tested."""
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="compile=true"):
            train(RECIPES["elbo"].model_copy(update={"compile": "cuda-graphs"}), tmp_path / "run", quiet=True)
    with traceable_gradients():
        same_gradients(RECIPES["elbo"], cuda_graphs=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_compiled_gradients_are_the_eager_ones(name: str):
    with traceable_gradients():
        same_gradients(RECIPES[name])


@pytest.mark.usefixtures("traced_alone")
def test_distributions_check_their_numbers_after_compiling_as_before(tmp_path: Path):
    TorchPatcher.patch.cache_clear()  # as in a process that has not compiled yet
    torch.distributions.Distribution.set_default_validate_args(True)
    play_duel(tmp_path / "run", epochs=1, compile=True)
    with pytest.raises(ValueError, match="scale"):
        torch.distributions.Normal(0.0, -1.0)


def test_a_compiled_run_resumes_to_the_same_bits_and_is_the_eager_run_to_rounding(tmp_path: Path):
    def stop(number: int) -> None:
        if number == 15:
            raise MemoryError("no more")

    # Without batch normalization: it leaves biases with gradients of rounding errors alone, which Adam makes large.
    play_duel(tmp_path / "plain", noise=False)
    play_duel(tmp_path / "whole", noise=False, compile=True)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", noise=False, compile=True, seen=stop)
    play_duel(tmp_path / "torn", noise=False, compile=True, resume=True)
    same_run(tmp_path / "whole", tmp_path / "torn")
    one, two = (RunDirectory(tmp_path / name) for name in ("plain", "whole"))
    torch.testing.assert_close(two.weights(), one.weights(), rtol=1e-3, atol=1e-4)
    assert [(r["step"], r["name"]) for r in one.records()] == [(r["step"], r["name"]) for r in two.records()]


@pytest.mark.usefixtures("traced_alone")
def test_several_seeds_at_once_may_be_compiled(tmp_path: Path):
    recipe = GANRecipe(
        data=Ring(), latent=2, network=SMALL, loss=Relativistic(), penalty=R1R2(), epochs=1, steps_per_epoch=6,
        diagnostics_every=1, fresh_steps=0,
    )  # fmt: skip
    runs = [
        train_seeds(recipe.model_copy(update={"compile": c}), [0, 1], tmp_path / str(c), quiet=True)
        for c in (False, True)
    ]
    for plainly, by_graph in zip(*(r.values() if isinstance(r, dict) else r for r in runs), strict=True):
        for name, value in plainly.directory.weights().items():
            torch.testing.assert_close(by_graph.directory.weights()[name], value, rtol=1e-3, atol=1e-4)


def test_gradients_have_the_memory_layout_of_their_parameters():
    """torch's fused Adam takes memory in its order, and would mix up the numbers of a gradient laid out otherwise."""
    worker = start_worker(RECIPES["dcgan"])
    weight = torch.nn.Parameter(torch.randn(6, 5))
    player = Player("one", [torch.nn.ParameterList([weight])], lambda batch, _: {"cost": (batch.x.t() @ weight.t())[0]})
    by_grad, by_backward = (Adam().build([weight]) for _ in range(2))
    start, x = weight.detach().clone(), torch.randn(5, 3)
    eager_gradients(player, [weight], worker)(Batch(x), Progress())
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()
    by_grad.step()
    found = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(start)
    weight.grad = None
    player.cost(Batch(x), Progress())["cost"].mean().backward()
    by_backward.step()
    assert torch.equal(found, weight.detach())


@pytest.mark.parametrize(
    "way", [eager_gradients, functools.partial(compiled_gradients, say=lambda _: None, warn=refuse)]
)
def test_each_parameter_has_a_gradient_of_its_own(way: Any, monkeypatch):
    trace_alone(monkeypatch, "aot_eager")
    worker = start_worker(RECIPES["elbo"])
    weights = [torch.nn.Parameter(torch.randn(3)) for _ in range(2)]
    player = Player(
        "one", [torch.nn.ParameterList(weights)], lambda batch, _: {"cost": batch.x * (weights[0] + weights[1])}
    )
    with traceable_gradients():
        way(player, weights, worker)(Batch(torch.tensor([1.0, 2.0, 3.0])), Progress())
    torch.nn.utils.clip_grad_norm_(weights, 0.5)
    for weight in weights:
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad.norm(), torch.tensor(0.5 / 2**0.5), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize(("of_torch", "more"), [(torch.optim.Adam, {}), (torch.optim.AdamW, {"weight_decay": 0.3})])
def test_the_compiled_step_is_the_one_of_torch_to_rounding(of_torch: Any, more: dict[str, float]):
    start = [torch.randn(33, 50), torch.randn(7), torch.randn(6, 3, 4, 4).to(memory_format=torch.channels_last)]
    start += [torch.randn(900)[3:803], torch.randn(())]  # the former does not begin at a line of cache
    copies = [[torch.nn.Parameter(values.detach()) for values in start], [torch.nn.Parameter(v.clone()) for v in start]]
    one, other = (of_torch(parameters, lr=0.01, fused=True, **more) for parameters in copies)
    step = compiled_step(other)
    assert step is not None
    for number in range(6):
        for a, b in zip(*copies, strict=True):
            a.grad = None if number == 3 and a.dim() == 1 else torch.randn_like(a)  # later, counts of steps differ
            b.grad = None if a.grad is None else a.grad.clone()
            if number == 4 and a.grad is not None:  # the gradient of the filters in another layout than they have
                a.grad, b.grad = a.grad.contiguous(), a.grad.clone().contiguous()
        one.step()
        step()
        torch.testing.assert_close(copies[1], copies[0], rtol=1e-5, atol=1e-6)
    for a, b in zip(*copies, strict=True):
        torch.testing.assert_close(other.state[b], one.state[a], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("of_torch", "more", "dtype"),
    [
        (torch.optim.SGD, {}, torch.float32),
        (type("Own", (torch.optim.Adam,), {}), {}, torch.float32),
        (torch.optim.Adam, {"weight_decay": 0.1}, torch.float32),
        (torch.optim.Adam, {}, torch.float64),
    ],
)
def test_other_optimizers_keep_the_step_of_torch(of_torch: Any, more: dict[str, float], dtype: torch.dtype):
    assert compiled_step(of_torch([torch.nn.Parameter(torch.zeros(3, dtype=dtype))], lr=0.1, **more)) is None


def test_without_a_compiler_the_run_is_eager_and_a_warning_says_so(tmp_path: Path, capsys, monkeypatch):
    def no_compiler(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no C++ compiler found")

    play_duel(tmp_path / "plain")
    monkeypatch.setattr(torch, "compile", no_compiler)
    play_duel(tmp_path / "run", compile=True)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("all steps run uncompiled: the steps of the discriminator cannot be compiled: no C++") == 1
    same_run(tmp_path / "plain", tmp_path / "run")
    assert RunDirectory(tmp_path / "run").environment()["compile"] is False


@pytest.mark.usefixtures("traced_alone")
def test_a_cost_that_cannot_be_traced_runs_eagerly(tmp_path: Path, capsys):
    def peek(game: Any) -> None:
        cost = game.players[0].cost

        def peeking(batch: Any, progress: Progress) -> Any:
            terms = cost(batch, progress)
            return terms if terms["cost"].mean().item() > -1e9 else {}

        game.players[0].cost = peeking

    play_duel(tmp_path / "plain", noise=False, change=peek)
    play_duel(tmp_path / "run", noise=False, compile=True, change=peek)
    said = " ".join(capsys.readouterr().err.split())
    assert "the steps of the discriminator cannot be compiled" in said
    same_run(tmp_path / "plain", tmp_path / "run")  # the generator's steps are uncompiled, too


@pytest.mark.usefixtures("traced_alone")
def test_a_program_that_computes_something_else_is_not_used(tmp_path: Path, capsys):
    """A compiler with a fault is imitated by a cost that is another one where it is traced."""

    def wrong_when_compiled(game: Any) -> None:
        cost = game.players[1].cost

        def faulty(batch: Any, progress: Progress) -> Any:
            terms = cost(batch, progress)
            return {"cost": terms["cost"] * (1.01 if torch.compiler.is_compiling() else 1.0)}

        game.players[1].cost = faulty

    play_duel(tmp_path / "plain", change=wrong_when_compiled)
    play_duel(tmp_path / "run", compile=True, change=wrong_when_compiled)
    said = " ".join(capsys.readouterr().err.split())
    assert "the generator's cost of the compiled step is off by 0.01 of its norm" in said
    same_run(tmp_path / "plain", tmp_path / "run")


def test_the_test_of_the_program_changes_nothing(tmp_path: Path, monkeypatch):
    """Where eager gradients and steps stand for the programs, the run with the test has the bits of the run without."""
    monkeypatch.setattr("latentia.training.loop.compiled_gradients", lambda p, q, w, *_, **__: eager_gradients(p, q, w))
    monkeypatch.setattr("latentia.training.loop.compiled_step", lambda optimizer: optimizer.step)
    play_duel(tmp_path / "plain")
    play_duel(tmp_path / "run", compile=True)
    same_run(tmp_path / "plain", tmp_path / "run")


def test_auto_compiles_long_runs_alone_and_leaves_the_game_as_it_was():
    worker = start_worker(Training())
    game = duel(worker)
    before = {name: value.clone() for name, value in game.model.state_dict().items()}
    recipe = GANRecipe(data=Digits(), network=DCGAN(width=64), batch_size=1024, penalty=NoPenalty())
    splits = recipe.data.load()
    convolutions = recipe.build_game(recipe.build_model(splits.shape), splits, worker)
    assert not worth_compiling(convolutions, Training(epochs=100_000), worker)
    state = torch.get_rng_state()
    chosen = [worth_compiling(game, Training(epochs=epochs), worker) for epochs in (1, 100, 300, 100_000)]
    assert chosen == [False, False, False, True]  # 6 steps an epoch, of some 150 small operations
    assert torch.equal(state, torch.get_rng_state())
    for name, value in game.model.state_dict().items():
        assert torch.equal(value, before[name])
    game.players[1].cost = lambda batch, _: {"cost": batch.x}
    assert not worth_compiling(game, Training(epochs=100_000), worker)  # training says what is wrong


@pytest.mark.usefixtures("traced_alone")
@pytest.mark.parametrize("compiling", [False, True])
def test_an_error_of_the_cost_is_reported_as_it_is(tmp_path: Path, compiling: bool):
    def forget(game: Any) -> None:
        game.players[1].cost = lambda batch, _: {"cost": batch.x}

    with pytest.raises(ConfigurationError, match=r"the generator gives the terms cost \(16, 2\); give one number"):
        play_duel(tmp_path / "run", compile=compiling, change=forget)


@pytest.mark.slow
def test_a_compiled_vae_is_the_eager_one_to_rounding(tmp_path: Path):
    runs = [
        train(VAERecipe(data=Digits(binarize="dynamic"), epochs=1, compile=c), tmp_path / str(c), quiet=True)
        for c in (False, True)
    ]
    for a, b in zip(runs[0].records, runs[1].records, strict=True):
        assert b["value"] == pytest.approx(a["value"], rel=1e-3)
    assert set(runs[0].directory.weights()) == set(runs[1].directory.weights())
