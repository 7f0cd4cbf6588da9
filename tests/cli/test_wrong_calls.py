"""Wrong calls of every command: one line with the cure on standard error, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from .test_commands import latentia

RUN_COMMANDS = {
    "sample": [],
    "reconstruct": [],
    "encode": ["--out", "e.npz"],
    "show": [],
    "evaluate": [],
    "compare": [],
    "report": [],
    "explore": [],
    "export": [],
    "resume": [],
    "push": ["user/name"],
}
COMMANDS = [*RUN_COMMANDS, "train", "score", "verify", "distance", "demo"]
RECIPES = ["vae", "gan", "adversarial-autoencoder", "bigan", "vae-gan"]
SETTINGS = {  # setting: the cure
    "epoch=3": "epochs",
    "epochs=many": "integer",
    "epochs=0": "at least 1|greater than or equal to 1",
    "epochs=-1": "greater than or equal to 1",
    "epochs=1.5": "integer",
    "epochs=": "integer",
    "epochs": "key=value",
    "=3": "key=value",
    "batch_size=0": "greater than or equal to 1",
    "seed=-1": "greater than or equal to 0",
    "seed=x": "integer",
    "latent=0": "greater than or equal to 1",
    "data=mnits": "mnist",
    "data=7": "Known|give one of",
    "data=[1,2]": "give one of|data=npz data.file",
    "data.binarize=gray": "none",
    "data.validation=-1": "greater than or equal to 0",
    "data.colour=1": "no such key",
    "network=mpl": "mlp",
    "network.hidden=512": r"\[512\]",
    "network.hidden=(16,32)": r"such as \[16, 32\]",
    "data=npz": "data.file: this setting has no default",
    "network.hidden=[0]": "greater than",
    "network.activation=relo": "relu",
    "keep=worst": "best",
    "accelerator=tpu": "cpu",
    "precision=8": "32-true",
    "checkpoint_every=.nan": "checkpoint_every",
    "compile=perhaps": "one of auto, true, false",
    "patience=3": "keep=best",
}
CALLS: dict[str, tuple[list[str], str]] = {
    **{f"{name}: unknown option": ([name, "--colour", "red"], "--help|colour=red") for name in COMMANDS},
    **{f"{name}: no such run": ([name, "nowhere", *rest], "nowhere") for name, rest in RUN_COMMANDS.items()},
    **{f"{name}: a file as run": ([name, "file.txt", *rest], "file.txt") for name, rest in RUN_COMMANDS.items()},
    **{f"{name}: no argument": ([name, *rest], "--help") for name, rest in RUN_COMMANDS.items() if name != "demo"},
    **{
        f"train {recipe} {setting}": (["train", recipe, setting], cure)
        for recipe in RECIPES
        for setting, cure in SETTINGS.items()
        if (recipe, setting) != ("gan", "data=7")
    },
    "no such command": (["trian", "vae"], "No such command"),
    "train: nothing": (["train"], "--help"),
    "train: unknown recipe": (["train", "vea"], "Did you mean vae"),
    "train: setting as option": (["train", "vae", "--epochs", "3"], "epochs=3"),
    "train: setting as option with =": (["train", "vae", "--epochs=3"], "epochs=3"),
    "train: nested setting as option": (["train", "vae", "--data.binarize", "none"], "data.binarize=none"),
    "train: key of another type": (["train", "vae", "objective.k=5"], "choose iwae"),
    "train: one of two optimizers": (["train", "gan", "optimizer.lr=1e-3"], "discriminator_optimizer"),
    "train: resume without out": (["train", "vae", "--resume"], "--out"),
    "train: resume of nothing": (["train", "vae", "--resume", "--out", "nothere"], "leave --resume out"),
    "train: resume of another folder": (["train", "vae", "--resume", "--out", "folder"], "leave --resume out"),
    "train: out is a file": (["train", "vae", "--out", "file.txt"], "give another --out"),
    "train: out in a file": (["train", "vae", "--out", "file.txt/x"], "file.txt"),
    "train: out is in use": (["train", "vae", "--out", "folder"], "give another --out"),
    "train: no config": (["train", "vae", "--config", "nowhere.yaml"], "cannot read the recipe"),
    "train: config of text": (["train", "vae", "--config", "file.txt"], "cannot read the recipe"),
    "train: seeds of letters": (["train", "vae", "--seeds", "a,b"], "0,3,7"),
    "train: one seed in a list": (["train", "vae", "--seeds", "5,"], "0,3,7"),
    "train: no seeds": (["train", "vae", "--seeds", "0"], "at least one"),
    "train: seeds twice": (["train", "vae", "--seeds", "1,1"], "each once"),
    "train: seeds and a seed": (["train", "vae", "--seeds", "2", "seed=1"], "leave seed"),
    "train: gray under Bernoulli": (["train", "vae", "data.binarize=none"], "data.binarize=dynamic"),
    "train: no closed form": (["train", "vae", "prior=mixture"], "objective.kl=monte-carlo"),
    "train: no such device": (["train", "vae", "accelerator=cuda"], "accelerator=cpu"),
    "train: batch too large": (["train", "vae", "batch_size=100000"], "batch_size="),
    "train: no such folder": (["train", "vae", "data=folder", "data.folder=nowhere"], "nowhere"),
    "train: no such archive": (["train", "vae", "data=npz", "data.file=nowhere.npz"], "nowhere.npz"),
    "sample: no images": (["sample", "run", "-n", "0"], "-n"),
    "sample: letters": (["sample", "run", "-n", "ten"], "-n"),
    "sample: too many": (["sample", "run", "-n", "1000000000000"], "give at most"),
    "train: recipe in capitals": (["train", "VAE"], "Did you mean vae"),
    "train: data in capitals": (["train", "vae", "data=MNIST"], "Did you mean mnist"),
    "train: spaces in a setting": (["train", "vae", "data = minst"], "Did you mean mnist"),
    "train: spaces around the sign": (["train", "vae", "epochs", "=", "3"], "epochs=3"),
    "train: learning rate": (["train", "vae", "lr=0.1"], "optimizer.lr"),
    "train: learning rate in words": (["train", "vae", "learning_rate=0.1"], "optimizer.lr"),
    "train: learning rate of two": (["train", "gan", "lr=3"], "generator_optimizer.lr or discriminator_optimizer.lr"),
    "train: key of the objective": (["train", "vae", "beta=4"], "objective.beta"),
    "train: key of the network": (["train", "vae", "hidden=[3]"], "network.hidden"),
    "train: key of the data": (["train", "vae", "binarize=dynamic"], "data.binarize"),
    "train: one dash": (["train", "vae", "-epochs", "3"], "epochs=3"),
    "train: one dash and a sign": (["train", "vae", "-epochs=3"], "epochs=3"),
    "train: a folder as data": (["train", "vae", "data=folder.png"], "data=folder data.folder=folder.png"),
    "train: an archive as data": (["train", "vae", "data=large.npz"], "data=npz data.file=large.npz"),
    "train: too much validation": (["train", "vae", "data.validation=100000"], "data.validation"),
    "train: too many seeds": (["train", "vae", "--seeds", "1000000000"], "at most 1000"),
    "train: too many draws": (["train", "vae", "objective=iwae", "objective.k=1000000000"], "smaller objective.k"),
    "evaluate: too many draws": (
        ["evaluate", "run", "--likelihood", "importance", "--draws", "100000000000"],
        "give at most",
    ),
    "sample: too many components": (
        ["sample", "run", "--sampler", "mixture,components=1000000000"],
        "sampler.components",
    ),
    "sweep: too many workers": (["sweep", "vae", "latent=1,2", "--workers", "1000000000"], "workers: give 1 to"),
    "sweep: too many seeds": (["sweep", "vae", "latent=1,2", "--seeds", "1000000000"], "at most 1000"),
    "verify: large seed": (["verify", "1a", "--seed", "99999999999999999999999"], "--seed"),
    "explore: another format": (["explore", "run", "--out", "x.txt"], "end in .html"),
    "report: another format": (["report", "run", "--out", "x.pdf"], "end in .html"),
    "resume: shorter": (["resume", "run", "--extend", "epochs=1"], "epochs=2"),
    "resume: other settings": (["resume", "run", "--extend", "latent=3"], "init_from=run"),
    "export: format": (["export", "run", "--format", "onx"], "Did you mean onnx"),
    "explore: bytes": (["explore", "run", "--max-bytes", "10"], "allow --max-bytes"),
    "push: name": (["push", "run", "name"], "give user/name"),
    "pull: name": (["pull", "name"], "give user/name"),
    "sample: a label": (["sample", "run", "--label", "3"], "conditional-vae"),
    "sample: sampler": (["sample", "run", "--sampler", "mixtur"], "Did you mean mixture"),
    "train: start of no run": (["train", "vae", "init_from=nowhere"], "nowhere is not a run directory"),
    "train: frozen part": (["train", "vae", "freeze=[encodr]"], "Did you mean encoder"),
    "train: a table as data": (["train", "vae", "data=some.csv"], "data=table data.file=some.csv"),
    "show: format": (["show", "run", "--format", "html"], "Known: csv, latex, markdown, text"),
    "verify: format": (["verify", "1a", "--format", "tex"], "Did you mean text|Known: csv, latex"),
    "sample: another format": (["sample", "run", "--out", "x.jpg"], ".png or .npz"),
    "sample: in a file": (["sample", "run", "--out", "file.txt/x.png"], "file.txt"),
    "sample: a folder": (["sample", "run", "--out", "folder.png"], "folder.png"),
    "sample: of": (["sample", "run", "--of", "mean"], "Did you mean means"),
    "sample: negative seed": (["sample", "run", "--seed", "-1"], "--seed"),
    "reconstruct: in a file": (["reconstruct", "run", "--out", "file.txt/x.png"], "file.txt"),
    "reconstruct: split": (["reconstruct", "run", "--split", "tset"], "Did you mean test"),
    "encode: no out": (["encode", "run"], "--out"),
    "encode: a picture": (["encode", "run", "--out", "q.png"], "ends in .npz"),
    "encode: in a file": (["encode", "run", "--out", "file.txt/q.npz"], "file.txt"),
    "encode: unknown data": (["encode", "run", "--out", "q.npz", "--data", "mnits"], "mnist"),
    "encode: no such archive": (["encode", "run", "--out", "q.npz", "--data", "no.npz"], "no.npz"),
    "encode: split": (["encode", "run", "--out", "q.npz", "--split", "all"], "Known: test, train, validation"),
    "evaluate: metric": (["evaluate", "run", "--metrics", "precison"], "Did you mean precision"),
    "evaluate: metric as argument": (["evaluate", "run", "precision"], "--help"),
    "evaluate: features": (["evaluate", "run", "--samples", "--features", "pixel"], "Did you mean pixels"),
    "evaluate: likelihood": (["evaluate", "run", "--likelihood", "exakt"], "Did you mean exact"),
    "evaluate: too many": (["evaluate", "run", "--samples", "-n", "100000"], "give at most"),
    "evaluate: training images": (["evaluate", "run", "--samples", "--split", "train"], "test"),
    "evaluate: split": (["evaluate", "run", "--split", "tets"], "Did you mean test"),
    "evaluate: format": (["evaluate", "run", "--format", "html"], "Known: csv, latex, markdown, text"),
    "evaluate: draws of another method": (["evaluate", "run", "--draws", "10"], "--likelihood importance"),
    "evaluate: draws": (["evaluate", "run", "--draws", "1"], "--draws"),
    "evaluate: limit": (["evaluate", "run", "--limit", "0"], "--limit"),
    "evaluate: seconds": (["evaluate", "run", "--seconds", "0"], "--seconds"),
    "compare: twice": (["compare", "run", "run"], "give each once"),
    "compare: not saved": (["compare", "run", "--saved"], "evaluate run --samples"),
    "compare: of": (["compare", "run", "--of", "draw"], "Did you mean draws"),
    "report: in a file": (["report", "run", "--out", "file.txt/r.html"], "file.txt"),
    "score: one side": (["score", "digits"], "--help"),
    "score: neither": (["score", "digit", "digits"], "Did you mean digits"),
    "score: no archive": (["score", "digits", "no.npz"], "no.npz"),
    "score: text as archive": (["score", "digits", "text.npz"], "text.npz"),
    "score: other arrays": (["score", "digits", "two.npz"], "needs an array named images"),
    "score: sizes": (["score", "digits", "large.npz"], "--size"),
    "score: channels": (["score", "digits", "digits", "--channels", "rgb"], "Known: color, gray"),
    "score: bytes": (["score", "digits", "large.npz", "--max-bytes", "10"], "max-bytes"),
    "verify: item": (["verify", "1c.finit"], "Did you mean 1c.finite"),
    "verify: chapter": (["verify", "9"], "Known: 1a"),
    "verify: an experiment": (["verify", "2a"], "latentia train vae"),
    "verify: another experiment": (["verify", "4f"], "latentia train gan"),
    "distance: one side": (["distance", "Normal(0,1)"], "--help"),
    "distance: typing": (["distance", "Normal(0,1", "Normal(0,1)"], r"\^|parenthes"),
    "distance: name": (["distance", "Norml(0,1)", "Normal(0,1)"], "Did you mean Normal"),
    "distance: no file": (["distance", "a.npy", "b.npy"], "a.npy"),
    "distance: file and expression": (["distance", "one.npy", "Normal(0,1)"], "two distributions, or two"),
    "distance: format of the picture": (["distance", "Normal(0,1)", "Normal(1,1)", "--out", "f.pdf"], ".png"),
    "distance: few draws": (["distance", "Normal(0,1)", "Normal(1,1)", "--draws", "1"], "--draws"),
    "distance: scale": (["distance", "Normal(0,-1)", "Normal(0,1)"], "scale must be > 0"),
    "distance: spaces": (["distance", "Normal(0,1)", "Normal([0,0],1)"], "different spaces"),
    "distance: empty": (["distance", "empty.npy", "one.npy"], "n >= 1 points"),
    "distance: not finite": (["distance", "nan.csv", "one.npy"], "nan"),
    "distance: dimensions": (["distance", "one.npy", "plane.npy"], "different dimensions"),
    "distance: words": (["distance", "words.csv", "one.npy"], "words.csv"),
    "distance: not an array": (["distance", "text.npy", "one.npy"], "text.npy"),
    "distance: two arrays": (["distance", "two.npz", "one.npy"], "holds the arrays a, b"),
    "distance: bytes": (["distance", "one.npy", "one.npy", "--max-bytes", "8"], "max-bytes"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and files that are not what a command asks for."""
    folder = tmp_path_factory.mktemp("wrong")
    trained = latentia(
        "train",
        "vae",
        "data=digits",
        "data.binarize=dynamic",
        "epochs=1",
        "network.hidden=[8]",
        "--out",
        "run",
        "--quiet",
        cwd=folder,
    )
    assert trained.returncode == 0, trained.stderr
    (folder / "file.txt").write_text("words: [")
    (folder / "text.npz").write_text("words")
    (folder / "folder").mkdir()
    (folder / "folder" / "note").write_text("words")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "note").write_text("words")
    np.save(folder / "one.npy", np.ones(5))
    np.save(folder / "empty.npy", np.ones(0))
    np.save(folder / "plane.npy", np.ones((5, 2)))
    (folder / "nan.csv").write_text("1\nnan\n")
    (folder / "words.csv").write_text("some\nwords\n")
    (folder / "text.npy").write_text("not an array")
    np.savez(folder / "two.npz", a=np.ones(2), b=np.ones(2))
    np.savez(folder / "large.npz", images=np.full((200, 16, 16), 9, np.uint8))
    return folder


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.name != "report.html"}


def test_there_are_two_hundred_wrong_calls() -> None:
    assert len(CALLS) >= 200


@pytest.mark.parametrize("case", CALLS)
def test_a_wrong_call_gets_one_line_with_the_cure(case: str, folder: Path) -> None:
    arguments, cure = CALLS[case]
    before = files(folder)
    result = latentia(*arguments, cwd=folder)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert lines[0].startswith("error: ")
    assert len(lines) == 1 or "^" in result.stderr, result.stderr
    assert len(result.stderr) < 1000
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert any(part in result.stderr.replace("\\", "") for part in cure.replace("\\", "").split("|")), result.stderr
    assert files(folder) == before
