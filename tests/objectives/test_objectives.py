"""Properties of every objective of a VAE."""

import pytest
import torch
from torch import nn

from latentia.distributions import (
    Diagonal,
    Fixed,
    FlowPosterior,
    Full,
    MixturePosterior,
    MixturePrior,
    StandardNormal,
    VampPrior,
)
from latentia.errors import ConfigurationError, UnsupportedError
from latentia.estimate import Estimate
from latentia.models import VAE
from latentia.objectives import ELBO, IWAE, BetaTC, ExactLikelihood, Info, Objective, Progress

from .linear_gaussian import IMAGE, LinearGaussian, Pathless

DEFAULTS = [
    cls() for cls in Objective.members().values() if cls.__module__.startswith("latentia.")
]  # new members of the family are tested here
VARIANTS = [
    ELBO(beta=4.0),
    ELBO(beta=0.5),
    ELBO(samples=3),
    ELBO(kl="monte-carlo"),
    ELBO(free_bits=0.7),
    ELBO(gradient="score"),
    ELBO(gradient="score", samples=3, kl="monte-carlo"),
    ELBO(warm_up=2.0),
    IWAE(k=1),
    IWAE(k=7, gradient="sticking-the-landing"),
    IWAE(k=7, gradient="doubly-reparametrized"),
    BetaTC(alpha=1, beta=1, gamma=1),
    Info(alpha=0, weight=1),
    Info(alpha=-1, weight=2),
    Info(alpha=1, weight=5),
    Info(alpha=0.5, kl="monte-carlo"),
]
OBJECTIVES = DEFAULTS + VARIANTS
every = pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: f"{objective.type_name}-{objective}")
LATE = Progress(step=10_000, epoch=100.0, data_size=50)


RICH = [FlowPosterior(transforms=1, context=3, hidden=(8,)), MixturePosterior(components=2)]


def depends_on_the_batch(objective):
    if isinstance(objective, Info):
        return objective.alpha + objective.weight > 1
    if isinstance(objective, BetaTC):
        return not objective.bounds_log_likelihood
    return getattr(objective, "free_bits", 0) > 0


@every
def test_terms_are_one_number_for_each_image_and_only_cost_has_a_gradient(objective):
    model = LinearGaussian(Diagonal(), away=0.3)
    terms = objective(model.vae, model.images(6), LATE)
    assert "cost" in terms
    for name, term in terms.items():
        assert term.shape == (6,), name
        assert torch.isfinite(term).all(), name
        assert term.requires_grad == (name == "cost"), name


@every
def test_the_gradient_reaches_encoder_and_decoder(objective):
    model = LinearGaussian(Diagonal(), away=0.3)
    objective(model.vae, model.images(6), LATE)["cost"].mean().backward()
    sizes = {name: 0.0 if p.grad is None else p.grad.abs().max().item() for name, p in model.vae.named_parameters()}
    trained = {name for name in sizes if not (isinstance(objective, ExactLikelihood) and name.startswith("posterior."))}
    assert {name for name, size in sizes.items() if size > 1e-6} == trained  # exact likelihood has no encoder


@every
def test_without_gradients_the_terms_are_the_same(objective):
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(6)
    torch.manual_seed(0)
    taught = objective(model.vae, x, LATE)
    torch.manual_seed(0)
    with torch.no_grad():
        still = objective(model.vae, x, LATE)
    for name in taught:
        torch.testing.assert_close(taught[name].detach(), still[name])


@every
def test_the_cost_of_an_image_depends_on_it_alone(objective):
    """Other images in the batch change nothing, except for objectives of the batch."""
    model = LinearGaussian(Diagonal(), away=0.3)
    x, other = 0.1 * model.images(6), 10 * model.images(6, seed=2)  # of low and of high rate
    mixed = torch.cat([x[:3], other[3:]])
    terms = []
    for batch in (x, mixed):
        torch.manual_seed(0)
        terms.append(objective(model.vae, batch, LATE)["cost"].detach())
    assert torch.allclose(terms[0][:3], terms[1][:3], rtol=1e-12) != depends_on_the_batch(objective)
    assert not torch.allclose(terms[0][3:], terms[1][3:])


@every
@pytest.mark.parametrize("away", [0.0, 0.4])
def test_objectives_that_claim_a_bound_are_bounds(objective, away):
    model = LinearGaussian(Diagonal(), away=away)
    x = model.images(40)
    torch.manual_seed(0)
    progress = Progress(1, 100.0, 40)
    with torch.no_grad():
        draws = [objective(model.vae, x, progress) for _ in range(200)]
    truth = model.log_likelihood(x).mean().item()
    claimed = [[terms["bound"].mean() for terms in draws if "bound" in terms]]
    claimed.append([-terms["cost"].mean() for terms in draws if objective.bounds_log_likelihood])
    assert all(Estimate.mean(torch.stack(bounds)).at_most(truth) for bounds in claimed if bounds)


@pytest.mark.parametrize(
    "objective",
    [
        ELBO(beta=0.5),
        ELBO(beta=0),
        Info(alpha=0.9, weight=0.2),
        BetaTC(beta=0),
        BetaTC(alpha=0),
        BetaTC(beta=1, gamma=0),
    ],
    ids=str,
)
def test_objectives_that_claim_no_bound_can_exceed_the_likelihood(objective):
    assert not objective.bounds_log_likelihood
    model = LinearGaussian(Full(), orthogonal=True) if isinstance(objective, ELBO) else LinearGaussian(Diagonal())
    x = model.images(40)
    torch.manual_seed(0)
    with torch.no_grad():
        totals = torch.stack([objective(model.vae, x, Progress(1, 100.0, 40))["cost"].mean() for _ in range(200)])
    estimate = Estimate.mean(-totals)
    assert not estimate.at_most(model.log_likelihood(x).mean().item())


@every
@pytest.mark.parametrize("posterior", [Fixed(), Diagonal(), Full()], ids=lambda family: family.type_name)
def test_mixed_precision_keeps_distributions_in_float32(objective, posterior):
    (numbers,) = posterior.parameter_shape((2,))
    torch.manual_seed(0)
    vae = VAE(
        nn.Sequential(nn.Flatten(), nn.Linear(3, numbers)),
        nn.Sequential(nn.Linear(2, 3), nn.Unflatten(1, IMAGE)),
        latent=2, event_shape=IMAGE, posterior=posterior,
    )  # fmt: skip
    x = torch.bernoulli(torch.full((8, *IMAGE), 0.5))
    factorizes = not isinstance(posterior, Full)
    if not factorizes and (isinstance(objective, BetaTC) or getattr(objective, "free_bits", 0)):
        with pytest.raises(UnsupportedError, match="posterior=diagonal"):
            objective(vae, x, LATE)
        return
    costs = []
    for mixed in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            cost = objective(vae, x, LATE)["cost"]
        assert cost.dtype == torch.float32
        costs.append(cost)
    scale = 1 + abs(getattr(objective, "beta", 1)) + abs(getattr(objective, "weight", 1))
    assert 0 < (costs[0] - costs[1]).abs().max() < 0.1 * scale  # bfloat16 keeps 8 bits


NEED_A_PATH = [o for o in OBJECTIVES if getattr(o, "gradient", "") != "score" and not isinstance(o, ExactLikelihood)]


@pytest.mark.parametrize("objective", NEED_A_PATH, ids=str)
def test_a_posterior_without_rsample_is_refused_with_the_cure(objective):
    model = LinearGaussian(Diagonal())
    model.vae.posterior.family = Pathless()
    with pytest.raises(UnsupportedError, match=r"Normal has none; set objective=elbo objective\.gradient=score"):
        objective(model.vae, model.images(4), LATE)


def test_the_score_gradient_takes_it():
    model = LinearGaussian(Diagonal(), away=0.3)
    model.vae.posterior.family = Pathless()
    ELBO(gradient="score")(model.vae, model.images(4), LATE)["cost"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.vae.parameters())


@pytest.mark.parametrize("prior", [MixturePrior(components=2), VampPrior(components=2)], ids=str)
@pytest.mark.parametrize("objective", [ELBO(), Info()], ids=str)
def test_a_rate_without_a_closed_form_is_refused_and_the_cure_works(objective, prior):
    model = LinearGaussian(Diagonal(), prior=prior)
    x = model.images(4)
    with pytest.raises(
        UnsupportedError, match=r"MixtureSameFamily.* has no closed form; set objective\.kl=monte-carlo"
    ):
        objective(model.vae, x, LATE)
    cured = objective.model_copy(update={"kl": "monte-carlo"})
    assert torch.isfinite(cured(model.vae, x, LATE)["cost"]).all()


@pytest.mark.parametrize("objective", [ELBO(free_bits=0.1), BetaTC()], ids=str)
def test_objectives_of_factors_refuse_other_distributions(objective):
    for model in (LinearGaussian(Full()), LinearGaussian(Diagonal(), prior=MixturePrior(components=2))):
        with pytest.raises(UnsupportedError, match="posterior=diagonal and prior=normal"):
            objective(model.vae, model.images(4), LATE)
    model = LinearGaussian(Diagonal(), prior=StandardNormal())
    assert torch.isfinite(objective(model.vae, model.images(4), LATE)["cost"]).all()


@every
def test_the_smallest_batch_is_the_declared_one(objective):
    model = LinearGaussian(Diagonal())
    assert torch.isfinite(objective(model.vae, model.images(objective.smallest_batch), LATE)["cost"]).all()


@pytest.mark.parametrize("objective", [BetaTC(), Info()], ids=str)
def test_objectives_of_the_batch_need_two_images(objective):
    model = LinearGaussian(Diagonal())
    assert objective.smallest_batch == 2
    with pytest.raises(ConfigurationError, match="at least two images in a batch; set a larger batch_size"):
        objective(model.vae, model.images(1), LATE)


@pytest.mark.parametrize("posterior", RICH, ids=lambda posterior: posterior.type_name)
@pytest.mark.parametrize("objective", [ELBO(kl="monte-carlo"), ELBO(kl="monte-carlo", samples=3), IWAE(k=4)], ids=str)
def test_bounds_of_rich_posteriors_stay_below_log_p(objective, posterior):
    model = LinearGaussian(posterior, away=0.3)
    x = model.images(20)
    with torch.no_grad():
        bounds = torch.stack([objective(model.vae, x, LATE)["bound"] for _ in range(300)])
    gap = Estimate.mean(bounds.mean(1) - model.log_likelihood(x).mean())
    assert gap.stderr is not None
    assert gap.value + 5 * gap.stderr < 0


@pytest.mark.parametrize("posterior", RICH, ids=lambda posterior: posterior.type_name)
@pytest.mark.parametrize("objective", [ELBO(kl="monte-carlo"), IWAE(k=4)], ids=str)
def test_every_weight_of_a_rich_posterior_is_trained(objective, posterior):
    model = LinearGaussian(posterior, away=0.3)
    objective(model.vae, model.images(6), LATE)["cost"].mean().backward()
    assert {name for name, p in model.vae.named_parameters() if p.grad is None or not p.grad.any()} == set()


@pytest.mark.parametrize(
    ("objective", "posterior", "cure"),
    [
        (ELBO(), RICH[0], "objective.kl=monte-carlo"),
        (ELBO(), RICH[1], "objective.kl=monte-carlo"),
        (IWAE(gradient="doubly-reparametrized"), RICH[1], "objective.gradient=plain"),
        (BetaTC(), RICH[0], "posterior=diagonal"),
        (Info(kl="monte-carlo"), RICH[1], "objective=elbo"),
    ],
    ids=str,
)
def test_what_a_rich_posterior_cannot_serve_is_refused(objective, posterior, cure):
    model = LinearGaussian(posterior)
    with pytest.raises(UnsupportedError, match=cure):
        objective(model.vae, model.images(4), LATE)
