"""torch's own fused optimizers are the oracle, to the last bit."""

import copy

import pytest
import torch
from torch import nn

from latentia.training import Adam, AdamW
from latentia.training.checkpoint import optimizer_tensors, restore_optimizer
from latentia.training.fused_adam import FusedAdam, FusedAdamW

SETTINGS = {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-6}
KINDS = [
    (FusedAdam, torch.optim.Adam, {}),
    (FusedAdam, torch.optim.Adam, {"weight_decay": 0.1}),
    (FusedAdam, torch.optim.Adam, {"maximize": True}),
    (FusedAdam, torch.optim.Adam, {"amsgrad": True}),
    (FusedAdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
]
kinds = pytest.mark.parametrize(
    ("ours", "theirs", "more"), KINDS, ids=lambda kind: getattr(kind, "__name__", str(kind))
)


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 5)).to(dtype)


def give_gradients(module, step, missing=()):
    """The same gradients for the same step; none for the parameters of these numbers."""
    torch.manual_seed(step + 1)
    for number, parameter in enumerate(module.parameters()):
        gradient = torch.randn_like(parameter)
        parameter.grad = None if number in missing else gradient


class Pair:
    """Two networks with equal weights, one with our optimizer and one with torch's."""

    def __init__(self, ours, theirs, **more):
        dtype = more.pop("dtype", torch.float32)
        self.modules = [network(dtype), network(dtype)]
        kinds = zip((ours, theirs), self.modules, strict=True)
        self.optimizers = [kind(module.parameters(), fused=True, **SETTINGS, **more) for kind, module in kinds]

    def step(self, number, missing=(), rate=None):
        for module, optimizer in zip(self.modules, self.optimizers, strict=True):
            give_gradients(module, number, missing)
            if rate is not None:
                optimizer.param_groups[0]["lr"] = rate
            optimizer.step()

    def check(self):
        for mine, torchs in zip(*(module.parameters() for module in self.modules), strict=True):
            assert torch.equal(mine, torchs)
        mine, torchs = (optimizer.state_dict() for optimizer in self.optimizers)
        assert mine["param_groups"] == torchs["param_groups"]
        assert mine["state"].keys() == torchs["state"].keys()
        for index, state in torchs["state"].items():
            assert mine["state"][index].keys() == state.keys()
            for name, value in state.items():
                assert torch.equal(mine["state"][index][name], value)
                assert mine["state"][index][name].dtype == value.dtype

    @property
    def direct(self):
        """Whether our optimizer takes the short way now."""
        return self.optimizers[0]._lists is not None


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_same_bits_as_torchs(ours, theirs, more, dtype):
    pair = Pair(ours, theirs, dtype=dtype, **more)
    for number in range(6):
        pair.step(number, rate=0.01 / (number + 1))  # as a schedule does
    pair.check()
    assert pair.direct != more.get("amsgrad", False)


def test_ordinary_steps_do_not_pass_through_torchs(monkeypatch):
    """Otherwise the tests here would compare torch with itself."""
    pair = Pair(FusedAdam, torch.optim.Adam)
    pair.step(0)
    monkeypatch.setattr(torch.optim.Adam, "step", None)
    give_gradients(pair.modules[0], 1)
    weight = next(pair.modules[0].parameters())
    before = weight.detach().clone()
    pair.optimizers[0].step()
    assert not torch.equal(before, weight)


@kinds
def test_parameters_without_a_gradient_stay(ours, theirs, more):
    pair = Pair(ours, theirs, **more)
    for number, missing in enumerate([(0,), (0, 3), (), (1,), (), (0, 1, 2, 3), ()]):
        pair.step(number, missing)
        pair.check()


@kinds
def test_a_run_restored_in_its_middle(ours, theirs, more):
    """Checkpoints of ours go into torch's and those of torch's into ours, and the steps after are the same."""
    pair = Pair(ours, theirs, **more)
    for number in range(3):
        pair.step(number)
    saved = [{k: v.clone() for k, v in optimizer_tensors(o).items()} for o in pair.optimizers]
    for number in range(3, 5):  # steps that the restoring undoes
        pair.step(number)
    weights = copy.deepcopy(pair.modules[1].state_dict())
    for module, optimizer, tensors in zip(pair.modules, pair.optimizers, reversed(saved), strict=True):
        module.load_state_dict(weights)
        restore_optimizer(optimizer, tensors)
    for number in range(5, 8):
        pair.step(number)
        pair.check()
    steps = {value.item() for name, value in optimizer_tensors(pair.optimizers[0]).items() if name.endswith("step")}
    assert steps == {6.0}


def test_the_state_dicts_of_both_go_into_the_other():
    pair = Pair(FusedAdam, torch.optim.Adam)
    for number in range(2):
        pair.step(number)
    mine, torchs = (copy.deepcopy(optimizer.state_dict()) for optimizer in pair.optimizers)
    pair.optimizers[0].load_state_dict(torchs)
    pair.optimizers[1].load_state_dict(mine)
    for number in range(2, 5):
        pair.step(number)
    pair.check()


def test_a_state_thrown_away_begins_anew():
    pair = Pair(FusedAdam, torch.optim.Adam)
    for number in range(2):
        pair.step(number)
    for optimizer in pair.optimizers:
        optimizer.state.clear()
    for number in range(2, 5):
        pair.step(number)
    pair.check()


def test_a_copy_has_lists_of_its_own():
    pair = Pair(FusedAdam, torch.optim.Adam)
    pair.step(0)
    module, optimizer = copy.deepcopy((pair.modules[0], pair.optimizers[0]))
    pair.step(1)
    pair.check()
    give_gradients(module, 1)
    optimizer.step()
    for mine, copied in zip(pair.modules[0].parameters(), module.parameters(), strict=True):
        assert torch.equal(mine, copied)
        assert mine is not copied


def test_a_group_added_with_a_rate_of_its_own():
    pair = Pair(FusedAdam, torch.optim.Adam)
    pair.step(0)
    extra = [nn.Linear(3, 2), nn.Linear(3, 2)]
    extra[1].load_state_dict(extra[0].state_dict())
    for module, optimizer, more in zip(pair.modules, pair.optimizers, extra, strict=True):
        module.append(more)
        optimizer.add_param_group({"params": list(more.parameters()), "lr": 0.3, "betas": (0.5, 0.6)})
    for number in range(1, 4):
        pair.step(number, rate=0.02)
    pair.check()
    assert pair.direct


def test_two_float_types_in_one_group_go_by_torchs():
    modules = [nn.ModuleList([network(), network(torch.float64)]) for _ in range(2)]
    optimizers = [
        kind(module.parameters(), fused=True, **SETTINGS)
        for kind, module in zip((FusedAdam, torch.optim.Adam), modules, strict=True)
    ]
    for number in range(3):
        for module, optimizer in zip(modules, optimizers, strict=True):
            give_gradients(module, number)
            optimizer.step()
    for mine, torchs in zip(*(module.parameters() for module in modules), strict=True):
        assert torch.equal(mine, torchs)


def test_hooks_are_called_once_a_step():
    pair = Pair(FusedAdam, torch.optim.Adam)
    calls = []
    pair.step(0)
    before = pair.optimizers[0].register_step_pre_hook(lambda *_: calls.append("before"))
    pair.optimizers[0].register_step_post_hook(lambda *_: calls.append("after"))
    pair.step(1)
    assert calls == ["before", "after"]
    before.remove()
    pair.step(2)
    assert calls == ["before", "after", "after"]
    pair.check()


def test_a_closure_is_called_and_its_loss_returned():
    pair = Pair(FusedAdam, torch.optim.Adam)
    for number in range(2):
        for module, optimizer in zip(pair.modules, pair.optimizers, strict=True):

            def closure(module=module, number=number):
                assert torch.is_grad_enabled()
                give_gradients(module, number)
                return 7.0

            assert optimizer.step(closure) == 7.0
    pair.check()


def test_scaled_gradients_are_unscaled():
    """What a gradient scaler leaves on an optimizer that does its own unscaling."""
    pair = Pair(FusedAdam, torch.optim.Adam)
    pair.step(0)
    for optimizer in pair.optimizers:
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(0.0)
    pair.step(1)
    pair.check()


def test_the_components_build_them():
    parameters = list(network().parameters())
    assert type(Adam().build(parameters)) is FusedAdam
    built = AdamW(weight_decay=0.3).build(parameters)
    assert type(built) is FusedAdamW
    assert built.param_groups[0]["weight_decay"] == 0.3
    assert built.param_groups[0]["fused"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@kinds
def test_same_bits_on_a_gpu(ours, theirs, more):
    pair = Pair(ours, theirs, **more)
    for number, (module, optimizer) in enumerate(zip(pair.modules, pair.optimizers, strict=True)):
        module.cuda()
        pair.optimizers[number] = type(optimizer)(module.parameters(), fused=True, **SETTINGS, **more)
    for number in range(5):
        pair.step(number)
    pair.check()
    assert all(state["step"].is_cuda for state in pair.optimizers[0].state.values())
