"""GAN recipes with names, each with the figures that it reaches."""

from __future__ import annotations

__all__ = ["mode_covering_gan"]

from latentia.data import Ring, ToyDistribution
from latentia.networks import Fourier
from latentia.objectives import R1R2, Relativistic
from latentia.recipes.gan import GANRecipe
from latentia.training import Adam, Cosine


def mode_covering_gan(data: ToyDistribution | None = None, *, epochs: int = 16, seed: int = 0) -> GANRecipe:
    """A GAN that finds all modes of a mixture in the plane, in equal shares, and stays on them.

    Relativistic pairing with R1 and R2 (Huang et al. 2024). γ starts large, when a smooth discriminator carries mass
    from mode to mode, and falls by 1 000 times, so that in the end the discriminator resolves the modes' own width. It
    is in units of the data's mean variance per coordinate, which makes one recipe serve every scale. The grid's command
    differs from the ring's in data=grid, epochs=16, penalty.gamma=2.4 and penalty.final=2.4e-3:

        latentia train gan data=ring latent=2 epochs=12 ema=0.99 loss=relativistic \\
            network=fourier network.activation=relu \\
            penalty=r1r2 penalty.gamma=0.15 penalty.final=1.5e-4 \\
            generator_optimizer.lr=1e-3 generator_optimizer.beta1=0 generator_optimizer.beta2=0.99 \\
            generator_optimizer.schedule=cosine generator_optimizer.schedule.final=0.02 \\
            discriminator_optimizer.lr=1e-3 discriminator_optimizer.beta1=0 discriminator_optimizer.beta2=0.99 \\
            discriminator_optimizer.schedule=cosine discriminator_optimizer.schedule.final=0.02

    Reached, as the mean of seeds 0 to 4 with its standard error, 2 500 samples a seed, five at once in about four
    minutes; a perfect model scores 98.89 % of high quality and a reverse KL of 0.0015 on the ring and 0.0048 on the
    grid:

    * ring, 12 epochs: 8 of 8 modes on every seed, 97.77 ± 0.20 % of high quality, reverse KL 0.0093 ± 0.0010;
    * grid, 16 epochs: 25 of 25 modes on every seed, 96.98 ± 0.22 %, reverse KL 0.0117 ± 0.0019.

    The modes come out too narrow, at 0.82 ± 0.01 of their width on both (`modes/spread`).

    Args:
        data: the distribution; `Ring()` if not given.
        epochs: of 1 000 steps.
        seed: of the run.
    """
    data = data or Ring()
    variance = data.distribution().variance.mean().item()
    optimizer = Adam(lr=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine(final=0.02))
    return GANRecipe(
        data=data,
        latent=2,
        network=Fourier(hidden=(128, 128, 128), activation="relu", features=64, scale=3.0),
        loss=Relativistic(),
        penalty=R1R2(gamma=0.3 * variance, final=3e-4 * variance),
        generator_optimizer=optimizer,
        discriminator_optimizer=optimizer,
        batch_size=128,
        ema=0.99,
        epochs=epochs,
        seed=seed,
        diagnostics_every=max(1, epochs // 4),
        checkpoint_every=max(1, epochs // 4),
        record_every=500,
    )
