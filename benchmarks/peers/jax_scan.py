"""Hand-written JAX: a ninth of an epoch, 52 steps, is one compiled scan.

An epoch in one scan would be one turn. To start a scan nine times in place of once costs nothing that can be measured.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from common import BATCH, HIDDEN, LATENT, PIXELS, RATE, STEPS, Gate, binary_images

SCAN = STEPS // 9


def layer(key: jax.Array, inputs: int, outputs: int) -> dict[str, jax.Array]:
    bound = inputs**-0.5
    a, b = jax.random.split(key)
    return {
        "w": jax.random.uniform(a, (inputs, outputs), minval=-bound, maxval=bound),
        "b": jax.random.uniform(b, (outputs,), minval=-bound, maxval=bound),
    }


def apply(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ p["w"] + p["b"]


def cost(p: dict, x: jax.Array, key: jax.Array) -> jax.Array:
    numbers = apply(p["encoder2"], jax.nn.relu(apply(p["encoder1"], x)))
    mean, log_scale = numbers[:, :LATENT], numbers[:, LATENT:]
    z = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
    logits = apply(p["decoder2"], jax.nn.relu(apply(p["decoder1"], z)))
    distortion = (jax.nn.softplus(logits) - x * logits).sum(-1)
    rate = 0.5 * (jnp.exp(2 * log_scale) + mean**2 - 1 - 2 * log_scale).sum(-1)
    return (distortion + rate).mean()


@jax.jit
def scan(state: tuple, batches: jax.Array, keys: jax.Array) -> tuple[tuple, jax.Array]:
    def step(state: tuple, inputs: tuple) -> tuple[tuple, jax.Array]:
        p, m, v, t = state
        x, key = inputs
        loss, g = jax.value_and_grad(cost)(p, x.astype(jnp.float32), key)
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, g)
        size = RATE * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        p = jax.tree.map(lambda p, m, v: p - size * m / (jnp.sqrt(v) + 1e-8), p, m, v)
        return (p, m, v, t), loss

    return jax.lax.scan(step, state, (batches, keys))


def main() -> None:
    images = jnp.asarray(binary_images())
    key = jax.random.key(0)
    key, *keys = jax.random.split(key, 5)
    p = {
        "encoder1": layer(keys[0], PIXELS, HIDDEN),
        "encoder2": layer(keys[1], HIDDEN, 2 * LATENT),
        "decoder1": layer(keys[2], LATENT, HIDDEN),
        "decoder2": layer(keys[3], HIDDEN, PIXELS),
    }
    zeros = jax.tree.map(jnp.zeros_like, p)
    state = (p, zeros, zeros, jnp.float32(0))
    loss_of_epoch: float | None = None
    gate = Gate(STEPS, lambda: {"loss": loss_of_epoch})
    while True:
        key, order_key, noise_key = jax.random.split(key, 3)
        order = jax.random.permutation(order_key, len(images))[: STEPS * BATCH].reshape(-1, SCAN, BATCH)
        sums = jnp.zeros(())
        for rows, noise_keys in zip(order, jax.random.split(noise_key, (len(order), SCAN)), strict=True):
            gate.wait(SCAN)
            state, losses = scan(state, images[rows], noise_keys)
            sums = jax.block_until_ready(sums + losses.sum())
        loss_of_epoch = float(sums) / STEPS


if __name__ == "__main__":
    main()
