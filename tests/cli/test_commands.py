"""The commands end to end, as a user types them."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentia.data import Digits

SMALL = ["data=digits", "data.binarize=dynamic", "epochs=2", "network.hidden=[32]"]


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


def latentia(*arguments: str, cwd: Path) -> Result:
    """Run the command in this process, which spares each call the seconds of importing torch."""
    from latentia.cli import main

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["latentia", *arguments])
        patch.delenv("LATENTIA_DATA", raising=False)
        try:
            main()
            code: object = 0
        except SystemExit as left:
            code = left.code
    return Result(code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    result = latentia("train", "vae", *SMALL, "--out", "run", "--quiet", cwd=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_train_fills_the_run_directory(run_directory: Path) -> None:
    for name in ("recipe.yaml", "environment.json", "metrics.jsonl", "weights.safetensors", "evaluation/training.json"):
        assert (run_directory / name).is_file(), name
    figures = {path.name for path in (run_directory / "figures").glob("*.png")}
    assert len(figures) >= 4
    for path in (run_directory / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert min(image.size) > 100
    record = json.loads((run_directory / "evaluation" / "training.json").read_text())[0]
    assert record["kind"] == "lower bound"
    assert record["unit"] == "nats"


def test_sample_reconstruct_encode_show(run_directory: Path) -> None:
    folder = run_directory.parent
    result = latentia("sample", "run", "-n", "9", "--out", "s.npz", cwd=folder)
    assert result.returncode == 0, result.stderr
    images = np.load(folder / "s.npz")["images"]
    assert images.shape == (9, 1, 8, 8)
    assert images.min() >= 0
    assert images.max() <= 1

    result = latentia("reconstruct", "run", "-n", "5", "--out", "r.png", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert (folder / "r.png").is_file()

    result = latentia("encode", "run", "--out", "e.npz", cwd=folder)
    assert result.returncode == 0, result.stderr
    arrays = np.load(folder / "e.npz")
    assert arrays["mean"].shape == arrays["stddev"].shape == (len(arrays["labels"]), 2)

    result = latentia("show", "run", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "elbo" in result.stdout


def test_samples_are_a_function_of_the_seed(run_directory: Path) -> None:
    folder = run_directory.parent
    for name, seed in (("a.npz", "1"), ("b.npz", "1"), ("c.npz", "2")):
        assert latentia("sample", "run", "--seed", seed, "--out", name, cwd=folder).returncode == 0
    a, b, c = (np.load(folder / name)["images"] for name in ("a.npz", "b.npz", "c.npz"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_all_faults_are_listed_at_once(tmp_path: Path) -> None:
    error = latentia("train", "vae", "epochs=x", "latent=0", "sede=1", cwd=tmp_path).stderr
    assert all(word in error for word in ("epochs", "latent", "seed"))


def test_an_existing_run_is_not_overwritten(run_directory: Path) -> None:
    before = (run_directory / "weights.safetensors").read_bytes()
    result = latentia("train", "vae", *SMALL, "--out", "run", cwd=run_directory.parent)
    assert result.returncode == 2
    assert "latentia resume" in result.stderr
    result = latentia("train", "vae", "epochs=3", "--out", "run", "--resume", cwd=run_directory.parent)
    assert result.returncode == 2
    assert "epochs: 2 there, 3 here" in result.stderr
    assert (run_directory / "weights.safetensors").read_bytes() == before


def test_the_command_exits_with_a_code(tmp_path: Path) -> None:
    """Once as a shell does it, in another process."""
    command = [sys.executable, "-c", "from latentia.cli import main; main()", "show", "nowhere"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""


def test_evaluate_and_report(run_directory: Path) -> None:
    folder = run_directory.parent
    result = latentia("evaluate", "run", "--limit", "20", "--gaps", "0", "--prove", "2", "--json", cwd=folder)
    assert result.returncode == 0, result.stderr
    estimates = {record["name"]: record for record in json.loads(result.stdout)}
    exact = estimates["test/log_likelihood"]
    lower, upper = (estimates[f"test/log_likelihood_{side}"]["value"] for side in ("lower", "upper"))
    assert lower <= exact["value"] + exact["settings"]["error"]
    assert exact["value"] - exact["settings"]["error"] <= upper <= lower + 2
    assert exact["kind"] == "numerical"
    assert exact["settings"]["worst_error"] <= 0.01
    refused = latentia("evaluate", "run", "--likelihood", "importance", "--prove", "1", cwd=folder)
    assert "--likelihood exact" in refused.stderr
    bound = latentia("evaluate", "run", "--likelihood", "importance", "--limit", "20", "--json", cwd=folder)
    importance = json.loads(bound.stdout)[0]
    assert importance["value"] < exact["value"] + 5 * importance["stderr"]
    assert latentia("evaluate", "run", "--likelihood", "exakt", cwd=folder).returncode == 2
    assert latentia("report", "run", cwd=folder).returncode == 0
    page = (run_directory / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert 'src="http' not in page


def test_help_does_not_import_torch() -> None:
    code = "import sys; from latentia.cli import app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_show_names_the_status_of_a_run(run_directory: Path, tmp_path: Path) -> None:
    from latentia.recipes import Run
    from latentia.training import RunDirectory

    assert "status ended" in latentia("show", "run", cwd=run_directory.parent).stdout
    shutil.copytree(run_directory, tmp_path / "run[/]")
    (tmp_path / "run[/]" / "weights.safetensors").unlink()
    assert "status stopped after step" in latentia("show", "run[/]", cwd=tmp_path).stdout
    recipe = Run(tmp_path / "run[/]").recipe.to_mapping()
    with RunDirectory.open(tmp_path / "run[/]", recipe, resume=True):
        assert "status in training by" in latentia("show", "run[/]", cwd=tmp_path).stdout


def test_estimates_of_a_run_and_verdicts_are_printed_in_formats(run_directory: Path) -> None:
    folder = run_directory.parent
    saved = json.loads((run_directory / "evaluation" / "training.json").read_text())
    shown = latentia("show", "run", "--json", cwd=folder)
    assert [record["name"] for record in json.loads(shown.stdout)][: len(saved)] == [r["name"] for r in saved]
    assert "| ELBO, test |" in latentia("show", "run", "--format", "markdown", cwd=folder).stdout
    assert latentia("show", "run", "--format", "csv", cwd=folder).stdout.startswith("name,value,stderr,")
    verdicts = latentia("verify", "3e", "--format", "latex", cwd=folder)
    assert verdicts.returncode == 0, verdicts.stderr
    assert verdicts.stdout.count(r"\begin{tabular}") == 1
    assert "✓" not in verdicts.stdout


def test_a_damaged_evaluation_is_a_warning(run_directory: Path, tmp_path: Path) -> None:
    shutil.copytree(run_directory, tmp_path / "run")
    (tmp_path / "run" / "evaluation" / "odd.json").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = latentia("show", "run", cwd=tmp_path)
    assert result.returncode == 0
    assert re.search(r"^warning: .*odd\.json is damaged", result.stderr)
    assert "ELBO, test" in result.stdout


def test_a_run_with_networks_in_python_is_shown(tmp_path: Path) -> None:
    from torch import nn

    import latentia as library
    from latentia.networks import Custom

    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
    library.train(
        library.VAERecipe(data=Digits(binarize="dynamic"), network=Custom(encoder=encoder, decoder=decoder), epochs=1),
        tmp_path / "own",
        quiet=True,
    )
    shown = latentia("show", "own", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "network=custom" in shown.stdout
    reported = latentia("report", "own", cwd=tmp_path)
    assert reported.returncode == 0, reported.stderr
    assert "network=Custom(" in (tmp_path / "own" / "report.html").read_text(encoding="utf-8")
    sampled = latentia("sample", "own", cwd=tmp_path)
    assert sampled.returncode == 2
    assert "Custom(encoder=" in sampled.stderr


def test_memory_that_torch_cannot_have_is_one_line(tmp_path, monkeypatch):
    from latentia.cli import application

    def asked_too_much(**_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:126] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(application, "app", asked_too_much)
    result = latentia("show", "nowhere", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "error: there is not enough memory; use fewer examples, or a smaller model\n"
