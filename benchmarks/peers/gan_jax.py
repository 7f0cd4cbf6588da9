"""Hand-written JAX: one compiled step of the same game, the fake examples shared by both moves."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from gan_common import BATCH, BETA1, BETA2, EPSILON, LATENT, RATE, SIDE, SLOPE, START, STEPS, WIDTH, Gate, images

LAYOUT = ("NHWC", "HWIO", "NHWC")
Weights = dict[str, jax.Array]


def down(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, w, (2, 2), [(1, 1), (1, 1)], dimension_numbers=LAYOUT)


def up(x: jax.Array, w: jax.Array) -> jax.Array:
    padding = [(2, 2), (2, 2)]
    return jax.lax.conv_general_dilated(x, w, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=LAYOUT)


def normalized(x: jax.Array, scale: jax.Array, shift: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + shift, (mean, variance)


def leaky(x: jax.Array) -> jax.Array:
    return jax.nn.leaky_relu(x, SLOPE)


def logits(p: Weights, x: jax.Array) -> tuple[jax.Array, list]:
    h = leaky(down(2 * x - 1, p["w1"]) + p["b1"])
    h, seen = normalized(down(h, p["w2"]), p["s2"], p["t2"])
    return (leaky(h).reshape(len(x), -1) @ p["w3"] + p["b3"])[:, 0], [seen]


def generate(p: Weights, z: jax.Array) -> tuple[jax.Array, list]:
    h = (z @ p["w1"]).reshape(-1, START, START, 2 * WIDTH)
    h, first = normalized(h, p["s1"], p["t1"])
    h, second = normalized(up(jax.nn.relu(h), p["w2"]), p["s2"], p["t2"])
    return jax.nn.sigmoid(up(jax.nn.relu(h), p["w3"]) + p["b3"]), [first, second]


def judged(p: Weights, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, list]:
    (t_real, seen_real), (t_fake, seen_fake) = logits(p, real), logits(p, fake)
    return jax.nn.softplus(-t_real).mean() + jax.nn.softplus(t_fake).mean(), [*seen_real, *seen_fake]


def fooling(p: Weights, fake: jax.Array) -> jax.Array:
    return jax.nn.softplus(-logits(p, fake)[0]).mean()


def adam(state: tuple, gradient: Weights) -> tuple:
    p, m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, gradient)
    size, root = RATE / (1 - BETA1**t), jnp.sqrt(1 - BETA2**t)
    return jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) / root + EPSILON), p, m, v), m, v, t


@partial(jax.jit, donate_argnums=(0, 1, 2))
def step(d: tuple, g: tuple, running: list, pixels: jax.Array, key: jax.Array) -> tuple:
    real = pixels.astype(jnp.float32)[..., None] / 255
    z = jax.random.normal(key, (len(real), LATENT))
    fake, back, seen_g = jax.vjp(lambda p: generate(p, z), g[0], has_aux=True)
    (cost_d, seen_d), gradient = jax.value_and_grad(judged, has_aux=True)(d[0], real, fake)
    d = adam(d, gradient)
    cost_g, slope = jax.value_and_grad(fooling, 1)(d[0], fake)
    g = adam(g, back(slope)[0])
    running = jax.tree.map(lambda r, s: 0.9 * r + 0.1 * s, running, [*seen_d, *seen_g])
    return d, g, running, cost_d, cost_g


def main() -> None:
    rng = np.random.default_rng(0)

    def drawn(*shape: int, mean: float = 0.0) -> jax.Array:
        return jnp.asarray(rng.normal(mean, 0.02, shape), jnp.float32)

    wide, flat = 2 * WIDTH, 2 * WIDTH * START**2
    d = {"w1": drawn(4, 4, 1, WIDTH), "b1": jnp.zeros(WIDTH), "w2": drawn(4, 4, WIDTH, wide), "s2": drawn(wide, mean=1)}
    d |= {"t2": jnp.zeros(wide), "w3": drawn(flat, 1), "b3": jnp.zeros(1)}
    g = {"w1": drawn(LATENT, flat), "s1": drawn(wide, mean=1), "t1": jnp.zeros(wide), "w2": drawn(4, 4, wide, WIDTH)}
    g |= {"s2": drawn(WIDTH, mean=1), "t2": jnp.zeros(WIDTH), "w3": drawn(4, 4, WIDTH, 1), "b3": jnp.zeros(1)}
    states = [(p, *(jax.tree.map(jnp.zeros_like, p) for _ in range(2)), jnp.float32(0)) for p in (d, g)]
    running = [(jnp.zeros(n), jnp.ones(n)) for n in (wide, wide, wide, WIDTH)]
    x, key = images().reshape(-1, SIDE, SIDE), jax.random.key(0)
    costs: tuple[float, float] | None = None
    gate = Gate(STEPS, lambda: {"costs": costs})
    while True:
        for rows in np.array_split(rng.permutation(len(x))[: STEPS * BATCH], STEPS):
            gate.wait()
            key, use = jax.random.split(key)
            *states, running, cost_d, cost_g = step(states[0], states[1], running, jnp.asarray(x[rows]), use)
            costs = (float(cost_d), float(cost_g))


if __name__ == "__main__":
    main()
