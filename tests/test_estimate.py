import json
import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from latentia.errors import LatentiaError, RunError
from latentia.estimate import Estimate, estimates_to_json, exact, read_estimates, write_estimates

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)
values = finite | st.sampled_from([math.inf, -math.inf])
errors = st.none() | st.floats(min_value=0, max_value=1e6)
estimates = st.builds(
    Estimate,
    values,
    name=st.text(max_size=10),
    stderr=errors,
    n=st.none() | st.integers(1, 10**9),
    unit=st.sampled_from(["nats", "bits", "bits/dimension", "1"]),
    kind=st.sampled_from(["exact", "proven", "numerical", "lower bound", "upper bound", "estimate"]),
    method=st.text(max_size=10),
    settings=st.dictionaries(st.text(max_size=5), st.integers() | finite | st.text(max_size=5), max_size=3),
)


@given(estimates)
def test_json_gives_the_estimate_back(estimate):
    text = estimates_to_json([estimate])
    assert Estimate.from_json(json.loads(text)[0]) == estimate


@given(estimates)
def test_json_is_read_by_any_reader(estimate):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (record,) = json.loads(estimates_to_json([estimate]), parse_constant=refuse)
    assert set(record) == {"name", "value", "stderr", "n", "unit", "kind", "method", "settings"}


def test_infinities_are_words_in_json_even_within_settings():
    record = Estimate(math.inf, stderr=math.inf, settings={"error": math.inf, "grid": (1.0, -math.inf)}).to_json()
    assert record["value"] == "inf"
    assert record["stderr"] == "inf"
    assert record["settings"] == {"error": "inf", "grid": [1.0, "-inf"]}
    assert Estimate.from_json(record).error == math.inf


@given(estimates, estimates)
def test_agreement_is_symmetric(a, b):
    assert a.agrees_with(b) == b.agrees_with(a)


@given(estimates)
def test_every_estimate_agrees_with_itself(a):
    assert a.agrees_with(a)
    assert a.at_most(a)


@given(estimates, estimates)
def test_two_agree_where_each_is_at_most_the_other(a, b):
    assert (a.at_most(b) and b.at_most(a)) == a.agrees_with(b)


@given(finite, st.floats(1e-3, 1e3), st.floats(0, 10))
def test_agreement_ends_at_five_joint_standard_errors(value, stderr, sigmas):
    other = Estimate(value + sigmas * math.hypot(stderr, 2 * stderr), stderr=2 * stderr)
    assume(abs(sigmas - 5) > 1e-6 and abs(value) < 1e6)
    assert Estimate(value, stderr=stderr).agrees_with(other) == (sigmas < 5)


def test_a_certified_error_and_rounding_give_slack_and_nothing_else_does():
    assert exact(1.0).agrees_with(1.0 + 5e-13)
    assert not exact(1.0).agrees_with(1.0 + 5e-12)
    assert exact(1e9).agrees_with(1e9 + 1e-4)
    assert exact(1.0, settings={"error": 1e-6}).agrees_with(1.0 + 9e-7)
    assert not exact(1.0, settings={"error": 1e-6}).agrees_with(1.0 + 2e-6)
    assert not exact(0.0).agrees_with(1e-9)


def test_infinity_agrees_with_itself_alone():
    assert exact(math.inf).agrees_with(math.inf)
    assert not exact(math.inf).agrees_with(-math.inf)
    assert not Estimate(1e300, stderr=1e300).agrees_with(math.inf)
    assert exact(-math.inf).at_most(0.0)
    assert not exact(math.inf).at_most(0.0)


def test_at_most_lets_an_excess_within_the_errors_pass():
    assert Estimate(1.4, stderr=0.1).at_most(1.0)
    assert not Estimate(1.6, stderr=0.1).at_most(1.0)
    assert Estimate(-1e9, stderr=0.1).at_most(1.0)


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(-133.7301, stderr=0.0421), "−133.730 ± 0.042 nats"),
        (Estimate(-133.7301, stderr=0.0421, kind="lower bound"), "≥ −133.730 ± 0.042 nats"),
        (Estimate(13371.4, stderr=420.0, kind="upper bound", unit="bits"), "≤ 13371 ± 420 bits"),
        (Estimate(0.5, settings={"error": 1e-3}), "0.5000 ± 0.0010 nats"),
        (Estimate(2.0, settings={"error": 2.5e-14}), "2 ± 2.5e−14 nats"),
        (Estimate(0.25, stderr=math.inf), "0.25 ± ∞ nats"),
        (Estimate(1333010.0, unit="1"), "1333010"),
        (Estimate(304961.0, unit="1"), "304961"),
        (Estimate(5.19848e-35, unit="1"), "5.2e−35"),
        (Estimate(-0.0), "0 nats"),
        (Estimate(1234567.25, unit="s"), "1234567.25 s"),
        (Estimate(3.0, stderr=0.0, unit="1"), "3"),
        (exact(-0.0, unit="1"), "0"),
        (exact(-1.5e-7), "−1.5e−07 nats"),
        (exact(math.log(2)), "0.693147 nats"),
        (exact(math.inf), "+∞ nats"),
        (exact(-math.inf, unit="1"), "−∞"),
    ],
    ids=str,
)
def test_printing(estimate, text):
    assert str(estimate) == text


@given(finite, st.floats(1e-8, 1e5))
def test_what_is_printed_is_the_value_to_within_its_error(value, stderr):
    shown, error = str(Estimate(value, stderr=stderr, unit="1")).replace("−", "-").split(" ± ")
    # half a unit of the second figure of the error, or of the ones where the error is larger
    assert abs(float(shown) - value) <= (0.051 * stderr if stderr < 10 else 0.5) + 1e-15 * abs(value)
    assert float(error) == pytest.approx(stderr, rel=0.051, abs=0.5 if stderr > 1 else 0)


@pytest.mark.parametrize(
    "fields", [{"value": math.nan}, {"value": 1.0, "stderr": -1.0}, {"value": 1.0, "stderr": math.nan}]
)
def test_what_is_no_number_is_refused(fields):
    with pytest.raises(ValueError, match=r"NaN|standard error"):
        Estimate(**fields)


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="exact, proven, numerical, lower bound"):
        Estimate(1.0, kind="bound")  # pyright: ignore[reportArgumentType]


def test_mean_has_the_textbook_standard_error():
    estimate = Estimate.mean(torch.tensor([[1.0, 2.0], [3.0, 6.0]]), name="m", unit="bits", kind="lower bound")
    assert estimate.value == 3
    assert estimate.n == 4
    assert estimate.stderr == pytest.approx(math.sqrt((4 + 1 + 0 + 9) / 3 / 4), abs=1e-15)
    assert (estimate.name, estimate.unit, estimate.kind, estimate.method) == ("m", "bits", "lower bound", "monte carlo")


def test_means_cover_the_truth_as_often_as_they_say():
    torch.manual_seed(0)
    inside = [Estimate.mean(torch.randn(50)).agrees_with(0.0, sigmas=1.0) for _ in range(2000)]
    share = Estimate.mean(torch.tensor(inside))
    assert share.agrees_with(0.6778)  # Student's t with 49 degrees of freedom within ±1


def test_the_mean_is_taken_in_float64():
    assert Estimate.mean(torch.full((10**6,), 0.1, dtype=torch.float32)).value == pytest.approx(0.1, abs=2e-9)


def test_means_of_infinities():
    assert Estimate.mean(torch.tensor([1.0, math.inf])).value == math.inf
    assert Estimate.mean(torch.tensor([-math.inf, -math.inf])).stderr is None
    with pytest.raises(ValueError, match="NaN"):
        Estimate.mean(torch.tensor([-math.inf, math.inf]))
    with pytest.raises(ValueError, match="at least 2 values, and there are 1"):
        Estimate.mean(torch.tensor([1.0]))


def test_files_are_written_whole_and_read_back(tmp_path):
    path = tmp_path / "evaluation" / "all.json"
    both = [exact(math.inf, "kl"), Estimate(1.0, "elbo", 0.1, 3, kind="lower bound", settings={"samples": 3})]
    write_estimates(path, both)
    assert read_estimates(path) == both
    assert [file.name for file in path.parent.iterdir()] == ["all.json"]
    with pytest.raises(TypeError):  # a tensor is not a setting: the old file stays as it was
        write_estimates(path, [exact(1.0, settings={"bad": torch.ones(2)})])
    assert read_estimates(path) == both


WHOLE = (
    '[{"name": "a", "value": 1, "stderr": null, "n": 1, "unit": "1", "kind": "exact", "method": "", "settings": %s}]'
)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", '[{"value": 1}]', '{"value": 1}', '[{"value": "nan", "stderr": null}]'),
        *(WHOLE % settings for settings in ("3", '{"error": "x"}', '{"protocol": {}}', '{"protocol": {"size": 3}}')),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    path = tmp_path / "all.json"
    path.write_text(text)
    with pytest.raises(RunError, match=r"all\.json is damaged: .*evaluate again"):
        read_estimates(path)


def test_files_that_cannot_be_read_or_written_are_the_users_errors(tmp_path):
    with pytest.raises(LatentiaError, match="cannot read"):
        read_estimates(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(LatentiaError, match="could not write"):
        write_estimates(tmp_path / "file" / "all.json", [exact(1.0)])
