"""`latentia verify` and `latentia distance`, as a user types them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentia.cli import main
from latentia.theory.statement import Relations, equal, statement

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process, in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["latentia", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        code = left.value.code
        return (code if isinstance(code, int) else int(code is not None)), out, err

    return command


def broken(seed: int) -> Relations:
    yield equal(1.0, 2.0, note="off by one")


def test_verify_prints_statements_both_sides_and_errata(run: Run) -> None:
    code, out, _ = run("verify", "3e")
    assert code == 0
    assert out.startswith("✓ 3e  ")
    assert "FAILS" not in out
    assert "KL(P₁, P₃): +∞ nats = +∞ nats: equal" in out
    assert "W₁(P₁, P₂): 0.5 = 0.5: equal" in out
    assert "0.346574 nats" in out
    assert "+∞" in out
    assert "Errata" in out
    assert "2 of 2 statements hold" in out


def test_verify_exits_with_1_if_a_statement_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    false = statement("9z", "One is two.", latex="1 = 2", source="nowhere")(broken)
    monkeypatch.setattr("latentia.interface.statements", lambda: [false])
    code, out, _ = run("verify")
    assert code == 1
    assert "FAILS" in out
    assert "off by one" in out
    assert "0 of 1 statements hold" in out
    code, out, err = run("verify", "--json")
    assert code == 1
    assert json.loads(out)[0]["settings"]["holds"] is False
    assert "9z does not hold" in err


def test_verify_json_is_a_list_of_estimates(run: Run) -> None:
    code, out, err = run("verify", "3e", "1g", "--json", "--seed", "3")
    assert code == 0
    assert err == ""
    records = json.loads(out)
    assert len(records) > 30
    assert all(set(r) == {"name", "value", "stderr", "n", "unit", "kind", "method", "settings"} for r in records)
    assert {r["name"].split(":")[0] for r in records} == {"3e", "3e.sliding", "1g"}
    assert any(r["value"] == "inf" for r in records)


def test_verify_report_is_self_contained(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("verify", "3e", "1g", "--report", "page")
    assert code == 0
    page = (tmp_path / "page" / "theory.html").read_text(encoding="utf-8")
    assert "theory.html" in out
    assert page.count("<article") == 3
    assert page.count("<math") == 3 + 2 * 2
    assert "data:image/png;base64," in page
    assert page.count('class="erratum"') == 2
    assert "http" not in page.replace("http://www.w3.org/1998/Math/MathML", "")
    assert "<script" not in page


def test_a_report_without_latex2mathml_is_refused_first(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentia.reports.theory_report.find_spec", lambda _: None)
    code, out, err = run("verify", "--report", "page")
    assert code == 2
    assert "latentia[theory]" in err
    assert out == ""


def test_distance_between_distributions(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("distance", "Uniform(0,1)", "Uniform(0.5,1.5)", "--out", "picture.png")
    assert code == 0
    assert "+∞" in out
    assert "absolute continuity" in out
    assert "0.3465735903 nats" in out
    with Image.open(tmp_path / "picture.png") as image:
        assert min(image.size) > 300


def test_distance_json_agrees_with_closed_forms(run: Run) -> None:
    code, out, err = run("distance", "Normal(0,1)", "Normal(1,2)", "--json", "--draws", "1000")
    assert code == 0
    assert err == ""
    records = json.loads(out)
    exact = {r["name"]: r["value"] for r in records if r["kind"] == "exact"}
    assert exact["kl(P, Q)"] == pytest.approx(math.log(2) + (1 + 1) / 8 - 0.5, rel=1e-12)
    assert exact["wasserstein-2"] == pytest.approx(math.sqrt(2), rel=1e-12)
    drawn = [r for r in records if r["stderr"] and r["name"] == "jensen-shannon"]
    certified = [r for r in records if not r["stderr"] and r["name"] == "jensen-shannon"]
    assert abs(drawn[0]["value"] - certified[0]["value"]) < 5 * drawn[0]["stderr"]


@pytest.mark.parametrize(
    ("p", "q"),
    [
        ("Normal([0,0],1)", "MultivariateNormal([1,1],[[2,1],[1,2]])"),
        ("Normal(0,1)", "Mixture(0.3*Normal(-2,1) + 0.7*Normal(2,.5))"),
        ("Poisson(3)", "Categorical([0.2,0.8])"),
    ],
)
def test_distance_plots_distributions_of_every_kind(run: Run, tmp_path: Path, p: str, q: str) -> None:
    code, _, err = run("distance", p, q, "--out", "picture.png", "--draws", "2000")
    assert code == 0, err
    assert (tmp_path / "picture.png").stat().st_size > 10_000


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_distance_between_files_of_samples(run: Run, tmp_path: Path, dimension: int) -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(200, dimension)), generator.normal(size=(150, dimension)) + 1
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "y.csv", y, delimiter=",", header=",".join("abcde"[:dimension]), comments="")
    np.savez(tmp_path / "z.npz", samples=y)
    code, out, _ = run("distance", "x.npy", "y.csv", "--json", "--out", "picture.png")
    assert code == 0
    records = json.loads(out)
    assert {r["name"] for r in records} >= {"wasserstein-1", "wasserstein-2"}
    assert (tmp_path / "picture.png").is_file()
    code, again, _ = run("distance", "x.npy", "z.npz", "--json")
    assert [r["value"] for r in json.loads(again)] == pytest.approx([r["value"] for r in records])


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("\ufeff100\n1\n2\n3\n", 4),
        ("x\n100\n1\n2\n3\n", 4),
        ('"100"\n"1"\n2\n3\n', 4),
        ("100\r\n1\r\n\r\n2\r\n3\r\n", 4),
        ("a;b\n1;2\n3;4\n", 2),
    ],
    ids=["mark", "header", "quotes", "lines", "semicolons"],
)
def test_files_of_numbers_lose_no_row(run: Run, tmp_path: Path, text: str, points: int) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    code, out, err = run("distance", "x.csv", "x.csv", "--json")
    assert (code, err) == (0, "")
    first = json.loads(out)[0]
    assert (first["value"], first["n"]) == (0, points)


@pytest.mark.parametrize("cell", ["NA", "", '""', "nan", "one", "?"])
def test_a_missing_value_in_the_first_row_is_named(run: Run, tmp_path: Path, cell: str) -> None:
    (tmp_path / "x.csv").write_text(f"{cell},1\n2,3\n", encoding="utf-8")
    code, _, err = run("distance", "x.csv", "x.csv")
    assert code == 2
    assert "x.csv, line 1" in err


def test_a_page_that_cannot_be_written_is_refused_before_the_statements_are_checked(run: Run, tmp_path: Path):
    (tmp_path / "afile").write_text("")
    code, out, err = run("verify", "1a", "--report", "afile/x")
    assert (code, out) == (2, "")
    assert "a part of the path is a file" in err


def test_the_notes_of_a_distance_name_no_function_of_python(run: Run):
    code, out, _ = run("distance", "Normal(0,1)", "StudentT(2)", "--draws", "200")
    assert code == 0
    assert "no closed form" in out
    assert "kl." not in out
    assert "monte_carlo" not in out


def test_more_draws_than_memory_holds_are_refused_with_a_number_that_fits(run: Run):
    code, _, err = run("distance", "Normal(0,1)", "Normal(1,2)", "--draws", "1000000000000")
    assert code == 2
    assert "--draws: 1000000000000 draws need" in err
    assert "give at most" in err
