"""The engine's parts, one by one: schedules, means of costs, averaged weights, the progress bar, settings."""

import io
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from latentia.data import Digits
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.recipes import VAERecipe
from latentia.training import (
    Adam,
    Constant,
    Cosine,
    OneCycle,
    Player,
    Probe,
    RunDirectory,
    Training,
    start_worker,
)
from latentia.training.game import cost_of, networks_of
from latentia.training.optimizers import AveragedWeights, Schedule, Stages
from latentia.training.progress import FOLD_ROWS, MetricAccumulator, Pace, ProgressBar

from .toys import duel, play_duel

# Schedules


def test_a_constant_rate():
    assert [Constant().factor(done) for done in (0.0, 0.5, 0.99)] == [1, 1, 1]
    assert [Constant(warm_up=0.5).factor(done) for done in (0.0, 0.25, 0.5, 0.9)] == [0, 0.5, 1, 1]


def test_a_cosine():
    schedule = Cosine(warm_up=0.2, final=0.1)
    assert schedule.factor(0.0) == 0
    assert schedule.factor(0.2) == pytest.approx(1)
    assert schedule.factor(0.6) == pytest.approx(0.55)
    assert schedule.factor(1.0) == pytest.approx(0.1)


def test_one_cycle():
    schedule = OneCycle(warm_up=0.25, start=0.04, final=0.001)
    assert schedule.factor(0.0) == pytest.approx(0.04)
    assert schedule.factor(0.25) == pytest.approx(1)
    assert schedule.factor(1.0) == pytest.approx(0.001)


def test_one_cycle_is_torch_s():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=101, pct_start=0.31, div_factor=25, final_div_factor=400
    )
    schedule = OneCycle(warm_up=0.3, start=0.04, final=1e-4)  # torch's peak lies at pct_start · total − 1 of total − 1
    warm_up = (0.31 * 101 - 1) / 100
    schedule = schedule.model_copy(update={"warm_up": warm_up})
    for step in range(100):
        assert schedule.factor(step / 100) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        theirs.step()


def test_stages_are_those_of_burda():
    """Section 5: 3^i epochs at 10^(−i/7) of 0.001 for i = 0, …, 7: 3280 epochs in all."""
    table = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert len(table) == 3280
    schedule = Stages()
    assert [schedule.factor(epoch / 3280) for epoch in range(3280)] == pytest.approx(table)
    assert [schedule.factor((epoch + 0.999) / 3280) for epoch in range(3280)] == pytest.approx(table)


@pytest.mark.parametrize("schedule", [member() for member in Schedule.members().values()], ids=lambda s: s.type_name)
@given(done=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)))
def test_all_schedules_stay_within_the_rate_and_fall_once_warm(schedule, done):
    first, second = sorted(done)
    assert 0 <= schedule.factor(first) <= 1
    if first >= getattr(schedule, "warm_up", 0):
        assert schedule.factor(second) <= schedule.factor(first) + 1e-12


def test_the_rate_of_each_step_is_the_schedule_s(tmp_path):
    rates = []

    def watch(game):
        player = game.players[1]
        player.optimizer = Adam(lr=0.5, schedule=Cosine(warm_up=0.25))
        build = type(player.optimizer).build

        def noting(parameters):
            built = build(player.optimizer, parameters)
            built.register_step_pre_hook(lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"]))
            return built

        object.__setattr__(player.optimizer, "build", noting)

    play_duel(tmp_path / "run", epochs=2, change=watch)
    assert rates == [pytest.approx(0.5 * Cosine(warm_up=0.25).factor(step / 12)) for step in range(12)]


# Means of costs


@pytest.mark.parametrize("batches", [1, 3, FOLD_ROWS])
def test_an_accumulator_gives_the_mean_of_everything(batches):
    """Also where the mean is a thousand times the spread, which squares in single precision would lose."""
    torch.manual_seed(0)
    values = 1000 + torch.randn(batches, 32)
    costs = MetricAccumulator()
    for step, row in enumerate(values, 1):
        costs.add(step, "vae", {"cost": row, "rate": -2 * row})
    costs.settle()
    assert costs.first_not_finite() is None
    cost, rate = costs.collect()
    truth = Estimate.mean(values)
    assert (cost.name, rate.name, cost.n) == ("vae/cost", "vae/rate", 32 * batches)
    assert cost.value == pytest.approx(truth.value, rel=1e-7)
    assert cost.stderr == pytest.approx(truth.stderr, rel=1e-4)
    assert rate.stderr == pytest.approx(2 * (truth.stderr or 0), rel=1e-4)
    costs.settle()
    assert costs.collect() == []


def test_terms_may_come_and_go_and_batches_may_differ():
    costs = MetricAccumulator()
    for step in range(1, 5):
        terms = {"cost": torch.full((step,), float(step))}
        costs.add(step, "d", {**terms, "penalty": torch.ones(step)} if step == 3 else terms)
    costs.settle()
    cost, penalty = costs.collect()
    assert cost.value == pytest.approx((1 + 4 + 9 + 16) / 10)
    assert (penalty.value, penalty.n) == (1.0, 3)


def test_an_accumulator_goes_on_from_its_state():
    one, two = MetricAccumulator(), MetricAccumulator()
    for costs in (one, two):
        costs.add(1, "p", {"cost": torch.tensor([1.0, 2.0])})
        costs.settle()
    three = MetricAccumulator()
    three.restore(*two.state())
    for costs in (one, three):
        costs.add(2, "p", {"cost": torch.tensor([4.0, 8.0])})
        costs.settle()
    assert one.collect() == three.collect()


@pytest.mark.parametrize(
    "terms",
    [{}, {"loss": torch.ones(3)}, {"cost": torch.tensor(1.0)}, {"cost": torch.ones(3), "kl": torch.ones(3, 2)}],
    ids=["none", "no cost", "reduced", "two shapes"],
)
def test_terms_of_a_wrong_shape_are_refused(terms):
    with pytest.raises(ConfigurationError, match=r"the vae gives the terms .*one number for each example.*`cost`"):
        cost_of(terms, "vae")


# Averages


def test_an_average_is_the_recursion_written_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = AveragedWeights(model, 0.5)
    expected = model.state_dict()["0.weight"].clone()
    for step in range(1, 30):
        with torch.no_grad():
            model[0].weight.add_(torch.randn(2, 2))
        model(torch.randn(4, 2))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.state_dict()["0.weight"]
        assert torch.allclose(average.state["0.weight"], expected, atol=1e-6)
    assert int(average.state["1.num_batches_tracked"]) == 29


def test_an_average_is_in_place_for_a_block_only():
    model = nn.Linear(1, 1)
    average = AveragedWeights(model, 0.5)
    kept = model.weight.item()
    with torch.no_grad():
        model.weight.fill_(9.0)

    def inside():
        with average.in_place():
            assert model.weight.item() == kept
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inside()
    assert model.weight.item() == 9.0


def test_what_a_run_ends_with_is_its_average(tmp_path):
    seen = []

    def watch(game):
        own = game.model.generator[0].weight
        game.probes = [Probe(lambda *_: seen.append(own.detach().clone()) or [])]

    play_duel(tmp_path / "run", ema=0.9, change=watch)
    assert torch.equal(RunDirectory(tmp_path / "run").weights()["generator.0.weight"], seen[-1])


# ProgressBar


def shown(monkeypatch, terminal, **settings):
    stream = io.StringIO()
    monkeypatch.setattr(
        "latentia.training.progress.Console",
        lambda **kw: Console(file=stream, force_terminal=terminal, width=120, quiet=kw["quiet"]),
    )
    with ProgressBar(1000, **settings) as bar:
        for step in range(1, 1001):
            bar.advance(step, {"vae/cost": Estimate(12.0, "vae/cost"), "vae/rate": Estimate(1.0)})
        bar.say("[said]")
        bar.warn("warned")
    return stream.getvalue()


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    lines = shown(monkeypatch, False).splitlines()
    assert [line.split()[:2] for line in lines] == [["step", "1000/1000"], ["[said]"], ["warned"]]
    assert "vae/cost 12" in lines[0]
    assert "rate 1" not in lines[0]


def test_lines_come_after_two_seconds_and_then_at_growing_intervals(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("latentia.training.progress.time.perf_counter", lambda: now[0])
    pace, due = Pace(), []
    for second in range(200):
        now[0] = float(second)
        due += [second] if pace.due() else []
    assert due[:5] == [2, 6, 14, 30, 60]
    assert {later - earlier for earlier, later in itertools.pairwise(due[4:])} == {30}


def test_a_terminal_gets_a_bar(monkeypatch):
    text = shown(monkeypatch, True)
    assert "1000/1000" in text
    assert "steps/s" in text


def test_quiet_warns_and_mute_is_mute(monkeypatch):
    assert shown(monkeypatch, False, quiet=True) == "warned\n"
    assert shown(monkeypatch, True, mute=True) == ""


# Settings and games that cannot be


def test_patience_needs_the_best():
    with pytest.raises(ConfigurationError, match="keep=best"):
        Training(patience=2)


def test_a_player_with_nothing_to_learn_is_refused(tmp_path):
    def change(game):
        game.players = [*game.players, Player("idler", [nn.Tanh()], game.players[1].cost)]

    with pytest.raises(ConfigurationError, match="the idler has no parameters"):
        play_duel(tmp_path / "run", change=change)


def test_the_game_is_closed_after_success_and_failure(tmp_path):
    closed = []

    def change(game):
        game.close = lambda: closed.append(1)

    play_duel(tmp_path / "a", epochs=1, change=change)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "b", epochs=1, change=change, seen=_out_of_memory)
    assert closed == [1, 1]


def _out_of_memory(number):
    raise MemoryError


def test_each_step_of_a_player_has_another_batch(tmp_path):
    drawn = []
    play_duel(tmp_path / "run", epochs=1, seen=drawn.append)
    assert drawn == [
        n for step in range(6) for n in (2 * step, 2 * step + 1, 2 * step)
    ]  # discriminator twice, generator


def test_the_networks_of_a_game():
    game = duel(start_worker(Training()))
    assert networks_of(game) == [game.model.discriminator, game.model.generator]
    vae = VAERecipe(data=Digits(binarize="dynamic")).build_model((1, 8, 8))
    game.model, game.players = vae, [Player("vae", [vae], game.players[0].cost)]
    assert networks_of(game) == [vae.posterior.network, vae.likelihood.network]
