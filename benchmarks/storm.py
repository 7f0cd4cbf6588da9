"""Kill commands at random moments, go on, and compare with what was never stopped.

    python benchmarks/storm.py                 # 200 runs over all recipes
    python benchmarks/storm.py -n 20 --only streamed
    python benchmarks/storm.py -n 0 --starts 40  # Ctrl-C in the first seconds of 40 new processes

Each run gets SIGKILL, SIGTERM or SIGINT at a moment chosen at random between its start and its end, up to three times,
and is resumed each time as its message says. Of several processes, one rank or loading worker is killed instead in
half of the cases. What must hold: no traceback; exit status 130 after SIGINT and SIGTERM in training; every file that
is there after a kill can be read whole; at the end, the weights and records have the same bits as those of an
uninterrupted run, and no temporary file is left. The exit status is 1 if anything does not hold.

Commands run in forks of this process, which has imported everything, so that a run takes less than a second;
`--starts` starts new interpreters.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

import latentia.cli.application
import latentia.explorer.build
import latentia.interface
import latentia.reports.report
import latentia.reports.tables  # noqa: F401
from latentia.cli import main as latentia_main

sys.path.append(str(Path(__file__).parent.parent))
from tests.sharing.hub_server import serving

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SMALL = ["batch_size=20", "network.hidden=[8]", "latent=1", "checkpoint_every=0.34"]
IMAGES = ["data=npz", "data.file=data.npz", "data.validation=10", "data.binarize=dynamic", "epochs=4"]
RECIPES: dict[str, list[str]] = {
    "vae": ["train", "vae", *IMAGES, *SMALL],
    "vae, best": ["train", "vae", *IMAGES, *SMALL, "keep=best", "ema=0.9", "patience=4"],
    "iwae": ["train", "vae", *IMAGES, *SMALL, "objective=iwae", "objective.k=3"],
    "gan": ["train", "gan", "data=ring", "steps_per_epoch=6", "epochs=4", "snapshots=[1,3]", *SMALL],
    "gan of images": ["train", "gan", *IMAGES, *SMALL, "snapshots=[2]"],
    "bigan": ["train", "bigan", *IMAGES, *SMALL],
    "vae-gan": ["train", "vae-gan", *IMAGES, *SMALL],
    "adversarial": ["train", "adversarial-autoencoder", *IMAGES, *SMALL],
    "seeds": ["train", "vae", *IMAGES, *SMALL, "--seeds", "0,3"],
    "streamed": [
        *("train", "vae", "data=folder", "data.folder=images", "data.stream=true", "data.validation=10"),
        *("data.workers=2", "data.binarize=dynamic", "epochs=4", *SMALL),
    ],
    "two processes": ["train", "vae", *IMAGES, *SMALL, "devices=2"],
}
MISSING = [
    *("train", "vae", "data=npz", "data.file=gaps.npz", "data.validation=10", "data.missing=keep"),
    *("likelihood=gaussian", "epochs=2", *SMALL),
]
QUICK = ["vae", "vae, best", "iwae", "gan", "gan of images", "bigan", "vae-gan", "adversarial", "seeds", "streamed"]
COMMANDS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "run", "--limit", "4", "--gaps", "2", "--seconds", "60"],
    "sample": ["sample", "run", "--out", "samples.npz"],
    "report": ["report", "run", "--out", "page.html"],
    "explore": ["explore", "run", "--out", "explorer.html"],
    "export": ["export", "run", "--format", "safetensors", "--out", "networks"],
    "sample, mixture": ["sample", "run", "--sampler", "mixture,components=2", "--out", "samples.npz"],
    "impute": ["impute", "run", "--out", "imputed.npz", "--draws", "50"],
    "resume": ["resume", "run", "--extend", "epochs=8", "--quiet"],
    "sweep": ["sweep", "vae", "latent=1,2", *IMAGES, *SMALL[:2], "--workers", "2", "--out", "sweep", "--quiet"],
    "pull": ["pull", "me/run", "--out", "pulled"],
}
AGAIN = {
    "pull": ["show", "pulled"],
    "resume": ["resume", "run", "--quiet"],
    "sweep": [*COMMANDS["sweep"], "--resume"],
}  # where it goes on


@dataclass
class Ended:
    """How a process ended: its exit status (negative for a signal), what it wrote, and whether it had to be killed."""

    status: int
    text: str
    hung: bool = False


@dataclass
class Storm:
    """What was found.

    Attributes:
        counts: of runs, signals, differing bits and so on.
        faults: what does not hold, in words.
    """

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, kind: str, text: str) -> None:
        """Count and print something that does not hold."""
        self.counts[kind] += 1
        self.faults.append(f"{kind}: {text}")
        print(f"  {kind}: {text}", flush=True)


def start(words: list[str], folder: Path, log: Path, pictures: bool) -> int:
    """Fork a process that runs a command in a folder; returns its number."""
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])  # until the child can take them
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
        return process
    try:
        os.chdir(folder)
        os.setpgid(0, 0)
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, 1)
        os.dup2(target, 2)
        if not pictures:
            import latentia.reports

            latentia.reports.save_figures = lambda _: []
        sys.argv = ["latentia", *words]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS[1:])
        latentia_main()
    except KeyboardInterrupt:  # before the command's own handler was there
        os._exit(130)
    except SystemExit as end:
        sys.stdout.flush()
        os._exit(end.code if isinstance(end.code, int) else 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    os._exit(0)


def preload(folder: Path) -> None:
    """Import here what a training and a report import when they need it, so that no fork does it again."""
    names = folder / "modules"
    process = os.fork()
    if not process:
        os.chdir(folder)
        for words in ([*RECIPES["vae"], "--out", "run", "--quiet"], COMMANDS["evaluate"], COMMANDS["report"]):
            sys.argv = ["latentia", *words]
            quiet = contextlib.redirect_stderr(io.StringIO())
            with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()), quiet:
                latentia_main()
        names.write_text("\n".join(sys.modules))
        os._exit(0)
    os.waitpid(process, 0)
    for name in names.read_text().split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def children(process: int) -> list[int]:
    """The processes that this one has started."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def wait(process: int, log: Path, limit: float = 120) -> Ended:
    """Wait for a process that was forked."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"))
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return Ended(os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), hung=True)


def half_files(folder: Path) -> list[str]:
    """Files under their own names that cannot be read whole; temporary files are not counted here."""
    bad = []
    for path in folder.rglob("*"):
        if not path.is_file() or any(part.startswith(".latentia-") for part in path.relative_to(folder).parts):
            continue
        try:
            match path.suffix:
                case ".json":
                    json.loads(path.read_text())
                case ".jsonl":
                    lines = path.read_text().splitlines(keepends=True)
                    [json.loads(line) for line in lines if line.endswith("\n")]
                case ".safetensors":
                    with safe_open(path, framework="np") as file:
                        [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
                case ".npz":
                    with np.load(path, allow_pickle=False) as arrays:
                        [arrays[name] for name in arrays.files]
                case ".png":
                    with Image.open(path) as picture:
                        picture.load()
                case ".html":
                    assert path.read_text().rstrip().endswith("</html>")
                case ".yaml":
                    assert path.read_text().endswith("\n")
        except Exception as error:
            bad.append(f"{path.relative_to(folder)}: {error!r}")
    return bad


def result(folder: Path) -> dict[str, Any]:
    """What must be the same bits: weights, and records without their times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("weights.safetensors")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    for path in sorted(folder.rglob("metrics.jsonl")):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found[str(path.relative_to(folder))] = [{k: v for k, v in r.items() if k != "seconds"} for r in records]
    for path in sorted(folder.rglob("training.json")):
        found[str(path.relative_to(folder))] = path.read_text()
    return found


def prepare(folder: Path) -> None:
    """The data of all recipes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 6, 6), dtype=np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(70) % 3)
    rows = rng.normal(size=(70, 4)).astype(np.float32)
    np.savez(folder / "gaps.npz", x=np.where(rng.random(rows.shape) < 0.2, np.nan, rows))
    for number, image in enumerate(images):
        path = folder / "images" / f"class{number % 2}" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def struck(storm: Storm, name: str, process: int, log: Path, delay: float, rng: random.Random) -> tuple[Ended, bool]:
    """Wait, send a signal, and check how the process ends; also whether it was struck before it ended."""
    time.sleep(delay)
    inner = children(process) if name in ("streamed", "two processes") and rng.random() < 0.5 else []
    number = rng.choice(SIGNALS)
    if inner:
        victim, number = rng.choice(inner), signal.SIGKILL
        storm.counts["workers and ranks killed"] += 1
    else:
        victim = process
        storm.counts[number.name] += 1
    with contextlib.suppress(ProcessLookupError):
        os.kill(victim, number)
    ended = wait(process, log)
    what = f"{name}, {'a worker or rank' if inner else number.name} after {delay:.3f} s"
    if ended.hung:
        storm.fault("hang", f"{what}: {ended.text[-400:]}")
    if "Traceback" in ended.text:
        storm.fault("traceback", f"{what}: {ended.text[-800:]}")
    allowed = {0, 2} if inner else {0, -number} if number == signal.SIGKILL else {0, 130}
    if number == signal.SIGTERM and not inner:
        allowed |= {-number}  # outside of training, SIGTERM has its usual meaning
    if ended.status not in allowed:
        storm.fault("exit status", f"{what}: {ended.status}: {ended.text[-400:]}")
    if inner and ended.status == 2 and "latentia resume" not in ended.text and "start again" not in ended.text:
        storm.fault("message", f"{what}: {ended.text[-400:]}")
    return ended, ended.status != 0


def one_run(
    storm: Storm, name: str, folder: Path, expected: dict[str, Any], seconds: float, rng: random.Random
) -> None:
    """Train a recipe, interrupt it up to three times, and compare it with the expected result."""
    out, log = folder / "run", folder / "log"
    pictures = name == "gan" and rng.random() < 0.3
    log.write_text("")
    words = [*RECIPES[name], "--out", "run", "--quiet"]
    for _ in range(rng.choice((1, 1, 2, 3))):
        begun = (out / "recipe.yaml").exists() or (out / "seeds.yaml").exists()
        # a moment up to the end, more often near either of them
        share = rng.choice((rng.random(), rng.random() ** 3, 1 - rng.random() ** 3)) * (1.3 if pictures else 1.05)
        process = start([*words, "--resume"] if begun else words, folder, log, pictures)
        ended, stopped = struck(storm, name, process, log, share * seconds, rng)
        for bad in half_files(folder):
            storm.fault("half file", f"{name}: {bad}")
        if not stopped:
            break
    for _attempt in range(2):
        begun = (out / "recipe.yaml").exists() or (out / "seeds.yaml").exists()
        ended = wait(start([*words, "--resume"] if begun else words, folder, log, pictures), log)
        if ended.status == 0:
            break
    if ended.status:
        storm.fault("not resumed", f"{name}: exit status {ended.status}: {ended.text[-600:]}")
        return
    found = result(out)
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            storm.fault("differing bits", f"{name}: {key}")
    left = [str(path) for path in out.rglob(".latentia-*")]
    if left:
        storm.fault("temporary left", f"{name}: {left}")


def one_command(
    storm: Storm, name: str, folder: Path, expected: dict[str, Any], seconds: float, rng: random.Random
) -> None:
    """Kill a command that writes files, and see that no half file is there, and that it works again."""
    log = folder / "log"
    log.write_text("")
    process = start(COMMANDS[name], folder, log, name not in AGAIN)
    struck(storm, name, process, log, rng.random() * seconds, rng)
    for bad in half_files(folder):
        storm.fault("half file", f"{name}: {bad}")
    ended = wait(start(COMMANDS[name], folder, log, name not in AGAIN), log)
    if ended.status and name in AGAIN:
        ended = wait(start(AGAIN[name], folder, log, False), log)
    if ended.status:
        storm.fault("not repeated", f"{name}: exit status {ended.status}: {ended.text[-400:]}")
        return
    found = result(folder)
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            storm.fault("differing bits", f"{name}: {key}")
    left = [str(path) for path in folder.rglob(".latentia-*")]
    if left:
        storm.fault("temporary left", f"{name}: {left}")


def one_start(storm: Storm, folder: Path, rng: random.Random) -> None:
    """Ctrl-C in the first seconds of a new interpreter: in imports, or before them."""
    delay = rng.choice((rng.uniform(0, 0.02), rng.uniform(0.02, 0.3), rng.uniform(0.3, 4)))
    words = rng.choice((["show", "nowhere"], ["distance", "Normal(0,1)", "Normal(1,2)"], ["verify", "1a"], ["--help"]))
    command = [sys.executable, "-m", "latentia.cli", *words]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    try:
        text, _ = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        storm.fault("hang", f"{words} after {delay:.3f} s")
        return
    storm.counts["Ctrl-C at the start"] += 1
    took = time.monotonic() - sent
    python = delay < 0.3 and process.returncode in (-signal.SIGINT, 1)  # the interpreter itself was not ready
    if "Traceback" in text and not python:
        storm.fault("traceback", f"{words} after {delay:.3f} s: {text[-400:]}")
    elif python:
        storm.counts["of these, before Python ran our code"] += 1
    elif process.returncode not in (130, 0, 2):
        storm.fault("exit status", f"{words} after {delay:.3f} s: {process.returncode}: {text[-300:]}")
    elif process.returncode == 130 and took > 2:
        storm.fault("slow", f"{words} after {delay:.3f} s: {took:.1f} s to end")


def begin_again(work: Path, source: Path) -> None:
    """Make the folder hold a trained run and its data, and no more."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    (work / "log").write_text("")


def trained_with_gaps(base: Path) -> Path:
    """A folder with a run on a table with missing values, made at the first call."""
    work, kept = base / "work", base / "gaps"
    if not kept.exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        prepare(work)
        ended = wait(start([*MISSING, "--out", "run", "--quiet"], work, work / "log", False), work / "log")
        assert ended.status == 0, ended.text
        shutil.copytree(work, kept)
    return kept


def share(stack: ExitStack, run: Path) -> str:
    """The address of a server that shares a run as `me/run`, until the stack closes."""
    server = stack.enter_context(serving())
    names = [path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")]
    server.repositories["me/run"] = {str(path.relative_to(run)): path.read_bytes() for path in names}
    return server.url


def main() -> int:
    """Run the storm, print what was found, and return 1 if anything does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", "--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="recipes and commands with one of these in their name, ; between")
    parser.add_argument("--starts", type=int, default=0, help="new interpreters that get Ctrl-C as they start")
    options = parser.parse_args()
    only = options.only.split(";")
    names = [name for name in [*(3 * QUICK), *RECIPES, *COMMANDS] if any(part in name for part in only)]
    storm = Storm()
    if "PYTHONPATH" in os.environ:  # commands run in other folders
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))
    with tempfile.TemporaryDirectory(prefix="latentia-storm-") as place, ExitStack() as stack:
        base = Path(place).resolve()
        if options.runs:
            prepare(base)
            preload(base)
        references: dict[str, tuple[dict[str, Any], float]] = {}
        commands: dict[str, tuple[dict[str, Any], float]] = {}
        for number in range(options.runs):
            name = names[number % len(names)]
            kind = "vae" if name in COMMANDS else name
            work = base / "work"  # one path, so that recipes are the same
            if kind not in references:
                shutil.rmtree(work, ignore_errors=True)
                work.mkdir()
                prepare(work)
                for _ in range(2):  # the second one shows how long it takes
                    shutil.rmtree(work / "run", ignore_errors=True)
                    (work / "log").write_text("")
                    began = time.monotonic()
                    words = [*RECIPES[kind], "--out", "run", "--quiet"]
                    ended = wait(start(words, work, work / "log", False), work / "log")
                    assert ended.status == 0, ended.text
                    seconds = time.monotonic() - began
                references[kind] = (result(work / "run"), seconds)
                if kind == "vae":
                    shutil.copytree(work, base / "trained", dirs_exist_ok=True)
                    os.environ["HF_ENDPOINT"] = share(stack, work / "run")
            if name in COMMANDS:
                source = base / "trained" if name != "impute" else trained_with_gaps(base)
                rng = random.Random(f"{name} {options.seed} {number}")
                if name not in commands:
                    begin_again(work, source)
                    began = time.monotonic()
                    ended = wait(start(COMMANDS[name], work, work / "log", name not in AGAIN), work / "log")
                    assert ended.status == 0, f"{name}: {ended.text}"
                    commands[name] = result(work), 1.1 * (time.monotonic() - began)
                begin_again(work, source)
                one_command(storm, name, work, *commands[name], rng)
            else:
                shutil.rmtree(work / "run", ignore_errors=True)
                rng = random.Random(f"{name} {options.seed} {number}")
                if not (work / "images").exists():
                    prepare(work)
                one_run(storm, name, work, *references[kind], rng)
            storm.counts["runs"] += 1
            if number % 20 == 19:
                print(f"{number + 1} runs, {len(storm.faults)} faults", flush=True)
        for number in range(options.starts):
            one_start(storm, base, random.Random(f"start {options.seed} {number}"))
    for kind, count in storm.counts.items():
        print(f"{kind:40}{count:6}")
    print(f"{'faults':40}{len(storm.faults):6}")
    return int(bool(storm.faults))


if __name__ == "__main__":
    sys.exit(main())
