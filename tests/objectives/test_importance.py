import itertools

import pytest
import torch

from latentia.distributions import Diagonal, FlowPrior, Full, MixturePrior, VampPrior
from latentia.estimate import Estimate, exact
from latentia.objectives import ELBO, IWAE, Progress

from .linear_gaussian import LinearGaussian, gradients, z_scores

LATE = Progress(step=10_000, epoch=100.0, data_size=50)
ENCODER = "posterior.network"
GRADIENTS = ["plain", "sticking-the-landing", "doubly-reparametrized"]


def iwae(k, gradient="plain"):
    return IWAE(k=k, gradient=gradient)


def copies(model, n):
    return model.images(1).repeat(n, 1, 1, 1)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("posterior", [Diagonal(), Full()], ids=lambda p: p.type_name)
def test_the_bound_rises_with_k_and_stays_below_the_likelihood(posterior, gradient):
    model = LinearGaussian(posterior, away=0.2, wider=0.7)
    x = copies(model, 4000)
    truth = exact(model.log_likelihood(x[:1]).item())
    torch.manual_seed(0)
    with torch.no_grad():
        values = [Estimate.mean(iwae(k, gradient)(model.vae, x, LATE)["bound"]) for k in (1, 4, 16, 64)]
    for looser, tighter in zip(values, [*values[1:], truth], strict=True):
        assert looser.at_most(tighter)
    assert not values[1].at_most(values[0])
    assert not values[2].at_most(values[1])
    assert truth.value - values[-1].value < 0.1 * (truth.value - values[0].value)


def test_the_gap_decreases_like_one_over_k():
    """log p(x) − L_K ≈ Var(w)/(2K E[w]²) once K is large: halved when K is doubled.

    With r = ŵ/p(x), whose mean is 1, the gap is E[−log r] = E[r − 1 − log r], a mean of small positive numbers.
    """
    model = LinearGaussian(Full(), away=0.05, wider=0.4)
    x = copies(model, 10_000)
    torch.manual_seed(0)
    with torch.no_grad():
        ratios = [iwae(k)(model.vae, x, LATE)["bound"] - model.log_likelihood(x) for k in (16, 32, 64)]
    gaps = [Estimate.mean(ratio.expm1() - ratio) for ratio in ratios]
    for one, two in itertools.pairwise(gaps):
        half = Estimate(one.value / 2, stderr=one.stderr / 2)
        assert two.agrees_with(half)
    assert all(gap.stderr < 0.03 * gap.value for gap in gaps)


def test_one_draw_is_the_elbo_and_the_recorded_elbo_is_that_of_all_draws():
    model = LinearGaussian(Diagonal(), away=0.4)
    x = model.images(6)
    torch.manual_seed(0)
    one = iwae(1)(model.vae, x, LATE)
    torch.manual_seed(0)
    torch.testing.assert_close(one["bound"], ELBO(kl="monte-carlo")(model.vae, x, LATE)["bound"])
    torch.manual_seed(0)
    many = iwae(20)(model.vae, x, LATE)
    torch.manual_seed(0)
    torch.testing.assert_close(many["elbo"], ELBO(kl="monte-carlo", samples=20)(model.vae, x, LATE)["bound"])
    assert (many["bound"] > many["elbo"]).all()


def test_the_bound_is_the_log_of_the_mean_weight():
    model = LinearGaussian(Full(), away=0.4)
    x = model.images(3)
    torch.manual_seed(0)
    bound = iwae(5)(model.vae, x, LATE)["bound"]
    torch.manual_seed(0)
    q = model.vae.encode(x)
    z = q.rsample((5,))
    weights = (model.vae.decode(z).log_prob(x) + model.vae.prior.log_prob(z) - q.log_prob(z)).exp()
    torch.testing.assert_close(bound, weights.mean(0).log().detach())


def test_the_effective_sample_size_lies_between_one_and_k():
    exact_q, away = LinearGaussian(Full()), LinearGaussian(Full(), away=1.0)
    torch.testing.assert_close(
        iwae(9)(exact_q.vae, exact_q.images(4), LATE)["effective_sample_size"], torch.full((4,), 9.0).double()
    )
    size = iwae(9)(away.vae, away.images(50), LATE)["effective_sample_size"]
    assert (size >= 1 - 1e-12).all()
    assert (size < 9).all()


@pytest.mark.parametrize("k", [1, 5])
def test_at_the_exact_posterior_the_encoder_has_no_gradient(k):
    """There the gradient of both estimators is zero for every draw, and the plain one is noise of mean zero."""
    model = LinearGaussian(Full())
    x = model.images(4)
    for gradient in GRADIENTS[1:]:
        rows = gradients(model.vae, iwae(k, gradient), x, 20, LATE)
        assert max(rows[name].abs().max().item() for name in rows if name.startswith(ENCODER)) < 1e-12
    plain = gradients(model.vae, iwae(k), x, 20, LATE)
    assert min(plain[name].std(0).max().item() for name in plain if name.startswith(ENCODER)) > 0.01


@pytest.mark.parametrize("prior", [None, MixturePrior(components=2), VampPrior(components=2),
                                   FlowPrior(kind="maf", transforms=1, hidden=(4,))], ids=str)  # fmt: skip
@pytest.mark.parametrize("k", [1, 4])
def test_doubly_reparametrized_gradients_have_the_plain_mean_in_every_parameter(k, prior):
    """Encoder, decoder and prior; under a VampPrior the encoder is in p(z) as well."""
    model = LinearGaussian(Full(), away=0.25, prior=prior)
    x = copies(model, 256) + 0.2 * model.images(256, seed=4)
    plain = gradients(model.vae, iwae(k), x, 60, LATE)
    doubly = gradients(model.vae, iwae(k, "doubly-reparametrized"), x, 60, LATE)
    for name in plain:
        assert z_scores(plain[name], doubly[name]).max() < 5, name


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_decoder_and_prior_have_one_gradient_draw_by_draw(gradient):
    """The encoder's estimators change only its gradient: for the same draws the others are equal."""
    model = LinearGaussian(Full(), away=0.25, prior=MixturePrior(components=2))
    x = model.images(4)
    plain, other = (gradients(model.vae, iwae(6, kind), x, 3, LATE) for kind in ("plain", gradient))
    for name in plain:
        if not name.startswith(ENCODER):
            torch.testing.assert_close(plain[name], other[name])


def test_sticking_the_landing_is_unbiased_for_one_draw_and_biased_for_more():
    model = LinearGaussian(Full(), away=0.4)
    x = copies(model, 1000)
    scores = {}
    for k in (1, 8):
        plain = gradients(model.vae, iwae(k), x, 50, LATE)
        stuck = gradients(model.vae, iwae(k, "sticking-the-landing"), x, 50, LATE)
        scores[k] = max(z_scores(plain[name], stuck[name]).max().item() for name in plain if name.startswith(ENCODER))
    assert scores[1] < 5
    assert scores[8] > 10


def test_the_doubly_reparametrized_gradient_has_less_variance_with_many_draws():
    model = LinearGaussian(Full(), away=0.02, wider=0.2)
    x = copies(model, 4)
    plain, doubly = (gradients(model.vae, iwae(50, kind), x, 100, LATE) for kind in ("plain", "doubly-reparametrized"))
    for name in (name for name in plain if name.startswith(ENCODER)):
        assert (plain[name].var(0).sum() / doubly[name].var(0).sum()).item() > 4, name


def test_signal_and_noise_of_the_encoder_gradient():
    """With K the plain gradient's signal-to-noise ratio falls (Rainforth et al. 2018), and the other's rises."""
    model = LinearGaussian(Full(), away=0.02, wider=0.2)
    x = copies(model, 16)
    ratios = {}
    for kind in ("plain", "doubly-reparametrized"):
        for k in (2, 32):
            found = gradients(model.vae, iwae(k, kind), x, 100, LATE)
            rows = torch.cat([found[name] for name in found if name.startswith(ENCODER)], 1)
            signal = (rows.mean(0).square().sum() - (rows.var(0) / len(rows)).sum()).clamp(min=0).sqrt()
            ratios[kind, k] = (signal / rows.var(0).sum().sqrt()).item()
    assert ratios["plain", 32] < ratios["plain", 2]
    assert ratios["doubly-reparametrized", 32] > ratios["doubly-reparametrized", 2]
