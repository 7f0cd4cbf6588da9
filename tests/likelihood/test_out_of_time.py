"""Images reached in time have certificates; the others are counted and left out of all means."""

import math

import pytest
import torch

from latentia.errors import UnsupportedError
from latentia.likelihood import (
    evaluate_gaps,
    evaluate_likelihood,
    exact_log_likelihood,
    exact_posterior,
    importance_log_likelihood,
    refinement,
)

from .known_models import toy_images, toy_vae


@pytest.fixture
def out_of_levels(monkeypatch):
    """Stop the refinement before a level, as if the time had ended there: on any machine at the same place."""

    def stop(level: int) -> None:
        monkeypatch.setattr(refinement, "LEVELS", level)

    return stop


@pytest.fixture(scope="module")
def vae():
    return toy_vae(sharpness=3.0)


@pytest.fixture(scope="module")
def images(vae):
    return toy_images(vae, 40)


def test_images_that_were_not_reached_are_counted_and_are_in_no_mean(vae, images, out_of_levels):
    truth = exact_posterior(vae, images, tolerance=1e-4)
    out_of_levels(2)
    found = evaluate_likelihood(vae, images, tolerance=1e-6, require=False)
    posterior = found.posterior
    assert posterior is not None
    done, reached = posterior.finished, posterior.likelihood.reached
    assert 2 <= len(done) < len(images)
    reached = torch.ones(len(images), dtype=torch.bool) if reached is None else reached
    assert reached[done].all()
    by_name = {estimate.name: estimate for estimate in found.estimates}
    assert len(by_name) == 10
    for name, estimate in by_name.items():
        assert math.isfinite(estimate.value)
        rows = reached if name == "log_likelihood" else done
        count = int(reached.sum()) if name == "log_likelihood" else len(done)
        drawn = name in ("mutual_information", "aggregate_posterior_kl")  # by draws from the posteriors
        assert drawn or estimate.n == count, name
        assert estimate.settings.get("not_reached") == (len(images) - count or None), name
        if name in ("log_likelihood", "posterior_entropy", "posterior_rate"):
            exact = {"log_likelihood": truth.likelihood.values}.get(name, getattr(truth, name[10:], None))
            assert abs(estimate.value - exact[rows].mean()) <= estimate.error + 1e-3, name


def test_what_was_reached_has_its_own_certificate_and_it_is_true(vae, images, out_of_levels):
    images = images[:20]
    truth = exact_log_likelihood(vae, images, tolerance=1e-5).values
    for level in (2, 4):
        out_of_levels(level)
        found = exact_log_likelihood(vae, images, tolerance=1e-5, require=False)
        reached = found.reached if found.reached is not None else torch.ones(len(images), dtype=torch.bool)
        assert torch.isinf(found.errors[~reached]).all()
        assert ((found.values - truth).abs() <= found.errors + 1e-5)[reached].all()


def test_the_gaps_of_images_that_were_reached_are_what_they_are_alone(vae, images, out_of_levels):
    whole = evaluate_gaps(vae, images, tolerance=1e-4)
    out_of_levels(2)
    part = evaluate_gaps(vae, images, tolerance=1e-4, require=False)
    done = part.posterior.finished
    assert (part.inference - whole.inference)[done].abs().max() < 1e-3
    assert (part.approximation - whole.approximation)[done].abs().max() < 1e-2
    unfinished = torch.ones(len(images), dtype=torch.bool).index_fill(0, done, False)
    assert torch.isnan(part.inference[unfinished]).all()


def test_no_image_at_all_is_an_error_that_names_the_cure(vae, images, out_of_levels):
    out_of_levels(1)
    with pytest.raises(UnsupportedError, match=r"none of 40 images was reached .* more seconds"):
        exact_posterior(vae, images, require=False)
    with pytest.raises(UnsupportedError, match="none of 40 images was reached"):
        exact_posterior(vae, images, seconds=-1.0)


def test_what_is_done_is_reported_image_by_image(vae, images):
    reports: dict[str, list[tuple[int, int]]] = {}
    evaluate_likelihood(
        vae,
        images,
        gaps=len(images),
        progress=lambda done, total, what: reports.setdefault(what, []).append((done, total)),
    )
    assert list(reports) == ["integrals", "mutual information", "inference gaps"]
    for what, counts in reports.items():
        done, totals = zip(*counts, strict=True)
        assert list(done) == sorted(done), what
        assert all(0 <= n <= total for n, total in counts)
        assert len(set(totals)) == 1
    assert reports["integrals"][-1][1] == len(images)


def test_draws_that_would_take_days_are_refused_by_their_speed(vae, images):
    with pytest.raises(
        UnsupportedError, match=r"10000000000 draws of 1 image take about .* seconds.*--draws, --seconds"
    ):
        importance_log_likelihood(vae, images[:1], draws=10**10, seconds=3.0)
