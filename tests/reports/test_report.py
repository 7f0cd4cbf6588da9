from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from latentia.errors import RunError
from latentia.estimate import Estimate, exact, write_estimates
from latentia.metrics import score
from latentia.reports import write_report
from latentia.reports.words import label_of, value_text

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Checks that tags balance, and gathers what a reader sees and what a browser would fetch."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.fetched += [value for name, value in attrs if name in ("src", "href") and not value.startswith("#")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.fixture
def page_of(tmp_path, plane_pictures, deep_pictures):
    def page(*runs):
        return Page(write_report(runs, tmp_path / "out" / "report.html").read_text(encoding="utf-8"))

    return page


def test_the_page_is_self_contained(plane_run, page_of):
    page = page_of(plane_run)
    assert all(place.startswith("data:") for place in page.fetched)
    assert "script" not in page.tags
    pictures = [place for place in page.fetched if place.startswith("data:image/png;base64,")]
    drawn = {path.read_bytes() for path in plane_run.directory.figures.glob("*.png")}
    assert {base64.b64decode(picture.partition(",")[2]) for picture in pictures} == drawn
    assert len(drawn) == 6


def test_the_theory_that_applies_is_checked_on_the_model(plane_run, page_of):
    page = page_of(plane_run)
    assert "Theory, checked on this model" in page.words
    checked = [row for row in page.rows if len(row) == 8 and row[0] == "log p(x) − ELBO"]
    assert len(checked) == 8
    assert {row[-1] for row in checked} == {"✓"}
    assert {row[2] for row in checked} == {"=", "≥"}


def test_missing_pictures_are_made_and_others_kept(plane_run, plane_pictures, copy_of, page_of, monkeypatch):
    run = copy_of(plane_run)
    shutil.rmtree(run.directory.figures)
    asked = []

    def draw(run):
        asked.append(run)
        run.directory.figures.mkdir()
        shutil.copy(plane_pictures[0], run.directory.figures)

    monkeypatch.setattr("latentia.reports.report.save_figures", draw)
    assert page_of(run, plane_run).tags.count("img") == 1 + len(plane_pictures)
    assert asked == [run]


def test_a_damaged_picture_is_made_again_or_named(plane_run, plane_pictures, copy_of, page_of):
    run = copy_of(plane_run)
    whole = (run.directory.figures / "samples.png").read_bytes()
    (run.directory.figures / "samples.png").write_bytes(whole[: len(whole) // 2])
    page_of(run)
    assert (run.directory.figures / "samples.png").read_bytes() == whole
    (run.directory.figures / "odd.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    page = write_report([run], run.path / "page.html").read_text(encoding="utf-8")
    assert re.search(r"Pictures are missing: cannot read the picture \S*odd\.png", page)


def test_the_style_fetches_nothing(plane_run, plane_pictures, tmp_path):
    text = write_report([plane_run], tmp_path / "report.html").read_text(encoding="utf-8")
    bare = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.findall(r"https?://|@import|url\(", bare)
    assert "prefers-color-scheme: dark" in bare


def test_every_estimate_is_shown_with_kind_method_and_settings(plane_run, copy_of, page_of):
    run = copy_of(plane_run)
    more = [
        Estimate(-133.73, "log_likelihood", 0.04, 10000, method="quadrature", settings={"spacing": 0.025}),
        exact(float("inf"), "kl"),
    ]
    write_estimates(run.directory.evaluation / "likelihood.json", more)
    rows = page_of(run).rows
    for estimate in [*run.estimates, more[0]]:
        (row,) = [row for row in rows if row[0] == label_of(estimate.name) and len(row) == 6]
        assert row[1:5] == [value_text(estimate), estimate.kind, estimate.method, f"{estimate.n:,}"]
    assert ["KL", "+∞ nats", "exact", "closed form", "", ""] in rows
    assert "spacing 0.025" in next(row for row in rows if row[0] == "log p(x)")[5]


def test_recipe_and_environment_are_shown_what_was_set_first(plane_run, page_of):
    words = "".join(page_of(plane_run).words)
    assert plane_run.recipe.to_yaml() in words
    assert words.index("epochs=3") < words.index("batch_size: 128")
    assert plane_run.environment["torch"] in words
    assert plane_run.environment["data_hash"] in words


def test_several_runs_are_compared(plane_run, deep_run, page_of):
    rows = page_of(plane_run, deep_run).rows
    heads = [row[0] for row in rows if row[1:3] == ["plane", "deep"]]
    assert heads == ["quantity", "quantity"]  # all models, and what else both have
    values = [next(e for e in run.estimates if e.name == "test/rate") for run in (plane_run, deep_run)]
    assert [label_of("test/rate"), *map(str, values), values[0].method] in rows


def test_names_are_not_markup(plane_run, copy_of, page_of):
    run = copy_of(plane_run)
    odd = [exact(1.0, "<script>alert(1)</script>"), exact(1.0, "no text: \ud800")]
    write_estimates(run.directory.evaluation / "odd.json", odd)
    page = page_of(run)
    assert "script" not in page.tags
    assert any("<script>alert(1)</script>" in row for row in page.rows)


def test_snapshots_in_the_folder_of_figures_are_shown_in_order(plane_run, copy_of, page_of):
    run = copy_of(plane_run)
    page_of(run)
    some = next(run.directory.figures.glob("*.png")).read_bytes()
    for epoch in (90, 10):
        (run.directory.figures / f"snapshot-epoch-{epoch:04d}.png").write_bytes(some)
    words = "".join(page_of(run).words)
    assert words.index("after epoch 10.") < words.index("after epoch 90.")


def test_a_damaged_evaluation_is_left_out_with_a_warning(plane_run, plane_pictures, copy_of, tmp_path):
    run = copy_of(plane_run)
    (run.directory.evaluation / "broken.json").write_text('[{"value": 3}]')
    with pytest.warns(RuntimeWarning, match=r"broken\.json is damaged: .*evaluate again"):
        page = write_report([run], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "broken" not in page


def test_a_report_needs_a_run_and_a_place(plane_run, plane_pictures, tmp_path):
    with pytest.raises(RunError, match="at least one run"):
        write_report([], tmp_path / "report.html")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"could not write .*report\.html"):
        write_report([plane_run], tmp_path / "file" / "report.html")


def scored(run, n: int = 60, fake: str = "validation"):
    """Scores for a run's page: some digits stand in for its samples."""
    splits = run.splits
    gray = run.recipe.data.model_copy(update={"binarize": "none"}).load()
    found = score(
        gray.test.x,
        getattr(gray, fake).x,
        metrics=["kernel", "neighbors"],
        features="pixels",
        train=splits.train.x,
        n=n,
        split="test",
        samples="means of p(x|z)",
    )
    write_estimates(run.directory.evaluation / "samples.json", found)
    return {estimate.name: estimate for estimate in found}


def test_scores_have_those_of_real_and_training_images(plane_run, copy_of, page_of):
    run = copy_of(plane_run)
    found = scored(run)
    page = page_of(run)
    (row,) = [row for row in page.rows if len(row) == 6 and row[0] == "precision ↑"]
    assert row[1:5] == [
        *(value_text(found[name]) for name in ("precision", "precision/real_vs_real", "precision/train_vs_test")),
        "balanced halves",
    ]
    assert "60 gray real images (test) and 60 fake ones (means of p(x|z))" in "".join(page.words)
    assert not any(row and row[0].startswith("precision, real") for row in page.rows)


def test_models_are_compared_and_differing_protocols_named(plane_run, deep_run, copy_of, page_of):
    runs = [copy_of(plane_run), copy_of(deep_run)]
    found = [scored(run) for run in runs]
    page = page_of(*runs)
    head = next(row for row in page.rows if row and row[0] == "quantity")
    assert head == ["quantity", "plane", "deep", "real images", "training images"]
    row = next(row for row in page.rows if row and row[0] == "coverage ↑")
    assert row[1:4] == [
        value_text(cell) for cell in (found[0]["coverage"], found[1]["coverage"], found[0]["coverage/real_vs_real"])
    ]
    assert any(row and row[0] == "parameters" for row in page.rows)
    scored(runs[1], n=50)
    words = "".join(page_of(*runs).words)
    assert "not ranked: these two coverage cannot be compared: n_real is 60 in one and 50 in the other" in words


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_the_page_without_errors_or_requests(plane_run, deep_run, copy_of, page_of, tmp_path):
    runs = [copy_of(plane_run), copy_of(deep_run)]
    for run in runs:
        scored(run)
    page_of(*runs)
    log = tmp_path / "net.json"
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--log-net-log={log}", *quiet]
    page = (tmp_path / "out" / "report.html").as_uri()
    done = subprocess.run(
        ["chromium", *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "All models" in done.stdout
    assert "CONSOLE" not in done.stderr
    asked = {
        event["params"]["url"] for event in json.loads(log.read_text())["events"] if "url" in event.get("params", {})
    }
    assert not [url for url in asked if url.startswith(("http", "ws")) and "google" not in url]
