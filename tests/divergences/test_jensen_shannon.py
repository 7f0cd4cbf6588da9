import math

import mpmath
import pytest
from scipy.spatial.distance import jensenshannon

from latentia.distributions.parsing import parse_distribution
from latentia.divergences import jensen_shannon, total_variation
from latentia.errors import UnsupportedError


@pytest.mark.parametrize(("mu", "known"), [(0.5, 0.030311), (1, 0.111421), (2, 0.336831), (4, 0.632720)])
def test_unit_gaussians(mu, known):
    p, q = parse_distribution("Normal(0,1)"), parse_distribution(f"Normal({mu},1)")
    result = jensen_shannon.quadrature(p, q)
    assert round(result.value, 6) == known
    assert result.error < 1e-11
    with mpmath.workdps(25):

        def integrand(x):
            a, b = mpmath.npdf(x), mpmath.npdf(x, mu)
            return (a * mpmath.log(2 * a / (a + b)) + b * mpmath.log(2 * b / (a + b))) / 2

        truth = mpmath.quad(integrand, [-15, -5, 0, mu / 2, mu, mu + 5, mu + 15])
    assert result.agrees_with(float(truth))
    assert jensen_shannon.monte_carlo(p, q, seed=2).agrees_with(result)


@pytest.mark.parametrize(
    ("q", "jsd", "variation"), [("Uniform(.5,1.5)", 0.5 * math.log(2), 0.5), ("Uniform(1,2)", math.log(2), 1.0)]
)
def test_the_uniforms_of_item_3e(q, jsd, variation):
    p, q = parse_distribution("Uniform(0,1)"), parse_distribution(q)
    assert jensen_shannon.exact(p, q).agrees_with(jsd)
    assert jensen_shannon.exact(p, q).kind == "exact"
    assert jensen_shannon.quadrature(p, q).agrees_with(jsd)
    assert total_variation.exact(p, q).agrees_with(variation)


@pytest.mark.parametrize("far", [1, 10, 1e6])
def test_disjoint_distributions_stay_at_log_2(far):
    answer = jensen_shannon.exact(parse_distribution("Uniform(0,1)"), parse_distribution(f"Uniform({far},{far + 1})"))
    assert answer.value == math.log(2)
    assert "disjoint" in answer.settings["reason"]


def test_points_against_a_density():
    answer = jensen_shannon.exact(parse_distribution("Finite([0,1])"), parse_distribution("Normal(0,1)"))
    assert answer.value == math.log(2)
    assert total_variation.exact(parse_distribution("Finite([0,1])"), parse_distribution("Normal(0,1)")).value == 1


def test_finite_distributions_are_scipys():
    p, q = [0.2, 0.3, 0.5, 0.0], [0.25, 0.25, 0.0, 0.5]
    ours = jensen_shannon.exact(parse_distribution(f"Categorical({p})"), parse_distribution(f"Categorical({q})"))
    assert ours.agrees_with(jensenshannon(p, q) ** 2)


def test_boxes_in_many_dimensions():
    d = 20
    p, q = (
        parse_distribution(f"Uniform({[0] * d},1)"),
        parse_distribution(f"Uniform({[0] * (d - 1) + [0.5]},{[1] * (d - 1) + [1.5]})"),
    )
    assert jensen_shannon.exact(p, q).agrees_with(0.5 * math.log(2))


def test_refusals():
    with pytest.raises(UnsupportedError, match=r"jensen_shannon\.quadrature"):
        jensen_shannon.exact(parse_distribution("Normal(0,1)"), parse_distribution("Normal(1,1)"))
    p, q = parse_distribution("Normal([0,0,0],1)"), parse_distribution("Normal([1,0,0],1)")
    with pytest.raises(UnsupportedError, match=r"jensen_shannon\.monte_carlo"):
        jensen_shannon.exact(p, q)
    line = jensen_shannon.quadrature(parse_distribution("Normal(0,1)"), parse_distribution("Normal(1,1)"))
    assert jensen_shannon.monte_carlo(p, q).agrees_with(line)  # the two other coordinates say nothing


def test_total_variation_between_gaussians_of_one_covariance():
    p = parse_distribution("MultivariateNormal([0,0],[[2,1],[1,2]])")
    q = parse_distribution("MultivariateNormal([1,-1],[[2,1],[1,2]])")
    exact = total_variation.exact(p, q)
    assert exact.agrees_with(math.erf(math.sqrt(2) / math.sqrt(8)))  # the Mahalanobis distance is √2
    assert total_variation.quadrature(p, q).agrees_with(exact)


@pytest.mark.parametrize(("p", "q"), [("Normal(0,1)", "Normal(0,1.0001)"), ("Normal(0,1)", "Normal(5,1e-4)")])
def test_total_variation_of_extreme_normals(p, q):
    p, q = parse_distribution(p), parse_distribution(q)
    assert total_variation.quadrature(p, q).agrees_with(total_variation.exact(p, q))
