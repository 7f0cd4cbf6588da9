import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from latentia.distributions import Diagonal, Fixed, Full, MixturePrior
from latentia.errors import ConfigurationError
from latentia.estimate import Estimate
from latentia.objectives import ELBO, Progress
from latentia.objectives.elbo import dimension_rates

from .linear_gaussian import LinearGaussian, gradients, z_scores

LATE = Progress(step=10_000, epoch=100.0, data_size=50)
posteriors = pytest.mark.parametrize("posterior", [Fixed(scale=0.4), Diagonal(), Full()], ids=lambda p: p.type_name)


def gaussian(distribution):
    return (
        distribution
        if isinstance(distribution, MultivariateNormal)
        else MultivariateNormal(distribution.mean, torch.diag_embed(distribution.variance))
    )


@posteriors
@pytest.mark.parametrize("kl", ["exact", "monte-carlo"])
@pytest.mark.parametrize("away", [0.0, 0.5])
def test_the_inference_gap_is_the_divergence_from_the_posterior(posterior, kl, away):
    """log p(x) = bound + KL(q(z|x), p(z|x)), image by image ."""
    model = LinearGaussian(posterior, away=away)
    x = model.images(5)
    with torch.no_grad():
        gap = kl_divergence(gaussian(model.vae.encode(x)), model.exact_posterior(x))
        torch.manual_seed(3)
        repeated = x.repeat_interleave(4000, 0)
        bounds = ELBO(kl=kl)(model.vae, repeated, LATE)["bound"].reshape(5, 4000)
    for image in range(5):
        assert Estimate.mean(bounds[image]).agrees_with((model.log_likelihood(x) - gap)[image].item())


def test_the_bound_of_the_exact_posterior_is_tight_and_drawn_without_noise():
    model = LinearGaussian(Full())
    x = model.images(50)
    bound = ELBO(kl="monte-carlo")(model.vae, x, LATE)["bound"]
    torch.testing.assert_close(bound, model.log_likelihood(x), rtol=0, atol=1e-12)


@posteriors
def test_terms_add_up(posterior):
    model = LinearGaussian(posterior, away=0.3)
    x = model.images(6)
    for beta in (0.0, 1.0, 3.0):
        terms = ELBO(beta=beta)(model.vae, x, LATE)
        torch.testing.assert_close(terms["bound"], -(terms["distortion"] + terms["rate"]))
        torch.testing.assert_close(terms["cost"].detach(), terms["distortion"] + beta * terms["rate"])


def test_more_draws_have_the_same_mean_and_less_noise():
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(1).expand(2000, -1, -1, -1)
    torch.manual_seed(0)
    one, many = (ELBO(samples=samples)(model.vae, x, LATE)["distortion"] for samples in (1, 16))
    first, second = Estimate.mean(one), Estimate.mean(many)
    assert first.agrees_with(second)
    ratio = one.var() / many.var()
    assert 11 < ratio < 23  # 16, with 2 000 draws each: five standard errors of a ratio of variances are ±25 %


# ---- the score gradient -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl", ["exact", "monte-carlo"])
@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (1, 2), (2, 256)])
def test_score_and_reparametrized_gradients_have_one_mean(samples, batch, kl):
    """A baseline that held a draw itself would shrink the mean by 1 − 1/n, to 0 for one draw and by half for two."""
    model = LinearGaussian(Full(), away=0.2)
    x = model.images(1).repeat(batch, 1, 1, 1) + 0.1 * model.images(batch, seed=5)
    repetitions = 50 if batch > 2 else 400
    by_path = gradients(model.vae, ELBO(samples=samples, kl=kl), x, 100, LATE)
    by_score = gradients(model.vae, ELBO(samples=samples, kl=kl, gradient="score"), x, repetitions, LATE)
    for name in by_path:
        assert z_scores(by_path[name], by_score[name]).max() < 5, name
        assert by_path[name].mean(0).abs().max() > 1e-3, name


def test_the_baseline_of_the_score_gradient_lowers_its_noise():
    model = LinearGaussian(Full(), away=0.2)
    x = model.images(1) + 3.0  # far from what is decoded, so that the cost is large relative to its spread
    name = "posterior.network.1.weight"
    alone = gradients(model.vae, ELBO(gradient="score"), x, 100, LATE)[name]
    draws = gradients(model.vae, ELBO(gradient="score", samples=8), x, 100, LATE)[name]
    assert (alone.var(0).sum() / draws.var(0).sum()).item() > 16  # eight draws alone would give 8


def test_score_and_reparametrized_gradients_agree_under_a_learned_prior():
    model = LinearGaussian(Diagonal(), away=0.2, prior=MixturePrior(components=2))
    x = model.images(128)
    by_path = gradients(model.vae, ELBO(kl="monte-carlo"), x, 100, LATE)
    by_score = gradients(model.vae, ELBO(kl="monte-carlo", gradient="score"), x, 100, LATE)
    for name in by_path:
        assert z_scores(by_path[name], by_score[name]).max() < 5, name


# ---- β and its warm-up --------------------------------------------------------------------------------------------


def test_beta_rises_linearly_over_its_epochs():
    objective = ELBO(beta=2.0, warm_up=4.0)
    assert [objective.beta_at(Progress(epoch=epoch)) for epoch in (0, 1, 2, 4, 9, float("inf"))] == [0, 0.5, 1, 2, 2, 2]
    assert ELBO(beta=2.0).beta_at(Progress()) == 2.0


def test_the_cost_follows_the_progress():
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(4)
    torch.manual_seed(0)
    terms = ELBO(beta=2.0, warm_up=4.0)(model.vae, x, Progress(epoch=1.0))
    torch.testing.assert_close(terms["cost"].detach(), terms["distortion"] + 0.5 * terms["rate"])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_only_beta_of_at_least_one_is_a_bound(beta):
    assert ELBO(beta=beta).bounds_log_likelihood == (beta >= 1)


# ---- free bits ----------------------------------------------------------------------------------------------------


def test_rates_by_dimension_add_up_to_the_rate():
    model = LinearGaussian(Diagonal(), away=0.3)
    q, prior = model.vae.encode(model.images(6)), model.vae.prior
    per_dimension = dimension_rates(q, prior)
    assert per_dimension.shape == (6, 2)
    torch.testing.assert_close(per_dimension.sum(-1), kl_divergence(q, prior))


@pytest.mark.parametrize("floor", [0.05, 0.5, 0.7, 3.0])
def test_free_bits_charge_the_floor_or_the_batchs_rate(floor):
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(16)
    rates = dimension_rates(model.vae.encode(x), model.vae.prior)
    torch.manual_seed(0)
    terms = ELBO(free_bits=floor)(model.vae, x, LATE)
    expected = terms["distortion"].mean() + rates.mean(0).clamp(min=floor).sum()
    torch.testing.assert_close(terms["cost"].mean(), expected)
    assert terms["cost"].mean() >= -terms["bound"].mean() - 1e-12
    torch.testing.assert_close(terms["rate"], rates.sum(-1).detach())


def test_a_dimension_below_the_floor_has_no_gradient_of_its_rate():
    model = LinearGaussian(Diagonal(), away=0.3)
    x = model.images(16)
    rates = dimension_rates(model.vae.encode(x), model.vae.prior).mean(0)
    low, high = rates.argmin().item(), rates.argmax().item()
    floor = rates.mean().item()
    means = model.vae.posterior.network[1].weight

    def of_rate(objective):  # the costs share their distortion: the difference is the cost of the rate
        torch.manual_seed(0)
        charge = objective(model.vae, x, LATE)["cost"].mean()
        torch.manual_seed(0)
        (gradient,) = torch.autograd.grad(charge - ELBO(beta=0)(model.vae, x, LATE)["cost"].mean(), means)
        return gradient

    freed, paid = of_rate(ELBO(free_bits=floor)), of_rate(ELBO())
    torch.testing.assert_close(freed[high], paid[high])
    torch.testing.assert_close(freed[low], torch.zeros_like(freed[low]), rtol=0, atol=1e-12)
    assert paid[low].abs().max() > 1e-3


@pytest.mark.parametrize("fields", [{"beta": -1}, {"samples": 0}, {"free_bits": -0.1}, {"kl": "mc"}], ids=str)
def test_settings_out_of_range_are_refused(fields):
    with pytest.raises(ConfigurationError, match=next(iter(fields))):
        ELBO(**fields)
