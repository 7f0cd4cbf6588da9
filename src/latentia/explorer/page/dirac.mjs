// The Dirac-GAN (Mescheder et al. 2018): the data are a point at 0, the generator a point θ, and D(x) = ψx.
//
// θ' = η_G ψ f(ψθ) and ψ' = −η_D (θ g(ψθ) + γψ), with f and g the slopes of the two players' costs.
import { sigmoid } from "./network.mjs";

/** Slopes of the generator's and the discriminator's cost in the logit of the fake. */
export const DIRAC_LOSSES = {
  minimax: { name: "minimax", generator: sigmoid, discriminator: sigmoid, atZero: 0.5 },
  nonsaturating: { name: "non-saturating", generator: (t) => sigmoid(-t), discriminator: sigmoid, atZero: 0.5 },
  wasserstein: { name: "Wasserstein", generator: () => 1, discriminator: () => 1, atZero: 1 },
};

/** The velocity (θ', ψ') at a state, from one step of gradient descent of each player. */
export function diracField({ loss, gamma, generatorRate, discriminatorRate }, [theta, psi]) {
  const { generator, discriminator } = DIRAC_LOSSES[loss];
  const t = theta * psi;
  return [generatorRate * psi * generator(t), -discriminatorRate * (theta * discriminator(t) + gamma * psi)];
}

/** Eigenvalues of the field's Jacobian at the equilibrium (0, 0), as [real, imaginary] pairs. */
export function diracEigenvalues({ loss, gamma, generatorRate, discriminatorRate }) {
  const slope = DIRAC_LOSSES[loss].atZero;
  const middle = (-discriminatorRate * gamma) / 2;
  const square = middle ** 2 - generatorRate * discriminatorRate * slope ** 2;
  const root = Math.sqrt(Math.abs(square));
  return square >= 0 ? [[middle + root, 0], [middle - root, 0]] : [[middle, root], [middle, -root]];
}

/** One step: both players from the same state, or the generator after the discriminator has moved. */
export function diracStep(settings, [theta, psi]) {
  const [dTheta, dPsi] = diracField(settings, [theta, psi]);
  if (!settings.alternating) return [theta + dTheta, psi + dPsi];
  const moved = psi + dPsi;
  return [theta + diracField(settings, [theta, moved])[0], moved];
}

/** The largest absolute eigenvalue of a step at the equilibrium: below 1 the game converges, above it diverges. */
export function diracStepRadius(settings) {
  const size = 1e-6;
  const [[a, c], [b, d]] = [[size, 0], [0, size]].map((start) => diracStep(settings, start).map((u) => u / size));
  const [half, product] = [(a + d) / 2, a * d - b * c];
  const square = half ** 2 - product;
  return square >= 0 ? Math.max(Math.abs(half + Math.sqrt(square)), Math.abs(half - Math.sqrt(square))) : Math.sqrt(product);
}
