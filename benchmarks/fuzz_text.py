"""Expressions of distributions and settings of recipes, made at random.

Each input is built from a grammar with values that are small, large, of another type or not numbers, and then damaged
as bytes in one case of four. What is accepted must keep what it promises: a divergence has the range of its kind, and a
recipe is the same after a round trip through YAML.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import latentia
from fuzz_runs import command, inside
from fuzzing import Reader, damaged, never
from latentia.configuration import apply_overrides, parse_overrides
from latentia.distributions import parse_distribution
from latentia.recipes import Recipe

NUMBERS = [
    "0", "1", "-1", "2", "0.5", "1/2", "3/2", "1/0", "0/0", "-0.0", "1e-3", "1e-150", "1e-149", "1e150", "1e151",
    "1e308", "1e999", "-1e999", "nan", "inf", "007", "1_000", "0x10", "1j", "1e", "1+1", "'a'", "True", "None", "x",
    "()", "[]", "[1]", "[0,1]", "[1,0]", "[[1,0],[0,1]]", "[[1,2],[3]]", "[1e-9,1]", "99999999999999999999999",
    ".3", "3.", "٣", "−1",
]  # fmt: skip
PLAIN = [
    "0", "1", "-1", "2", "0.5", "1/2", "3/2", "1e-3", "1e-9", "1e6", "30", "100", "0.25",
]  # fmt: skip
NAMES = [
    "Normal", "Uniform", "Laplace", "Exponential", "Gamma", "Beta", "Cauchy", "StudentT", "LogNormal", "Gumbel",
    "Bernoulli", "Poisson", "Categorical", "Finite", "MultivariateNormal", "Mixture", "normal", "Foo", "__import__",
]  # fmt: skip
ARGUMENTS = {"Normal": 2, "Uniform": 2, "Gamma": 2, "Beta": 2, "Laplace": 2, "Cauchy": 2, "LogNormal": 2, "Gumbel": 2}
VALUES = [
    "0", "1", "-1", "2", "3", "0.5", "-0.5", "1e-9", "1e9", "1e30", ".nan", ".inf", "-.inf", "1e999", "true",
    "false", "null", "''", "~", "[]", "[1]", "[1,2]", "[-1]", "[[1]]", "{}", "{a:", "1}", "{type:", "x}",
    "99999999999999999999", "0x10", "1e-3", "2024-01-01", "!!python/name:os.system", "&a", "[*a]", "*a", "mlp",
    "conv", "linear", "adam", "sgd", "elbo", "iwae", "bernoulli", "gaussian", "digits", "mnist", "ring", "npz",
    "nowhere", "x../../etc/passwd", "/dev/zero", "/dev/stdin", "$\\foo$", "[/b]", "\x00", "\u202e", "1,2", "512x",
    "(16,)",
]  # fmt: skip


def number(rng: random.Random, sane: bool) -> str:
    """A number, or now and then something else."""
    if sane or rng.random() < 0.7:
        return rng.choice(PLAIN) if rng.random() < 0.8 else f"{rng.lognormvariate(0, 2):.6g}"
    return rng.choice(NUMBERS)


def expression(rng: random.Random, sane: bool, depth: int = 0) -> str:
    """A distribution; sane ones have as many parameters as they take, of the right kind."""
    name = rng.choice(NAMES[: 16 if sane else None])
    if name == "Mixture" and depth < 3:
        inner = (f"{number(rng, sane)}*{expression(rng, sane, depth + 1)}" for _ in range(rng.choice((1, 2, 2, 3))))
        return f"Mixture({' + '.join(inner)})"
    if name in ("Categorical", "Finite") and (sane or rng.random() < 0.6):
        weights = [rng.random() ** rng.choice((1, 20)) for _ in range(rng.randrange(1, 5))]
        parts = [f"{weight / sum(weights):.17g}" for weight in weights]
        points = [number(rng, sane) for _ in weights]
        listed = f"[{','.join(parts)}]"
        return f"Finite([{','.join(points)}], {listed})" if name == "Finite" else f"Categorical({listed})"
    if name == "MultivariateNormal" and (sane or rng.random() < 0.6):
        return f"MultivariateNormal([{number(rng, sane)},0], [[2,{number(rng, sane)}],[1,2]])"
    count = ARGUMENTS.get(name, 1) if sane or rng.random() < 0.8 else rng.randrange(5)
    values = (
        number(rng, sane) if rng.random() < 0.9 else f"[{number(rng, sane)},{number(rng, sane)}]" for _ in range(count)
    )
    return f"{name}({', '.join(values)})"


def _maybe_damaged(text: str, rng: random.Random) -> bytes:
    content = text.encode("utf-8", "surrogateescape")
    return damaged(content, rng) if rng.random() < 0.25 else content


def _text(folder: Path) -> str:
    return (folder / "text").read_bytes().decode("utf-8", "surrogateescape")


def read_expression(folder: Path) -> object:
    """Parse a distribution and take samples."""
    distribution = parse_distribution(_text(folder))
    with latentia.training.seeded(0):
        distribution.sample((3,))
    return None


def read_distances(folder: Path) -> object:
    """All divergences of two distributions; each has the range of its kind, and exact methods agree."""
    p, _, q = _text(folder).partition("\n")
    with latentia.training.seeded(0):
        found = latentia.distance(p, q, draws=200)
    for estimate in found:
        kind = estimate.name.split("(")[0].lower()
        assert not math.isnan(estimate.value), estimate.name
        slack = estimate.slack(0.0)
        assert estimate.value >= -slack or estimate.kind == "lower bound", (
            estimate.name,
            estimate.method,
            estimate.value,
        )
        if "total" in kind:
            assert estimate.value <= 1 + slack, (estimate.name, estimate.value)
        if "jensen" in kind or "jsd" in kind:
            assert estimate.value <= math.log(2) + slack, (estimate.name, estimate.value)
    for first in found:
        for second in found:
            same = first.name == second.name and first.kind == second.kind == "exact"
            assert not same or first.agrees_with(second, sigmas=6), (
                first.name,
                first.method,
                str(first),
                second.method,
                str(second),
            )
    return None


@cache
def keys_of(name: str) -> list[str]:
    """Dotted keys of a recipe with its defaults."""

    def walk(mapping: dict[str, Any], prefix: str) -> list[str]:
        found = []
        for key, value in mapping.items():
            found += [prefix + key] if not isinstance(value, dict) else [prefix + key, *walk(value, f"{prefix}{key}.")]
        return found

    return walk(Recipe.members()[name]().to_mapping(), "")


def settings(_: bytes, rng: random.Random) -> bytes:
    """A recipe's name and some settings, one a line."""
    name = rng.choice(list(Recipe.members()))
    lines = [name]
    for _turn in range(rng.choice((1, 1, 2, 3))):
        key = rng.choice(keys_of(name))
        if rng.random() < 0.1:
            key = rng.choice((key + ".x", key.upper(), key[:-1], "", ".", "type", key + "." + key, key.split(".")[-1]))
        lines.append(f"{key}={rng.choice(VALUES)}")
    return _maybe_damaged("\n".join(lines), rng)


def _recipe(folder: Path) -> Recipe:
    name, *words = _text(folder).split("\n")
    base = Recipe.parse(name).to_mapping()
    return Recipe.parse({**apply_overrides(base, parse_overrides(words)), "type": name})


def read_settings(folder: Path) -> object:
    """A recipe from settings, and back from its YAML."""
    from latentia.files import parse_yaml

    recipe = _recipe(folder)
    again = Recipe.parse(parse_yaml(recipe.to_yaml()))
    assert repr(again) == repr(recipe), "changed by a round trip"
    return None


def trained_settings(_: bytes, rng: random.Random) -> bytes:
    """Settings of a tiny run, one of which is odd."""
    name = rng.choice(list(Recipe.members()))
    odd = [key for key in keys_of(name) if not key.startswith(("data", "epochs", "devices", "accelerator", "compile"))]
    lines = [
        name,
        "epochs=1",
        "batch_size=64",
        "network.hidden=[4]",
        "latent=1",
        f"{rng.choice(odd)}={rng.choice(VALUES[:30])}",
    ]
    if name == "gan" and rng.random() < 0.5:
        lines += ["data=ring", "steps_per_epoch=2"]
    else:
        lines += ["data=digits", *([] if name == "gan" else ["data.binarize=dynamic"])]
    return "\n".join(lines).encode()


def read_trained(folder: Path) -> object:
    """Train by the settings for an epoch."""
    name, *words = _text(folder).split("\n")
    with tempfile.TemporaryDirectory() as place, inside(folder):
        command("train", name, *words, "--out", f"{place}/run", "--quiet")
    return None


def _generated(sane: bool) -> Callable[[bytes, random.Random], bytes]:
    return lambda _, rng: _maybe_damaged(expression(rng, sane), rng)


def _pair(_: bytes, rng: random.Random) -> bytes:
    first = expression(rng, True)
    return f"{first}\n{first if rng.random() < 0.1 else expression(rng, True)}".encode()


READERS = [
    Reader("expressions", {"text": b"Normal(0,1)"}, read_expression, never, damage=_generated(False), weight=3),
    Reader("expressions, sane", {"text": b"Normal(0,1)"}, read_expression, never, damage=_generated(True), weight=2),
    Reader("distances", {"text": b"Normal(0,1)\nNormal(0,2)"}, read_distances, never, damage=_pair, weight=0.5),
    Reader("settings", {"text": b"vae\nlatent=3"}, read_settings, never, damage=settings, weight=3),
    Reader(
        "settings, trained", {"text": b"vae\nepochs=1\nnetwork.hidden=[4]"}, read_trained, never,
        damage=trained_settings, weight=0.3,
    ),
]  # fmt: skip
