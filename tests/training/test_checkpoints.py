"""Checkpoints are whole or not there; damaged ones are found out; what is not finite is never saved."""

import re
import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from latentia.errors import ConfigurationError, RunError
from latentia.estimate import Estimate
from latentia.training import SGD, Adam, AdamW, RunDirectory
from latentia.training import checkpoint as checkpoints
from latentia.training.checkpoint import Checkpoint, find_checkpoints, newest_sound, prune, write_checkpoint

from .toys import fill_the_disk_at_step_9, play_duel, same_run

STATE = {"model.w": torch.arange(6.0).reshape(2, 3), "model.n": torch.tensor(7), "ema.w": torch.ones(2)}


def test_what_is_written_is_read(tmp_path):
    shared = torch.zeros(4)
    tensors = {**STATE, "a": shared, "b": shared, "t": torch.rand(3, 4).T, "half": torch.ones(2, dtype=torch.bfloat16)}
    path = write_checkpoint(tmp_path, Checkpoint(12, tensors, {"best": 0.1, "rows": [[1, "a", "b"]]}))
    back = checkpoints.read_checkpoint(path)
    assert path.name == "step-00000012"
    assert (back.step, back.progress) == (12, {"best": 0.1, "rows": [[1, "a", "b"]]})
    assert all(torch.equal(back.tensors[name], value) for name, value in tensors.items())
    assert set(back.part("model")) == {"w", "n"}


def test_all_is_synced_before_the_name_appears(tmp_path, synced):
    write_checkpoint(tmp_path, Checkpoint(1, STATE))
    first, second, folder, parent = synced
    assert {first.name, second.name} == {"state.safetensors", "state.json"}
    assert first.parent == second.parent == folder
    assert folder.parent == parent == tmp_path
    assert folder.name.startswith(".latentia-")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_and_any_cut_is_found_out(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (3, 5):
        write_checkpoint(folder, Checkpoint(step, STATE, {"best_step": 30}))
    path = folder / "step-00000005" / data.draw(st.sampled_from(["state.json", "state.safetensors"]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    saved, complaints = newest_sound(folder)
    if saved is not None and saved.step == 5:  # the flip of a blank in the JSON, which means the same
        assert path.name == "state.json"
        assert saved.progress == {"best_step": 30}
    else:
        assert saved is not None
        assert saved.step == 3
        assert [p.name for p in complaints] == ["step-00000005"]
        assert re.search("damaged|cannot read", next(iter(complaints.values())))


def empty(path):
    for file in path.iterdir():
        file.unlink()


def cut(path):
    file = path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    "damage", [empty, cut, lambda path: (path / "state.json").unlink()], ids=["empty", "cut", "json"]
)
@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_damaged_checkpoint_is_stepped_over_and_said(tmp_path, capsys, damage, keep):
    play_duel(tmp_path / "whole", keep=keep)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", keep=keep, seen=lambda n: n == 31 and _raise(MemoryError()))
    newest = find_checkpoints(tmp_path / "torn" / "checkpoints")[-1]
    damage(newest)
    play_duel(tmp_path / "torn", resume=True, keep=keep)
    said = capsys.readouterr().err
    assert re.search(rf"(damaged|cannot read).*{newest.name}|{newest.name}.*damaged", said)
    assert "going back to an older one" in said
    assert newest.with_name(f"damaged-{newest.name}").is_dir()
    same_run(tmp_path / "whole", tmp_path / "torn")


def _raise(error):
    raise error


def test_a_run_starts_over_if_every_checkpoint_is_damaged(tmp_path, capsys):
    play_duel(tmp_path / "whole")
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", seen=lambda n: n == 31 and _raise(MemoryError()))
    for path in find_checkpoints(tmp_path / "torn" / "checkpoints"):
        cut(path)
    with pytest.raises(MemoryError):
        play_duel(tmp_path / "torn", resume=True, seen=lambda n: n == 9 and _raise(MemoryError()))
    assert capsys.readouterr().err.count("going back") == 2
    assert [p.name for p in find_checkpoints(tmp_path / "torn" / "checkpoints")] == ["step-00000000", "step-00000003"]
    play_duel(tmp_path / "torn", resume=True)
    same_run(tmp_path / "whole", tmp_path / "torn")


def test_a_damaged_best_is_said_and_another_is_looked_for(tmp_path, capsys):
    def scripted(game):
        figures = [9.0, 1.0, 8.0, 5.0, 7.0, 6.0]
        game.validate = lambda progress: [Estimate(figures[round(progress.epoch) - 1], "validation/cost")]

    with pytest.raises(MemoryError):
        play_duel(
            tmp_path, keep="best", epochs=6, change=scripted, seen=lambda n: n == 2 * 20 and _raise(MemoryError())
        )
    cut(tmp_path / "checkpoints" / "step-00000012")
    play_duel(tmp_path, keep="best", epochs=6, change=scripted, resume=True)
    said = capsys.readouterr().err
    assert "step-00000012" in said
    assert "the best weights will be chosen among those of the steps to come" in said
    best = checkpoints.read_checkpoint(tmp_path / "checkpoints" / "step-00000024")
    weights = RunDirectory(tmp_path).weights()
    assert all(torch.equal(weights[name], value) for name, value in best.part("model").items())


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    play_duel(tmp_path / "run", epochs=1)
    with pytest.raises(
        RunError, match=r"checkpoint of step 6 is of another model: .*discriminator\.0\.weight.*begin again"
    ):
        play_duel(tmp_path / "run", epochs=1, resume=True, change=_widen)


def _widen(game):
    game.model.discriminator[0] = nn.Linear(3, 8)


@pytest.mark.parametrize("optimizer", [Adam(), AdamW(), SGD(momentum=0.9), SGD()], ids=lambda o: f"{o.type_name}")
def test_optimizers_come_back(optimizer):
    def model():
        torch.manual_seed(0)
        return nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)

    def step(network, torch_optimizer, n):
        torch.manual_seed(n)
        torch_optimizer.zero_grad()
        network(torch.randn(2, 2, 5, 5)).square().sum().backward()
        torch_optimizer.step()

    one, two = model(), model()
    first, second = optimizer.build(list(one.parameters())), optimizer.build(list(two.parameters()))
    for n in range(3):
        step(one, first, n)
    two.load_state_dict({name: value.contiguous() for name, value in one.state_dict().items()})
    flat = {name: value.clone().contiguous() for name, value in checkpoints.optimizer_tensors(first).items()}
    checkpoints.restore_optimizer(second, flat)
    step(one, first, 3)
    step(two, second, 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_pruning_keeps_the_newest_and_the_spared(tmp_path):
    for step in (0, 2, 99_999_999, 100_000_000):
        (tmp_path / f"step-{step:08d}").mkdir()
    (tmp_path / "step-abc").mkdir()
    prune(tmp_path, 1, spare=[2])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-100000000", "step-abc"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    play_duel(tmp_path / "whole")
    fill_the_disk_at_step_9(monkeypatch.setattr)
    cure = (
        r"step-00000009: No space left on device; make room.*last good checkpoint is .*step-00000006; .*latentia resume"
    )
    with pytest.raises(RunError, match=cure):
        play_duel(tmp_path / "torn")
    left = sorted(p.name for p in (tmp_path / "torn" / "checkpoints").iterdir())
    assert left == ["step-00000003", "step-00000006"]
    monkeypatch.undo()
    play_duel(tmp_path / "torn", resume=True)
    same_run(tmp_path / "whole", tmp_path / "torn")


def test_a_file_too_large_for_the_system(tmp_path):
    """The real thing: the kernel refuses to write more than a few hundred bytes to any file."""
    write_checkpoint(tmp_path, Checkpoint(1, STATE))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(RunError, match=r"could not write .*step-00000002.*latentia resume"):
            write_checkpoint(tmp_path, Checkpoint(2, {"w": torch.zeros(10_000)}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert newest_sound(tmp_path)[1] == {}


def test_a_checkpoint_folder_that_is_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(RunError, match="choose another folder"):
        write_checkpoint(tmp_path / "checkpoints", Checkpoint(1, STATE))


def broken(term, at, player=0):
    """A change of the game that makes a term of a player infinite or not a number from its step `at` on."""

    def change(game):
        cost = game.players[player].cost

        def bad(batch, progress):
            terms = cost(batch, progress)
            if progress.step + 1 >= at:
                terms[term] = terms[term] * float("nan")
                if term != "cost":
                    terms["cost"] = terms["cost"] + terms[term]
            return terms

        game.players[player].cost = bad

    return change


def all_finite(folder):
    saved = [checkpoints.read_checkpoint(path) for path in find_checkpoints(folder)]
    return bool(saved) and all(bool(t.isfinite().all()) for c in saved for t in c.tensors.values())


@pytest.mark.parametrize("record_every", [1, 4, 1000])
@pytest.mark.parametrize("at", [1, 8, 9, 12])
def test_a_cost_that_is_not_finite_stops_the_run(tmp_path, record_every, at):
    change = broken("penalty", at)
    last = {1: 0, 8: 6, 9: 6, 12: 9}[at]
    named = (
        rf"step {at}: the discriminator's 'penalty' and 'cost' are not finite; "
        rf"the last good checkpoint is .*step-0*{last};"
    )
    with pytest.raises(RunError, match=named):
        play_duel(tmp_path / "run", record_every=record_every, change=change)
    assert all_finite(tmp_path / "run" / "checkpoints")


def test_the_player_who_went_bad_first_is_named(tmp_path):
    """The generator breaks in step 5, and the discriminator, which steps first, sees it in step 6."""
    with pytest.raises(RunError, match="step 5: the generator's 'cost' is not finite"):
        play_duel(tmp_path / "run", record_every=100, change=broken("cost", 5, player=1))


class _ExplodingGradient(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return x.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize(("at", "found"), [(8, 9), (9, 9), (12, 12)])
def test_weights_that_break_behind_a_finite_cost_are_never_saved(tmp_path, at, found):
    """Between checkpoints the next cost shows it; at a checkpoint, the look at what would be saved."""

    def change(game):
        cost = game.players[1].cost

        def bad(batch, progress):
            terms = cost(batch, progress)
            if progress.step + 1 == at:
                terms["cost"] = _ExplodingGradient.apply(terms["cost"])
            return terms

        game.players[1].cost = bad

    with pytest.raises(RunError, match=rf"step {found}: .*(is|are) not finite.*last good checkpoint") as raised:
        play_duel(tmp_path / "run", change=change, record_every=100)
    assert ("a gradient overflowed" in str(raised.value)) == (at == found)
    assert all_finite(tmp_path / "run" / "checkpoints")


def test_finite_numbers_whose_sum_overflows_are_no_fault(tmp_path):
    def with_large(game):
        game.model.register_parameter("large", nn.Parameter(torch.full((2,), 3e38)))

    assert play_duel(tmp_path / "run", change=with_large).step == 24


def test_an_infinite_buffer_is_a_mask_and_no_fault(tmp_path):
    def change(game):
        game.model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    assert play_duel(tmp_path / "run", epochs=1, change=change).step == 6


def test_a_validation_that_is_no_number_is_an_error_for_people(tmp_path):
    def change(game):
        game.validate = lambda _: [Estimate(float("nan"), "validation/cost")]

    with pytest.raises(RunError, match=r"after step 6, validation failed: .*not a number"):
        play_duel(tmp_path / "run", change=change)


def test_best_needs_a_figure(tmp_path):
    with pytest.raises(ConfigurationError, match=r"keep=best needs a validation split.*keep=last"):
        play_duel(tmp_path / "a", keep="best", change=lambda game: setattr(game, "validate", None))
    with pytest.raises(RunError, match="keep=best needs 'other'"):
        play_duel(tmp_path / "b", keep="best", change=lambda game: setattr(game, "monitor", "other"))
