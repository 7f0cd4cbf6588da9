"""The pairs of distributions that the tests of divergences share. A pair that joins the table inherits every test."""

from __future__ import annotations

from latentia.distributions.parsing import parse_distribution

# Densities on the line.
DENSITIES = [
    ("Normal(0,1)", "Normal(1,2)"),
    ("Normal(0,1)", "Normal(0.001,1)"),
    ("Normal(0,1)", "Laplace(1,1)"),
    ("Normal(0,1)", "Normal(30,0.1)"),
    ("Uniform(0,1)", "Uniform(-1,3)"),
    ("Uniform(0,1)", "Beta(2,3)"),
    ("Uniform(0,1)", "Normal(0,1)"),
    ("Beta(.5,.5)", "Beta(2,2)"),
    ("Exponential(1)", "Gamma(2,3)"),
    ("Exponential(1)", "Exponential(3)"),
    ("Gamma(2,1)", "LogNormal(0,1)"),
    ("Cauchy(0,1)", "Cauchy(1,2)"),
    ("StudentT(5)", "Normal(0,1)"),
    ("StudentT(3,1,2)", "Cauchy(0,1)"),
    ("Gumbel(0,1)", "Gumbel(1,1)"),
    ("Gumbel(0,1)", "Normal(0,1)"),
    ("Laplace(0,1)", "Laplace(1,3)"),
    ("Mixture(0.3*Normal(-2,1)+0.7*Normal(2,.5))", "Normal(0,3)"),
    ("Mixture(0.5*Uniform(0,1)+0.5*Uniform(3,4))", "Uniform(-1,5)"),
    ("Mixture(0.5*Uniform(0,1)+0.5*Normal(0,1))", "Mixture(0.9*Normal(0,1)+0.1*Cauchy(0,1))"),
]
# Distributions on points of the line.
DISCRETE = [
    ("Bernoulli(0.2)", "Bernoulli(0.7)"),
    ("Bernoulli(0)", "Bernoulli(0.5)"),
    ("Categorical([.2,.3,.5])", "Finite([0,1,2,7],[.25,.25,.25,.25])"),
    ("Finite([0,0.5,3])", "Finite([0,0.5,3],[.1,.1,.8])"),
    ("Poisson(3)", "Poisson(4)"),
    ("Bernoulli(0.2)", "Poisson(1)"),
]
# Distributions in the plane.
PLANE = [
    ("Normal([0,0],1)", "MultivariateNormal([1,0],[[2,1],[1,2]])"),
    ("Uniform([0,0],1)", "Normal([0,0],1)"),
    ("Uniform([0,0],1)", "Uniform([-1,-1],2)"),
    ("Laplace([0,0],1)", "Normal([0,0],[1,2])"),
    ("Mixture(.5*Normal([0,0],.5)+.5*Normal([3,0],.7))", "Normal([0,0],[1,2])"),
]
LINE = DENSITIES + DISCRETE
ALL = LINE + PLANE


def distribution(text):
    return parse_distribution(text)


def both(pair):
    return parse_distribution(pair[0]), parse_distribution(pair[1])


def label(pair):
    return " | ".join(pair)
