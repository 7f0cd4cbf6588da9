import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributions as td

from latentia.distributions.finite import Finite
from latentia.distributions.mixtures import Mixture
from latentia.distributions.parsing import _DISTRIBUTIONS, parse_distribution
from latentia.errors import ConfigurationError

WRITTEN = {
    "Normal(0,1)": td.Normal,
    " Normal ( loc = -1.5e0 , scale = 2 ) ": td.Normal,
    "Uniform(1/2, 3/2)": td.Uniform,
    "Laplace(0, 1)": td.Laplace,
    "Exponential(2)": td.Exponential,
    "Gamma(2, rate=3)": td.Gamma,
    "Beta(.5, .5)": td.Beta,
    "Cauchy(0, 1)": td.Cauchy,
    "StudentT(3)": td.StudentT,
    "StudentT(3, 1, 2)": td.StudentT,
    "LogNormal(0, 1)": td.LogNormal,
    "Gumbel(0, 1)": td.Gumbel,
    "Bernoulli(0.25)": td.Bernoulli,
    "Poisson(4)": td.Poisson,
    "Categorical([.2, .3, .5])": td.Categorical,
    "Finite([0, 1, 2.5], [.2, .3, .5])": Finite,
    "Finite([[0,0],[1,1]])": Finite,
    "MultivariateNormal([0,1],[[2,1],[1,2]])": td.MultivariateNormal,
    "Normal([0,0],[1,2])": td.Independent,
    "Uniform([0,0],1)": td.Independent,
    "Mixture(0.3*Normal(-2,1)+0.7*Normal(2,.5))": Mixture,
    "Mixture(0.5 * Uniform(0,1) + 0.5 * Mixture(.5*Normal(0,1) + .5*Laplace(0,1)))": Mixture,
}


@pytest.mark.parametrize("text", WRITTEN)
def test_what_can_be_written_is_read(text):
    distribution = parse_distribution(text)
    assert isinstance(distribution, WRITTEN[text])
    draw = distribution.sample((5,))
    assert torch.isfinite(distribution.log_prob(draw)).all()
    assert distribution.log_prob(draw).shape == (5,)


def test_every_distribution_in_the_table_is_tried_above():
    assert {text.strip().split("(")[0].strip() for text in WRITTEN} == {*_DISTRIBUTIONS, "Mixture"}


def test_parameters_arrive_where_they_belong_in_float64():
    distribution = parse_distribution("Normal(scale=1/3, loc=-2)")
    assert distribution.loc.item() == -2
    assert distribution.scale.item() == 1 / 3
    assert distribution.loc.dtype == torch.float64
    mixture = parse_distribution("Mixture(0.3*Normal(-2,1)+0.7*Normal(2,.5))")
    assert mixture.weights.tolist() == pytest.approx([0.3, 0.7], abs=1e-15)
    assert mixture.mean.item() == pytest.approx(0.8, abs=1e-15)


FAULTS = [
    ("", 0, "name of a distribution"),
    ("Normal", 0, "'(' must follow"),
    ("Normal(0,1", 6, "never closed"),
    ("Normal(0,1))", 11, "unmatched"),
    ("Normal(0,)", 9, "lacks scale"),
    ("Normal(0)", 8, "lacks scale"),
    ("Normal(0,1,2)", 11, "takes 2 parameters: loc, scale"),
    ("Nornal(0,1)", 0, "Did you mean Normal"),
    ("Normal(0,-1)", 9, "scale must be > 0"),
    ("Normal(0, scale=0)", 16, "scale must be > 0"),
    ("Normal(0, sclae=1)", 10, "Did you mean scale"),
    ("Normal(0, loc=1)", 10, "given twice"),
    ("Normal(0,one)", 9, "number, a list"),
    ("Normal(0,1/0)", 11, "other than 0"),
    ("Normal(0,1e999)", 9, "1e+150"),
    ("Normal(0,1e-170)", 9, "1e-150"),
    ("Normal(0,1e-100/1e100)", 9, "1e-150"),
    ("Normal(True,1)", 7, "number, a list"),
    ("Normal(*[0,1])", 7, "number, a list"),
    ("Normal(**{})", 7, "no parameter"),
    ("Normal(0,'1')", 9, "number, a list"),
    ("[Normal(0,1) for x in y]", 0, "name of a distribution"),
    ("Normal([0,0],[1,1,1])", 0, "different lengths"),
    ("Normal([],1)", 7, "loc must be"),
    ("Uniform(1,0)", 0, "high must be > low"),
    ("Bernoulli(1.5)", 10, "probs must lie in [0, 1]"),
    ("Categorical([.5,.6])", 12, "sum to 1"),
    ("Categorical(.5)", 12, "must be a list"),
    ("Finite([[0,0],[1]])", 7, "different lengths"),
    ("Finite([0,1],[1])", 0, "one weight for each"),
    ("MultivariateNormal([0,0],[[1,2],[2,1]])", 25, "positive definite"),
    ("MultivariateNormal([0,0],[[1,0.5],[0,1]])", 25, "symmetric"),
    ("MultivariateNormal([0],[[1,0],[0,1]])", 0, "1 × 1"),
    ("Mixture(Normal(0,1))", 8, "number"),
    ("Mixture(0.5*Normal(0,1))", 0, "sum to 0.5"),
    ("Mixture(0.5 Normal(0,1))", 8, "invalid syntax"),
    ("Mixture(-1*Normal(0,1)+2*Normal(0,1))", 8, "must be >= 0"),
    ("Mixture(.5*Normal(0,1)+.5*Normal([0,0],1))", 0, "different spaces"),
    ("Mixture(.5*Normal(0,1)+.5*Poisson(1))", 0, "all discrete or all continuous"),
    ("Mixture(.5*Normal(0,1)+.5*Normal(0,-2))", 35, "scale must be > 0"),
    ("__import__('os').system('true')", 0, "name of a distribution"),
    ("Mixture(1*" * 30, 207, "nested"),
    ("Finite([[[[[0]]]]])", 9, "two deep"),
]


@pytest.mark.parametrize(("text", "place", "message"), FAULTS, ids=[fault[0][:40] or "empty" for fault in FAULTS])
def test_faults_are_pointed_at(text, place, message):
    with pytest.raises(ConfigurationError) as caught:
        parse_distribution(text)
    *words, shown, caret = str(caught.value).split("\n")
    assert message in "\n".join(words)
    assert caret.endswith("^")
    at = len(caret) - 1
    assert (shown + " ")[at] == (text + " ")[place]
    if len(text) <= 200:
        assert (shown, at) == ("  " + text, place + 2)


def test_a_long_expression_is_refused():
    with pytest.raises(ConfigurationError, match="at most 4096"):
        parse_distribution("Finite([" + "0," * 3000 + "1])")
    assert len(parse_distribution("Mixture(" + "+".join(["0.01*Normal(0,1)"] * 100) + ")").components) == 100


@given(st.text(alphabet="NormalUif(0,1)[]*+-./=eE \n", max_size=40) | st.text(max_size=30))
def test_no_text_does_anything_but_parse_or_be_refused(text):
    try:
        distribution = parse_distribution(text)
    except ConfigurationError:
        return
    assert isinstance(distribution, td.Distribution)


@given(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-100), st.floats(1e-6, 1e6))
def test_numbers_survive_writing(loc, scale):
    distribution = parse_distribution(f"Normal({loc!r},{scale!r})")
    assert (distribution.loc.item(), distribution.scale.item()) == (loc, scale)
    assert math.isfinite(distribution.entropy().item())
