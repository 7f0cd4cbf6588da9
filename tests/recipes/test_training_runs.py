"""`train` from the outside: directories, interruptions, kills, errors, several processes."""

import math
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from latentia.data import Digits
from latentia.distributions import Fixed
from latentia.errors import ConfigurationError, DataError, Interrupted, RunError
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.networks import MLP, Custom
from latentia.networks.products import exact_float32_setting
from latentia.objectives import Progress
from latentia.recipes import Recipe, Run, VAERecipe, load, train
from latentia.threads import free_cores, thread_count, training_environment
from latentia.training import SGD, Adam, Cosine, RunDirectory, Worker
from latentia.training import checkpoint as checkpoints

from .pairs import pair, start, start_two, train_here, two, unnamed

SMALL = {
    "data": Digits(binarize="dynamic"),
    "network": MLP(hidden=(32,)),
    "batch_size": 64,
    "epochs": 2,
    "record_every": 7,
    "checkpoint_every": 0.3,
}


def recipe(**fields) -> VAERecipe:
    return VAERecipe(**{**SMALL, **fields})


RICH = recipe(
    epochs=6,
    ema=0.9,
    clip=5.0,
    keep="best",
    patience=5,
    optimizer=Adam(schedule=Cosine(warm_up=0.1)),
    checkpoint_every=0.1,
)
# Nothing to speak of is drawn: z is its mean to a millionth, and the pixels are fixed.
STILL = recipe(
    posterior=Fixed(scale=1e-6),
    data={"type": "digits", "binarize": "threshold"},
    optimizer=SGD(lr=0.01, momentum=0.5),
)


def comparable(run: Run) -> list[dict]:
    records = [{**record, "seconds": 0} for record in run.records]
    assert len({(r["step"], r["name"]) for r in records}) == len(records)
    return records


def same(a: Path, b: Path) -> None:
    assert (a / "weights.safetensors").read_bytes() == (b / "weights.safetensors").read_bytes()
    assert comparable(Run(a)) == comparable(Run(b))
    assert [e.to_json() for e in Run(a).estimates] == [e.to_json() for e in Run(b).estimates]


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    return train(RICH, tmp_path_factory.mktemp("runs") / "rich", quiet=True)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    return train(STILL, tmp_path_factory.mktemp("runs") / "still", quiet=True)


def newest_step(out) -> int:
    found = checkpoints.find_checkpoints(out / "checkpoints")
    return int(found[-1].name[5:]) if found else -1


def wait_for_step(process, out, step):
    """Until the run has passed this step."""
    while process.process.is_alive() and newest_step(out) < step:
        time.sleep(0.002)


def test_killed_ten_times_at_random_moments(rich, tmp_path):
    out = tmp_path / "killed"
    chance = random.Random(0)
    kills = 0
    while kills < 10:
        process = start(train_here, RICH, out)
        wait_for_step(process, out, newest_step(out) + 1)
        time.sleep(chance.uniform(0, 0.03))
        process.process.kill()
        assert process.result() == -signal.SIGKILL, "the run ended before it was killed ten times; make it longer"
        kills += 1
    assert start(train_here, RICH, out).result() == "ended"
    same(rich.path, out)
    assert not [p.name for p in (out / "checkpoints").iterdir() if p.name.startswith(".")]


def test_where_one_of_two_is_killed_the_other_names_the_run(tmp_path):
    out = tmp_path / "run"
    first, second = start_two(train_here, RICH, out)
    wait_for_step(first, out, 6)
    second.process.kill()
    assert str(first.result()) == f"another process of this run has ended; go on with `latentia resume {out}`"
    assert second.result() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_from_outside(rich, tmp_path, number):
    out = tmp_path / "run"
    process = start(train_here, RICH, out)
    wait_for_step(process, out, 6)
    os.kill(process.process.pid, number)
    said = process.result()
    assert "saved in" in said
    assert "latentia resume" in said
    assert start(train_here, RICH, out).result() == "ended"
    same(rich.path, out)


def test_the_caller_is_left_alone(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    torch.set_float32_matmul_precision("high")
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    try:
        before = states()
        train(recipe(epochs=1, matmul="medium"), tmp_path / "a", quiet=True)
        assert states() == before
        with pytest.raises(RunError, match="not finite"):
            train(recipe(epochs=1, optimizer=SGD(lr=1e30)), tmp_path / "b", quiet=True)
        assert states() == before
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.is_grad_enabled()
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(("here", "there"), [("highest", "medium"), ("medium", "highest")])
def test_a_resumed_run_keeps_its_products_where_auto_would_choose_others(tmp_path, monkeypatch, here, there):
    used = []

    def watched(name):
        used.append(name)
        return original(name)

    original = torch.set_float32_matmul_precision
    module = sys.modules["latentia.recipes.train"]
    monkeypatch.setattr(module, "exact_float32_setting", lambda: here)
    whole = train(recipe(epochs=2), tmp_path / "whole", quiet=True)
    stopped = recipe(epochs=2)
    monkeypatch.setattr("latentia.training.loop._finish", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(stopped, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    monkeypatch.setattr(module, "exact_float32_setting", lambda: there)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", watched)
    run = train(stopped, tmp_path / "run", resume=True, quiet=True)
    assert used[0] == here == run.environment["matmul"]
    assert run.recipe.matmul == "auto"
    assert read_weights(run) == read_weights(whole)


@pytest.mark.parametrize("here", [True, False])
def test_a_resumed_run_keeps_compiling_or_not_where_auto_would_choose_otherwise(tmp_path, monkeypatch, here):
    asked = []
    module = sys.modules["latentia.recipes.train"]

    def fitted(game, training, directory, *_, **__):
        asked.append(training.compile)
        raise RunError("stopped")

    monkeypatch.setattr(module, "fit", fitted)
    monkeypatch.setattr(module, "worth_compiling", lambda *_: here)
    with pytest.raises(RunError, match="stopped"):
        train(recipe(), tmp_path / "run", quiet=True)
    monkeypatch.setattr(module, "worth_compiling", lambda *_: not here)
    with pytest.raises(RunError, match="stopped"):
        train(recipe(), tmp_path / "run", resume=True, quiet=True)
    assert asked == [here, here]
    assert RunDirectory(tmp_path / "run").environment()["compile"] is here


def test_short_runs_are_not_compiled(tmp_path):
    run = train(recipe(epochs=1), tmp_path / "run", quiet=True)
    assert run.environment["compile"] is False
    assert run.recipe.compile == "auto"


def test_a_resumed_run_keeps_its_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("latentia.threads._usable_cores", lambda: 2)
    monkeypatch.setattr("latentia.threads.free_cores", lambda: 2)
    used = []
    module = sys.modules["latentia.recipes.train"]

    def fitted(*_, **__):
        used.append(torch.get_num_threads())
        raise RunError("stopped")

    monkeypatch.setattr(module, "fit", fitted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(RunError, match="stopped"):
            train(recipe(), tmp_path / "run", quiet=True)
        monkeypatch.setattr("latentia.threads.free_cores", lambda: 1)
        with pytest.raises(RunError, match="stopped"):
            train(recipe(), tmp_path / "run", resume=True, quiet=True)
        with pytest.raises(RunError, match="stopped"):
            train(recipe(), tmp_path / "busy", quiet=True)
        assert used == [2, 2, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("idle", "free"), [(40, 4), (30, 3), (21, 2), (0, 1)])
def test_free_cores_are_those_that_nothing_else_uses(monkeypatch, idle, free):
    readings = iter([(100, 1000), (100 + idle, 1040)])  # idle ticks and all ticks of four cores, ten each
    monkeypatch.setattr("latentia.threads._ticks", lambda: next(readings))
    monkeypatch.setattr("latentia.threads._affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr("latentia.threads._usable_cores", lambda: 4)
    assert free_cores() == free


def test_threads_that_a_resumed_run_cannot_keep_are_reported(monkeypatch):
    monkeypatch.setattr("latentia.threads._usable_cores", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with thread_count(2) as line:
        assert "OMP_NUM_THREADS" in line
    monkeypatch.delenv("OMP_NUM_THREADS")
    with thread_count(64) as line:
        assert "64 threads" in line
        assert torch.get_num_threads() == 1
    with thread_count(1) as line:
        assert line is None


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or (os.cpu_count() or 1) < 2, reason="another OpenMP, or one core"
)
def test_threads_that_spin_sleep_at_once_while_others_are_busy():
    """CPU time in which the main thread sleeps, after a loop that two threads share: that of the other one's spinning.

    In a process whose threads spin without end; how long they wait for cores is given.
    """
    script = """
import os, time, torch
from latentia import threads
def waiting():
    torch.zeros(1 << 20).add_(1.0)
    before = time.process_time()
    time.sleep(0.2)
    return time.process_time() - before
threads._SPINS, threads._WATCH, busy, used, clock = "infinite", 0.02, 0.0, 0.0, 0.0
def waited():
    global used, clock
    used, clock = used + 0.02 * busy, clock + 0.02
    return used, clock
threads._waited = waited
torch.set_num_threads(2)
with threads._no_spinning_under_load():
    waiting(); found = [waiting()]
    busy = 0.5; time.sleep(0.2); waiting(); found += [waiting()]
    busy = 0.0; time.sleep(0.2); waiting(); found += [waiting()]
print(*found)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"GOMP_SPINCOUNT": "infinite", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    quiet, loaded, again = map(float, answer.split())
    assert loaded < min(quiet, again) / 2


def test_auto_takes_products_with_whole_digits():
    before = torch.get_float32_matmul_precision()
    a, b = torch.randn(300, 700), torch.randn(700, 200)
    try:
        torch.set_float32_matmul_precision(exact_float32_setting())
        error = (a @ b - a.double() @ b.double()).abs().max()
    finally:
        torch.set_float32_matmul_precision(before)
    assert error < 1e-3  # bfloat16 is off by 0.1 here


def read_weights(run):
    return (run.path / "weights.safetensors").read_bytes()


def test_quiet_says_nothing_and_a_log_gets_few_lines(tmp_path, capfd):
    train(recipe(epochs=1), tmp_path / "a", quiet=True)
    assert capfd.readouterr() == ("", "")
    train(recipe(epochs=1), tmp_path / "b")
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) <= 3
    assert lines[-1].startswith("step 20/20")
    assert "vae/cost" in lines[-1]


def test_a_run_comes_back_from_its_directory(rich):
    model = load(rich.path)
    assert not model.training
    images = rich.splits.examples("test", 50).x
    assert torch.equal(model.encode(images).mean, rich.model.encode(images).mean)
    about = rich.environment
    assert about["parameters"] == sum(p.numel() for p in model.parameters())
    assert about["seed"] == 0
    assert {"latentia", "python", "torch", "platform", "cores", "threads", "device", "devices", "precision"} <= set(
        about
    )
    assert about["data_hash"] == rich.splits.content_hash
    names = {e.name for e in rich.estimates}
    assert {"test/elbo", "test/rate", "test/distortion"} <= names


def forget(path: Path, *keys: str) -> None:
    """Take keys out of a recipe on disk, as if it had been written before there were such keys."""
    written = yaml.safe_load(path.read_text())
    for key in keys:
        *parents, leaf = key.split(".")
        place = written
        for parent in parents:
            place = place[parent]
        del place[leaf]
    path.write_text(yaml.safe_dump(written))


def test_a_recipe_without_a_new_key_resumes_and_differences_are_named(tmp_path):
    once = train(recipe(epochs=1), tmp_path / "run", quiet=True)
    weights = (once.path / "weights.safetensors").read_bytes()
    forget(once.directory.recipe_file, "ema", "optimizer.beta1", "matmul")
    train(recipe(epochs=1), once.path, resume=True, quiet=True)
    assert (once.path / "weights.safetensors").read_bytes() == weights
    assert load(once.path) is not None
    # A key that is not there stands for its default, and only for that.
    with pytest.raises(RunError, match=r"another recipe \(ema: None there, 0.5 here\)"):
        train(recipe(epochs=1, ema=0.5), once.path, resume=True, quiet=True)
    once.directory.recipe_file.write_text(once.directory.recipe_file.read_text() + "gone: 3\n")
    with pytest.raises(RunError, match=r"another recipe \(.*gone: 3 there, None here"):
        train(recipe(epochs=1), once.path, resume=True, quiet=True)


def test_a_run_with_custom_networks_resumes_if_they_are_given_again(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    own = Custom(encoder=encoder, decoder=nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8))))
    run = train(recipe(epochs=1, network=own), tmp_path / "own", quiet=True)
    forget(run.directory.recipe_file, "ema")
    train(recipe(epochs=1, network=own), run.path, resume=True, quiet=True)
    with pytest.raises(RunError, match=r"another recipe \(.*network"):
        train(recipe(epochs=1), run.path, resume=True, quiet=True)


def test_directories_in_the_way(tmp_path):
    once = train(recipe(epochs=1), tmp_path / "run", quiet=True)
    weights = (once.path / "weights.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds a run already; go on with `latentia resume"):
        train(recipe(epochs=1), tmp_path / "run", quiet=True)
    other = recipe(epochs=3, optimizer=Adam(lr=0.5))
    with pytest.raises(
        RunError, match=r"another recipe \(epochs: 1 there, 3 here; optimizer.lr: 0.001 there, 0.5 here\)"
    ):
        train(other, tmp_path / "run", resume=True, quiet=True)
    assert (once.path / "weights.safetensors").read_bytes() == weights
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is a file; give another --out"):
        train(recipe(), tmp_path / "file", quiet=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for resume in (False, True):
        with pytest.raises(RunError, match="not empty and holds no run"):
            train(recipe(), tmp_path / "full", resume=resume, quiet=True)
    with pytest.raises(RunError, match="cannot make the run directory"):
        train(recipe(), tmp_path / "file" / "run", quiet=True)


def test_names_are_not_taken_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [train(recipe(epochs=1), quiet=True).path for _ in range(3)]
    assert [str(p) for p in names] == ["runs/vae-digits", "runs/vae-digits-2", "runs/vae-digits-3"]


def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    def write(seed):
        images = np.random.default_rng(seed).integers(0, 2, (300, 1, 8, 8), dtype=np.uint8) * 255
        np.savez(tmp_path / "data.npz", images=images)

    write(0)
    chosen = recipe(data={"type": "npz", "file": str(tmp_path / "data.npz")}, epochs=1, batch_size=16)
    train(chosen, tmp_path / "run", quiet=True)
    write(1)
    with pytest.raises(RunError, match=r"are not those that .* began with"):
        train(chosen, tmp_path / "run", resume=True, quiet=True)


def test_bad_input_is_refused_before_a_directory_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="gray"):
        train(recipe(data={"type": "digits", "binarize": "none"}), quiet=True)
    with pytest.raises(ConfigurationError, match="larger than the training set"):
        train(recipe(batch_size=5000), quiet=True)
    with pytest.raises(ConfigurationError, match="2 processes cannot share batches of 63"):
        train(recipe(batch_size=63, devices=2), quiet=True)
    if not torch.cuda.is_available():
        with pytest.raises(RunError, match="no CUDA device"):
            train(recipe(accelerator="cuda"), quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch):
    from latentia.training import run_directory

    def full(path, tensors):
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_directory, "write_tensors", full)
    with pytest.raises(RunError, match=r"weights.safetensors: No space left.*make room"):
        train(recipe(epochs=1), tmp_path / "run", quiet=True)
    assert not list(tmp_path.glob("run/*weights*"))
    monkeypatch.undo()
    train(recipe(epochs=1), tmp_path / "run", resume=True, quiet=True)
    assert Run(tmp_path / "run").estimates


def test_bfloat16_trains_about_as_well(tmp_path):
    costs = {}
    for precision in ("32-true", "bf16-mixed"):
        run = train(recipe(epochs=4, precision=precision), tmp_path / precision, quiet=True)
        figures = [r for r in run.records if r["name"] == "validation/cost"]
        costs[precision] = [Estimate(r["value"], stderr=r["stderr"]) for r in figures]
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
    assert costs["bf16-mixed"][-1].value < costs["bf16-mixed"][0].value - 5 * (costs["bf16-mixed"][0].stderr or 0)
    assert costs["bf16-mixed"][-1].agrees_with(costs["32-true"][-1])
    assert costs["bf16-mixed"][-1].value != costs["32-true"][-1].value


# Two processes


def test_two_processes_do_what_one_does(still, tmp_path):
    assert pair(two, STILL, tmp_path / "two") == [str(tmp_path / "two")] * 2
    both = Run(tmp_path / "two")
    assert both.environment["devices"] == 2
    for one, other in zip(comparable(still), comparable(both), strict=True):
        assert (one["step"], one["name"]) == (other["step"], other["name"])
        assert other["value"] == pytest.approx(one["value"], rel=1e-5, abs=1e-6)
        assert other["stderr"] == pytest.approx(one["stderr"], rel=1e-3, abs=1e-5)
    one, other = still.directory.weights(), both.directory.weights()
    assert all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6) for name in one)


def test_two_processes_agree_within_noise_where_something_is_drawn(tmp_path):
    chosen = recipe(epochs=3)
    one = train(chosen, tmp_path / "one", quiet=True)
    pair(two, chosen, tmp_path / "two")
    other = Run(tmp_path / "two")
    for a, b in zip(one.records, other.records, strict=True):
        if a["name"].startswith("vae/"):
            first, second = (Estimate(r["value"], stderr=r["stderr"]) for r in (a, b))
            assert first.agrees_with(second)
    assert [r["value"] for r in one.records] != [r["value"] for r in other.records]


def test_errors_reach_both_processes(tmp_path):
    (tmp_path / "file").write_text("")
    cases = {
        "is a file": (STILL, tmp_path / "file"),
        "step 2: the vae's .* not finite": (recipe(optimizer=SGD(lr=1e30)), tmp_path / "bad"),
        "cannot share": (recipe(batch_size=63), tmp_path / "odd"),
    }
    for message, (chosen, out) in cases.items():
        for error in pair(two, chosen, out):
            assert isinstance(error, RunError | ConfigurationError), error
            assert re.search(message, str(error))


def test_both_processes_take_the_same_new_name(tmp_path):
    (tmp_path / "runs" / "vae-digits").mkdir(parents=True)
    assert pair(unnamed, recipe(epochs=1), tmp_path) == ["runs/vae-digits-2"] * 2


# Small and odd sizes, and faults in numbers


def test_a_batch_of_one_and_two_validation_images(tmp_path):
    run = train(recipe(epochs=1, batch_size=1, data={**DIGITS, "validation": 2}), tmp_path / "run", quiet=True)
    assert [e.n for e in run.estimates] == [359] * 3
    assert run.history["validation/cost"][0] == [1436]


@pytest.mark.parametrize(("validation", "batch_size"), [(101, 100), (3, 2), (2, 1), (64, 64)])
def test_validation_covers_every_image(tmp_path, validation, batch_size):
    chosen = recipe(epochs=1, batch_size=batch_size, data={**DIGITS, "validation": validation})
    splits = chosen.data.load()
    model = chosen.build_model(splits.shape)
    game = chosen.build_game(model, splits, Worker())
    assert game.validate is not None
    for estimate in game.validate(Progress()):
        assert estimate.n == validation


DIGITS = {"type": "digits", "binarize": "threshold"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"checkpoint_every": float("inf")}, "checkpoint_every"),
        ({"clip": float("inf")}, "clip"),
        ({"seed": 10**23}, "seed"),
        ({"optimizer": {"type": "adam", "lr": float("inf")}}, "optimizer.lr"),
    ],
)
def test_extreme_settings_are_refused_by_key(settings, key):
    with pytest.raises(ConfigurationError) as raised:
        recipe(**settings)
    assert [name for name, _ in raised.value.problems] == [key]


def test_a_name_that_is_too_long(tmp_path):
    with pytest.raises(RunError, match="give another --out"):
        train(recipe(), tmp_path / ("x" * 300), quiet=True)


@pytest.mark.parametrize("error", [RuntimeError("normal expects all elements of std >= 0.0"), ValueError("scale")])
def test_a_cost_that_fails_stops_with_step_and_last_checkpoint(tmp_path, error):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    calls = iter(range(10))
    decoder.register_forward_pre_hook(lambda *_: _fail(error) if decoder.training and next(calls) == 5 else None)
    match = rf"step \d: the cost of the vae .*{str(error)[:6]}.*last good checkpoint is .*step-0+0; try a lower lr"
    with pytest.raises(RunError, match=match):
        train(recipe(network=Custom(encoder=encoder, decoder=decoder)), tmp_path / "run", quiet=True)


def _fail(error):
    raise error


def test_a_run_shows_itself(rich):
    assert str(rich.path) in repr(rich)
    assert "test/elbo" in repr(rich)
    assert "<table>" in rich._repr_html_()
    assert rich.test.x.shape == (359, 1, 8, 8)
    assert rich.test.labels.shape == (359,)
    assert len(rich.validation.x) == len(rich.splits.validation)
    steps, costs = rich.history["vae/cost"]
    recorded = [(r["step"], r["value"]) for r in rich.records if r["name"] == "vae/cost"]
    assert list(zip(steps, costs, strict=True)) == recorded


def test_a_run_with_own_networks_is_read_without_them(tmp_path):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    own = Custom(encoder=encoder, decoder=nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8))))
    path = train(recipe(epochs=1, network=own), tmp_path / "own", quiet=True).path
    assert Run(path).status == "ended"
    assert Run(path).records
    with pytest.raises(ConfigurationError, match=r"network=Custom"):
        _ = Run(path).model
    assert Run(path, network=own).model is not None


KL = {"type": "elbo", "kl": "monte-carlo"}
CODES = {"type": "elbo", "gradient": "enumerated"}
FAULTY = {
    "diagonal": ("vae", {}),
    "full": ("vae", {"posterior": "full"}),
    "flow": ("vae", {"posterior": "flow", "objective": KL}),
    "mixture": ("vae", {"posterior": "mixture", "objective": KL}),
    "sphere": ("vae", {"posterior": "von-mises-fisher", "prior": "sphere"}),
    "codes": ("vae", {"posterior": "categorical", "prior": "categorical", "latent": 4, "objective": CODES}),
    "vamp": ("vae", {"prior": "vamp", "objective": KL}),
    "exact likelihood": ("vae", {"objective": "exact-likelihood", "latent": 1}),
    "logistics": ("vae", {"likelihood": "logistic-mixture", "data": {"type": "digits"}}),
    "student-t": ("vae", {"likelihood": "student-t", "data": {"type": "wine"}}),
    "mixed": ("vae", {"likelihood": "mixed", "data": {"type": "wine"}}),
    "m2": ("m2", {}),
    "conditional": ("conditional-vae", {}),
    "bigan": ("bigan", {}),
    "vae-gan": ("vae-gan", {}),
    "adversarial autoencoder": ("adversarial-autoencoder", {}),
    "gan": ("gan", {}),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_number_that_is_not_finite_names_step_and_checkpoint(name, tmp_path):
    kind, settings = FAULTY[name]
    wild = {key: Adam(lr=1e18) for key in Recipe.members()[kind].model_fields if key.endswith("optimizer")}
    small = {**SMALL, "network": MLP(hidden=(8,)), "latent": 2, "checkpoint_every": 0.01}
    with pytest.raises(RunError, match=r"step \d+.*(no checkpoint|last good checkpoint is .*step-\d+)"):
        train(Recipe.parse({"type": kind, **small, **wild, **settings}), tmp_path / "run", quiet=True)


def test_estimates_of_the_end_that_are_not_finite_name_step_and_checkpoint(tmp_path, monkeypatch):
    def spoiled(*_, **__):
        return [Estimate(math.nan, "elbo")]

    monkeypatch.setattr(VAERecipe, "final_estimates", spoiled)
    with pytest.raises(
        RunError, match=r"after step 4, the estimates.*last good checkpoint is .*step-00000004.*lower lr"
    ):
        train(recipe(epochs=1, batch_size=300), tmp_path / "run", quiet=True)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_where_processes_train():
    """Of three blocks of 64 MB, one after another, only the first one is got from the system page by page."""
    script = (
        "import resource, sys; from latentia.threads import keep_memory; sys.argv[1:] and keep_memory(); found = []\n"
        "for _ in range(3): found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt); bytearray(b'1') * 2**26\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - found[1])"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def faults(*words: str, **more: str) -> int:
        command = [sys.executable, "-c", script, *words]
        return int(subprocess.run(command, env=plain | more, capture_output=True, text=True, check=True).stdout)

    assert max(faults("keep"), faults(**training_environment())) < faults() / 5
