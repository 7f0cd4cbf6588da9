import math

import pytest
import torch

from latentia.integration import LogSumExp, panel_grid, regular_grid


def gaussian(points):
    d = points.shape[-1]
    return -0.5 * points.square().sum(-1) - 0.5 * d * math.log(2 * math.pi)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_streamed_blocks_are_the_whole_grid(d):
    grid = regular_grid([-1.0] * d, [2.0] * d, 0.4)
    blocks = list(grid.blocks(size=50))
    assert torch.equal(torch.cat([points for points, _ in blocks]), grid.points())
    assert torch.allclose(torch.cat([weights for _, weights in blocks]), grid.log_weights(), rtol=0, atol=1e-14)
    assert grid.points().shape == (len(grid), d)
    assert abs(grid.log_weights().exp().sum().item() - 3.0**d) < 1e-12


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_gaussian_integrates_to_one(d):
    total = LogSumExp()
    for points, log_weights in regular_grid([-9.0] * d, [9.0] * d, 0.6 if d == 3 else 0.5).blocks():
        total.add(gaussian(points) + log_weights)
    assert abs(total.value.item()) < 1e-12


def test_the_trapezoid_rule_converges_faster_than_any_power():
    errors = []
    for spacing in (2.0, 1.5, 1.0):
        grid = regular_grid([-10.0], [10.0], spacing)
        errors.append(abs(torch.logsumexp(gaussian(grid.points()) + grid.log_weights(), 0).item()))
    truth = [2 * math.exp(-2 * math.pi**2 / h**2) for h in (2.0, 20 / 14, 1.0)]  # Poisson summation, first term
    for error, leading in zip(errors[:2], truth[:2], strict=True):
        assert abs(error / leading - 1) < 0.02
    assert errors[2] < 1e-8


def test_spacing_is_never_above_what_was_asked():
    grid = regular_grid([0.0, 0.0], [1.0, 2.0], 0.3)
    assert grid.shape == (5, 8)
    assert grid.dimension == 2
    assert regular_grid([0.0], [1.0], 0.1).shape == (11,)


@pytest.mark.parametrize("box", [([0.0], [0.0], 0.1), ([0.0], [math.inf], 0.1), ([0.0], [1.0], 0.0)])
def test_impossible_boxes_are_refused(box):
    with pytest.raises(ValueError, match="finite lower < upper"):
        regular_grid(*box)


def test_panels_take_jumps_at_their_edges():
    grid = panel_grid([[0.0, 0.3, 1.0], [0.0, 2.0]], panels=2, order=4)
    assert grid.shape == (16, 8)
    x, y = grid.points().unbind(-1)
    integral = (grid.log_weights().exp() * (x > 0.3) * y**3).sum().item()
    assert abs(integral - 0.7 * 4) < 1e-13
