"""GAN recipes with names, each with the figures that it reaches."""

from __future__ import annotations

__all__ = ["mode_covering_gan"]

from latentia.data import Ring, ToyLaw
from latentia.networks import Fourier
from latentia.objectives import R1R2, Relativistic
from latentia.recipes.gan import GANRecipe
from latentia.training import Adam, Cosine


def mode_covering_gan(data: ToyLaw | None = None, *, epochs: int = 16, seed: int = 0) -> GANRecipe:
    """A GAN that finds all modes of a mixture in the plane, in equal shares, and stays on them.

    Relativistic pairing with R1 and R2 (Huang et al. 2024). γ starts large, when a smooth discriminator carries mass
    from mode to mode, and falls by 1 000 times, so that in the end the discriminator resolves the modes' own width. It
    is in units of the data's mean variance per coordinate, which makes one recipe serve every scale.

    Args:
        data: the law; `Ring()` if not given.
        epochs: of 1 000 steps.
        seed: of the run.
    """
    data = data or Ring()
    variance = data.law().variance.mean().item()
    optimiser = Adam(rate=1e-3, beta1=0.0, beta2=0.99, schedule=Cosine(final=0.02))
    return GANRecipe(
        data=data,
        latent=2,
        network=Fourier(hidden=(128, 128, 128), activation="relu", features=64, scale=3.0),
        loss=Relativistic(),
        penalty=R1R2(gamma=0.3 * variance, final=3e-4 * variance),
        generator_optimiser=optimiser,
        discriminator_optimiser=optimiser,
        batch_size=128,
        ema=0.999,
        epochs=epochs,
        seed=seed,
        diagnostics_every=max(1, epochs // 4),
        checkpoint_every=max(1, epochs // 4),
        record_every=500,
    )
