"""Run directories, and every command that reads them.

Each reader is a command on a run: one file of the run is damaged, removed or, for JSON, given a value of another kind.
A command may refuse only where the damaged file is one that it needs, and may show something else only where it shows
that file's content. Cures are followed as the message words them: a file is removed, and the command it names is run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import Reader, damaged, never
from latentia.cli.application import app
from latentia.errors import ConfigurationError

RUN = "run"
HOME = Path(tempfile.gettempdir()) / f"latentia-fuzz-{os.getpid()}"  # leads to the current folder; recipes name it
IMAGES = {"type": "npz", "file": str(HOME / "data.npz"), "validation": 10, "binarize": "dynamic"}
SMALL = {"epochs": 2, "batch_size": 20, "latent": 1, "network": {"type": "mlp", "hidden": [4]}}
ODD: list[Any] = [
    None, True, -1, 0, 2**70, 10**400, 1e308, float("nan"), "", "x", "\ud800", "$\\foo$", "[/b]", [], {}, [[]],
    {"a": None}, "nan", "1e999", [1, 2], "../..", "\x1b[2J", json.loads("[" * 100 + "]" * 100),
]  # fmt: skip


def run_damage(content: bytes, rng: random.Random) -> bytes | None:
    """Random changes of bytes, no content, no file, or, where it is JSON, a value of another kind."""
    chance = rng.random()
    if chance < 0.08:
        return None
    if chance < 0.16:
        return b""
    if chance < 0.6:
        with contextlib.suppress(ValueError):
            lines = content.decode().splitlines() or [""]
            number = rng.randrange(len(lines))
            if content[:1] in (b"{", b"[") and lines[0] in ("{", "["):
                return json.dumps(_changed(json.loads(content), rng)).encode()
            if content[:1] == b"{":
                lines[number] = json.dumps(_changed(json.loads(lines[number]), rng))
                return "\n".join([*lines, ""]).encode()
    return damaged(content, rng)


def _changed(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts, or itself, replaced, removed or renamed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else dict(enumerate(value))
    key = rng.choice(list(copy))
    match rng.randrange(6):
        case 0:
            del copy[key]
        case 1 if isinstance(value, dict):
            copy[rng.choice(("", "x", "\ud800", "type"))] = copy.pop(key)
        case _:
            copy[key] = _changed(copy[key], rng)
    return copy if isinstance(value, dict) else list(copy.values())


def command(*words: str) -> str:
    """What a command prints on standard output."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        try:
            app(args=list(words), standalone_mode=False)
        except Exception as error:
            if type(error).__name__ in ("UsageError", "BadParameter", "NoSuchOption"):
                raise ConfigurationError(str(error)) from error
            raise
    return text.getvalue()


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The block with `folder` as the current one, a terminal of 100 columns, and no pictures made but asked for."""
    import latentia.reports

    before, columns, figures = os.getcwd(), os.environ.get("COLUMNS"), latentia.reports.save_figures
    os.chdir(folder)
    HOME.unlink(missing_ok=True)
    HOME.symlink_to(folder)
    os.environ["COLUMNS"] = "100"
    latentia.reports.save_figures = lambda _: []  # at the end of training they take seconds
    try:
        yield
    finally:
        latentia.reports.save_figures = figures
        HOME.unlink()
        os.chdir(before)
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _read(words: list[str], output: str | None, folder: Path) -> object:
    """What a command prints, and the content of the file that it writes."""
    with inside(folder):
        text = command(*words)
        if output is None:
            return text
        path = Path(output)
        if path.suffix != ".npz":
            return path.read_bytes()
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files}


# ---- runs ----


@cache
def made(kind: str) -> dict[str, bytes]:
    """The files of a run by path: `vae`, `gan` (of images), `ring` (of points), `bigan`, `seeds`, `stopped`, `sampler`
    (a VAE with a fitted one) or `gaps` (of missing values)."""
    from latentia import evaluate, train
    from latentia.recipes import Recipe, train_seeds

    settings: dict[str, Any] = {**SMALL, "data": IMAGES}
    if kind == "ring":
        settings |= {"data": {"type": "ring"}, "steps_per_epoch": 4, "batch_size": 10}
    if kind in ("gan", "ring"):
        settings |= {"snapshots": [1, 2]}
    name = kind if kind in ("gan", "bigan") else "gan" if kind == "ring" else "vae"
    with tempfile.TemporaryDirectory() as place, inside(Path(place)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rng = np.random.default_rng(0)
        np.savez("data.npz", images=rng.integers(0, 256, (60, 4, 4), dtype=np.uint8), labels=np.arange(60) % 3)
        recipe = Recipe.parse({"type": name, **settings})
        if kind == "gaps":
            rows = np.where(rng.random((60, 4)) < 0.2, np.nan, rng.normal(size=(60, 4)))
            np.savez("data.npz", x=rows.astype(np.float32))
            data = {**IMAGES, "binarize": "none", "missing": "keep"}
            recipe = Recipe.parse({"type": name, **settings, "data": data, "likelihood": "gaussian"})
        if kind == "seeds":
            for run in train_seeds(recipe, [0, 1], RUN, quiet=True):
                evaluate(run, samples=True, features="pixels")
        else:
            run = train(recipe, RUN, quiet=True)
            (run.path / "figures").mkdir(exist_ok=True)
            (run.path / "figures" / "samples.png").write_bytes(_png())
            if kind == "vae":
                evaluate(run, limit=4, gaps=4, pictures=False)
                evaluate(run, samples=True, features="pixels")
            if kind == "sampler":
                run.sampler("mixture,components=2")
            if kind == "stopped":
                (run.path / "weights.safetensors").unlink()
        paths = [path for path in Path().rglob("*") if path.is_file() and path.name != ".lock"]
        return {str(path): path.read_bytes() for path in sorted(paths)}


def _png() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("L", (8, 8)).save(stream, "PNG")
    return stream.getvalue()


def files_of(kind: str) -> Callable[[], dict[str, bytes]]:
    """The run's files, made at the first call."""
    return partial(made, kind)


def among(*patterns: str) -> Callable[[str], bool]:
    """Whether a file of a run is one of these."""
    return lambda name: any(fnmatch(name, pattern) for pattern in patterns)


# ---- cures ----


def follow(kind: str, folder: Path, name: str, text: str) -> None:
    """Do what the message says: bring back or remove the damaged file, and run the command that it names."""
    with inside(folder):
        named = re.findall(r"`latentia (\w+) [^`]*`", text)
        if name == "data.npz" or "bring it back from a copy" in text or "bring the file" in text:
            Path(name).write_bytes(made(kind)[name])
            return
        if re.search(r"remove (it|the file|that file)\b", text):
            Path(name).unlink(missing_ok=True)
        elif not named:
            raise AssertionError("the message names no cure that could be followed")
        if "resume" in named:
            command("resume", RUN, "--quiet")
        elif "train" in named or "--resume" in text:
            recipe = {"ring": "gan", "stopped": "vae", "sampler": "vae", "gaps": "vae"}.get(kind, kind)
            command("train", recipe, "--out", RUN, "--resume", "--quiet")
        if "evaluate" in named or "evaluate again" in text:
            command("evaluate", RUN, "--samples", "--features", "pixels")


# ---- commands ----

NEEDED = (f"{RUN}/recipe.yaml", f"{RUN}/environment.json")
WEIGHTS = f"{RUN}/weights.safetensors"
RECIPE = f"{RUN}/recipe.yaml"
SHOWN = (f"{RUN}/metrics.jsonl", f"{RUN}/evaluation/*.json", f"{RUN}/figures/*")


def _reader(
    kind: str,
    words: str,
    needs: tuple[str, ...],
    shows: tuple[str, ...] = (),
    output: str | None = None,
    weight: float = 1.0,
) -> Reader:
    """A command on a run; `needs` may stop it, and `shows` may change what it says."""
    return Reader(
        f"{kind}: {words.split(' ')[0]}",
        files_of(kind),
        partial(_read, words.split(" "), output),
        may_differ=among(RECIPE, *shows),
        must_warn=among(RECIPE) if WEIGHTS in needs else never,
        may_refuse=among(RECIPE, *needs),
        damage=run_damage,
        cure=partial(follow, kind),
        writes=words.startswith(("train", "evaluate", "report", "resume", "export", "explore")) or "sampler" in words,
        weight=weight,
        works=25 if words.startswith("report") else 0,  # pictures that are damaged are made again
    )


def _weights(folder: Path, *words: str) -> bytes:
    """The weights after a command."""
    with inside(folder):
        command(*words)
        return (Path(RUN) / "weights.safetensors").read_bytes()


def _resumed(kind: str, recipe: str, weight: float) -> Reader:
    """`--resume` of a run whose weights are not written: it ends with the same bits, whatever else is damaged."""
    return Reader(
        f"{kind}: train --resume",
        files_of(kind),
        partial(_weights_of, recipe),
        may_differ=among(RECIPE),
        may_refuse=among(RECIPE, "data.npz"),
        damage=run_damage,
        cure=partial(follow, kind),
        writes=True,
        weight=weight,
    )


def _weights_of(recipe: str, folder: Path) -> bytes:
    return _weights(folder, "train", recipe, "--out", RUN, "--resume", "--quiet")


def _verify(folder: Path) -> str:
    with inside(folder):
        return command("verify", "1a")


DATA = ("data.npz",)
COMPARED = ("recipe.yaml", "environment.json", "weights.safetensors")
PAGE = (*SHOWN, *DATA, *NEEDED, WEIGHTS)  # what a report shows, or says that it is missing
READERS = [
    _reader("vae", f"show {RUN}", (), (*SHOWN, WEIGHTS, f"{RUN}/environment.json")),
    _reader("vae", f"sample {RUN} --out a.npz -n 3", (*NEEDED, WEIGHTS), output="a.npz"),
    _reader("vae", f"reconstruct {RUN} --out a.npz -n 3", (*NEEDED, WEIGHTS, *DATA), output="a.npz"),
    _reader("vae", f"encode {RUN} --out a.npz", (*NEEDED, WEIGHTS, *DATA), output="a.npz"),
    _reader("vae", f"evaluate {RUN} --limit 2 --gaps 0 --no-pictures", (*NEEDED, WEIGHTS, *DATA), weight=0.3),
    _reader("vae", f"report {RUN} --out a.html", (*NEEDED, WEIGHTS), PAGE, "a.html", weight=0.3),
    Reader(
        "seeds: compare",
        files_of("seeds"),
        partial(_read, f"compare {RUN}/seed-0 {RUN}/seed-1 --saved".split(), None),
        may_differ=among(f"{RUN}/*/recipe.yaml", f"{RUN}/*/environment.json", f"{RUN}/*/evaluation/*.json"),
        may_refuse=among(*(f"{RUN}/*/{name}" for name in (*COMPARED, "evaluation/samples.json"))),
        damage=run_damage,
    ),
    _reader("ring", f"show {RUN}", (), (*SHOWN, WEIGHTS, f"{RUN}/environment.json"), weight=0.5),
    _reader(
        "ring",
        f"report {RUN} --out a.html",
        (*NEEDED, WEIGHTS),
        (*SHOWN, *DATA, *NEEDED, WEIGHTS),
        "a.html",
        weight=0.2,
    ),
    _reader("gan", f"sample {RUN} --out a.npz -n 3", (*NEEDED, WEIGHTS), output="a.npz", weight=0.5),
    _reader("gan", f"report {RUN} --out a.html", (*NEEDED, WEIGHTS), PAGE, "a.html", weight=0.2),
    _reader("bigan", f"encode {RUN} --out a.npz", (*NEEDED, WEIGHTS, *DATA), output="a.npz", weight=0.5),
    _reader("vae", f"explore {RUN} --out a.html", (*NEEDED, WEIGHTS, *DATA), PAGE, "a.html", weight=0.2),
    _reader("vae", f"export {RUN} --format safetensors --out b", (*NEEDED, WEIGHTS), (), "b/decoder.safetensors"),
    _reader(
        "sampler",
        f"sample {RUN} --sampler mixture,components=2 --out a.npz -n 3",
        (*NEEDED, WEIGHTS, *DATA, f"{RUN}/samplers/*", f"{RUN}/evaluation/sampler-mixture.json"),
        output="a.npz",
        weight=0.5,
    ),
    _reader("gaps", f"impute {RUN} --out a.npz --draws 20", (*NEEDED, WEIGHTS, *DATA), (), "a.npz", weight=0.5),
    _reader(
        "vae",
        f"resume {RUN} --extend epochs=3 --quiet",
        (*NEEDED, WEIGHTS, *DATA, f"{RUN}/checkpoints/*"),
        output=WEIGHTS,
        weight=0.3,
    ),
    _resumed("stopped", "vae", 1.0),
    _resumed("vae", "vae", 0.3),
    _resumed("gan", "gan", 0.3),
]
