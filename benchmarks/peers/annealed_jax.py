"""Hand-written JAX of annealed importance sampling with Hamiltonian Monte Carlo: one compiled scan over temperatures.

The decoder is a perceptron with one hidden layer and Bernoulli pixels; z starts from N(0, I). A move takes 5 to 10
leapfrog steps, at random, as latentia's does.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

LEAPFROG = 10


def log_joint(weights: tuple[jax.Array, ...], z: jax.Array, x: jax.Array, beta: jax.Array) -> tuple[jax.Array, ...]:
    """(1 − β) log p(z) + β log p(x, z), summed and of each chain, and log p(x|z)."""
    w1, b1, w2, b2 = weights
    logits = jax.nn.relu(z @ w1 + b1) @ w2 + b2
    score = (x * logits - jax.nn.softplus(logits)).sum(-1)
    prior = -0.5 * (z**2 + jnp.log(2 * jnp.pi)).sum(-1)
    value = prior + beta * score
    return value.sum(), (value, score)


@partial(jax.jit, static_argnames="chains")
def log_weights(
    weights: tuple[jax.Array, ...], x: jax.Array, betas: jax.Array, steps: jax.Array, key: jax.Array, chains: int
) -> tuple[jax.Array, jax.Array]:
    """log w of each chain, (chains · N,), and the mean acceptance; x (N, pixels), one step size a temperature."""
    x = jnp.tile(x, (chains, 1))
    slope = jax.value_and_grad(partial(log_joint, weights), has_aux=True)
    key, first = jax.random.split(key)
    z = jax.random.normal(first, (len(x), weights[0].shape[0]))
    (_, (_, score)), _ = slope(z, x, 0.0)

    def temperature(state: tuple, given: tuple) -> tuple[tuple, jax.Array]:
        z, score, log_weight, key = state
        before, beta, size = given
        log_weight = log_weight + (beta - before) * score
        key, a, b, c = jax.random.split(key, 4)
        p = jax.random.normal(a, z.shape)
        (_, (value, score0)), g = slope(z, x, beta)

        def leap(_: int, carried: tuple) -> tuple:
            place, p, g, _, _ = carried
            p = p + 0.5 * size * g
            place = place + size * p
            (_, (value, score)), g = slope(place, x, beta)
            return place, p + 0.5 * size * g, g, value, score

        count = jax.random.randint(c, (), LEAPFROG // 2, LEAPFROG + 1)
        place, q, _, value1, score1 = jax.lax.fori_loop(0, count, leap, (z, p, g, value, score0))
        change = value1 - 0.5 * (q**2).sum(-1) - value + 0.5 * (p**2).sum(-1)
        chance = jnp.exp(jnp.minimum(0.0, change))
        take = jax.random.uniform(b, chance.shape) < chance
        z = jnp.where(take[:, None], place, z)
        return (z, jnp.where(take, score1, score0), log_weight, key), chance.mean()

    state, accepted = jax.lax.scan(temperature, (z, score, jnp.zeros(len(x)), key), (betas[:-1], betas[1:], steps))
    return state[2], accepted.mean()
