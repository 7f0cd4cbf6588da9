"""Names and values of estimates in words, for terminal, notebooks and pages."""

from __future__ import annotations

__all__: list[str] = []

import re
from collections.abc import Sequence

from latentia.estimate import Estimate, exact
from latentia.metrics import Features, higher_is_better, measured_by
from latentia.metrics.metric import BOTH, COVERAGE, FIDELITY, MEMORIZATION

ARROWS = {1: " ↑", -1: " ↓", 0: ""}
DIVERGENCES = {
    "kl": "KL",
    "kl(P, Q)": "KL(P, Q)",
    "kl(Q, P)": "KL(Q, P)",
    "jensen-shannon": "JSD",
    "wasserstein-1": "W₁",
    "wasserstein-2": "W₂",
}
LABELS = DIVERGENCES | {
    "elbo": "ELBO",
    "iwae": "importance-weighted bound",
    "lattice_bound": "lattice bound",
    "bound": "bound of log p(x)",
    "log_likelihood": "log p(x)",
    "conditional_elbo": "ELBO of log p(x|y)",
    "conditional_log_likelihood": "log p(x|y)",
    "log_likelihood_lower": "log p(x), proven from below",
    "log_likelihood_upper": "log p(x), proven from above",
    "kl_data_model": "KL(data, model)",
    "kl_model_data": "KL(model, data)",
    "rate": "rate, KL(q(z|x), p(z))",
    "distortion": "distortion, −E log p(x|z)",
    "jsd": "JSD",
    "jsd_bound": "JSD, lower bound",
    "reverse_kl": "reverse KL",
    "aggregate_posterior_kl": "KL(aggregate posterior, prior)",
    "jensen_shannon": "JSD",
    "jensen_shannon_bound": "JSD, lower bound",
    "jsd_integrated": "JSD, integrated",
    "frechet_distance": "Fréchet distance",
    "frechet_distance_extrapolated": "Fréchet distance, extrapolated to n = ∞",
    "fid": "FID",
    "fid_extrapolated": "FID, extrapolated to n = ∞",
    "kid": "KID",
    "sliced_wasserstein": "sliced Wasserstein distance",
    "nearest_ratio": "nearest-neighbor ratio",
    "time_to_train": "time to train",
    "cpu_to_train": "CPU time to train",
    "p_value": "p-value",
    "classes/found": "classes found",
    "columns/mean": "column distance, mean of all columns",
    "classes/kl": "class shares, KL from the data",
    "classes/kl_perfect": "class shares, KL of a perfect model",
    "accuracy_real": "accuracy on real examples",
    "accuracy_fake": "accuracy on generated examples",
    "accuracy_held_out": "accuracy on held-out examples",
    "game/value": "value of the game",
    "game/value_at_optimum": "value of the game at D*",
}
GROUPS = {
    "two_sample": "two-sample test",
    "memorization": "memorization",
    "classes": "classes",
    "game": "",
    "columns": "column distance",
    "modes": "modes",
    "fresh": "fresh discriminator",
}
FEATURES = {
    "classifier": "digit-classifier features",
    "pixels": "pixels",
    "random-convolutional": "random convolutional features",
    "inception": "Inception features",
    "standardized": "standardized values",
}
ASPECTS = ("likelihood", BOTH, FIDELITY, COVERAGE, MEMORIZATION, "cost", "")  # of a table of models, in order
SPLITS = ("train", "validation", "test")
COSTS = ("parameters", "time_to_train", "cpu_to_train")


def label_of(name: str) -> str:
    """An estimate's name in words: `test/elbo` is "ELBO, test", `kernel_distance/pixels` "kernel distance (pixels)"."""
    if name in LABELS or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name):
        return LABELS.get(name, name)
    parts = name.split("/")
    if parts[0] == "columns" and len(parts) > 1:  # a column has the name that its user gave it
        return f"{GROUPS['columns']}: {parts[1]}"
    split = parts.pop(0) if parts[0] in SPLITS and len(parts) > 1 else ""
    whole = LABELS.get("/".join(parts)) if len(parts) > 1 else None
    if whole is not None:
        return ", ".join([whole, *([split] if split else [])])
    group = parts.pop(0) if len(parts) > 1 and parts[0] in GROUPS else None
    perfect = parts.pop(0) if parts[0] == "perfect" and len(parts) > 1 else ""
    own, *features = parts
    words = LABELS.get(own, own.replace("_", " ")) + (" by a perfect model" if perfect else "")
    if group is not None and GROUPS[group]:
        words = f"{GROUPS[group]}: {words}"
    if group is None and features and own not in LABELS and features[-1] not in Features.members():
        *by, own = own, *features  # a record of training: `vae/rate`, by whom and what
        return ", ".join([LABELS.get(own, own.replace("_", " ")), *by, *([split] if split else [])])
    of = "".join(f" ({FEATURES.get(part, f'{part} features')})" for part in features)
    return ", ".join([words + of, *([split] if split else [])])


def score_label(name: str, unit: str = "1") -> str:
    """A score's name in words, with its unit and an arrow to the better direction."""
    label = label_of(name)
    group = group_of(name)
    if group and label.startswith(f"{group}: "):
        label = label.removeprefix(f"{group}: ")  # the group has its own line
    return label + ("" if unit in ("1", "s") else f", {unit}") + ARROWS[higher_is_better(name)]


def group_of(name: str) -> str:
    """The group of a quantity in tables of models: likelihood, what a score measures, cost; empty for any other."""
    if name.rpartition("/")[2] in COSTS:
        return "cost"
    return measured_by(name) or ("likelihood" if name.split("/")[0] in SPLITS else "")


def value_text(estimate: Estimate, *, unit: bool = True) -> str:
    """A value for a reader: p-values, times and counts as they are written in prose, others as `str(estimate)`."""
    if "p_value" in estimate.name.split("/"):
        return "< 0.0001" if estimate.value < 1e-4 else f"{estimate.value:.2g}"
    if estimate.unit == "s" and estimate.stderr is None:
        return seconds_text(estimate.value)
    if estimate.stderr is None and not estimate.error and estimate.kind in ("exact", "estimate"):
        text = count_text(estimate.value) if float(estimate.value).is_integer() else _four_digits(estimate)
        return text if not unit or estimate.unit == "1" else f"{text} {estimate.unit}"
    text = str(estimate)
    return text if unit or estimate.unit == "s" else text.removesuffix(f" {estimate.unit}")


def _four_digits(estimate: Estimate) -> str:
    """An exact value in full, an estimate without a standard error with four digits."""
    return str(exact(estimate.value if estimate.kind == "exact" else float(f"{estimate.value:.4g}"), unit="1"))


def count_text(value: float) -> str:
    """A whole number, in groups of three digits from 10,000 on."""
    return f"{value:,.0f}".replace("-", "−") if abs(value) >= 10_000 else f"{value:.0f}".replace("-", "−")


def seconds_text(value: float) -> str:
    """A time: `0.3 s`, `3 min 46 s`, `1 h 2 min`."""
    if value < 10:
        return f"{value:.2g} s"
    if round(value) < 60:
        return f"{value:.0f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(round(value / 60), 60) if minutes >= 60 else (0, minutes)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def shared_unit(estimates: Sequence[Estimate]) -> str:
    """The unit of these estimates if all have one and the same, else "1": then each value carries its own."""
    units = {estimate.unit for estimate in estimates}
    return units.pop() if len(units) == 1 else "1"
