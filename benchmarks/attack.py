"""Attack latentia's answers with random hard models whose answers are known, and count those outside their errors.

    python benchmarks/attack.py -n 1000 [--classes ridge,needle] [--seed 0] [--seconds 5] [--json FILE]
    python benchmarks/attack.py -n 10000 --minutes 90  as many of 10 000 as 90 minutes allow
    python benchmarks/attack.py --only ridge:17        one model, every answer of it

Models are spread evenly over the classes; the model CLASS:SEED is always the same. An answer is

    inside      within its claim of the truth, and the claim met the tolerance that was asked for
    loose       within its claim, but the claim is larger than what was asked for
    outside     further from the truth than it claims; `worst` is the largest ratio of the two
    refused     latentia said in its own words that it cannot serve
    crashed     an error in others' words
    too slow    past three times the seconds allowed

and a model counts as its worst answer. Seconds are of processor time, so a loaded machine, or a pause, changes no
answer. `unneeded` counts refused and loose ones of models that can be served. Ctrl-C
prints the table of what has been done. A model takes 0.2 s in the median on a quiet core (steps and
ridges take seconds), so 10 000 take some 90 minutes; `--minutes` bounds the whole.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import statistics
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

import torch

import attack_measures  # noqa: F401  (these three fill the register of classes)
import attack_models  # noqa: F401
import attack_proofs  # noqa: F401
from attack_case import CLASSES, Answer, LatentiaError, make

VERDICTS = ("inside", "loose", "outside", "refused", "crashed", "too slow")
KINDS = ("exact", "proven", "numerical", "lower bound", "unexplained", "random")


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        name: its class.
        seed: with the class, what makes it.
        verdict: see the module.
        about: the model in a few words.
        seconds: that latentia took.
        serve: whether a refusal is unneeded.
        answers: all of them.
        message: of an error.
    """

    name: str
    seed: int
    verdict: str
    about: str
    seconds: float
    serve: bool
    answers: list[Answer] = field(default_factory=list)
    message: str = ""

    @property
    def worst(self) -> Answer | None:
        """The answer furthest from the truth in terms of its claim."""
        return max(self.answers, key=lambda answer: answer.factor, default=None)

    def line(self) -> str:
        """The outcome in one line."""
        text = f"{self.verdict:9} {self.name}:{self.seed}  {self.about}  {self.seconds:.2f} s"
        if self.verdict == "outside" and self.worst is not None:
            text += f"  {describe(self.worst)}"
        return text + (f"  {self.message[:160]}" if self.message else "")


def describe(answer: Answer) -> str:
    """An answer beside the truth."""
    value = "refused" if answer.value is None else f"{answer.value:.8g} ± {answer.claimed:.2g}"
    truth = f"{answer.low:.8g}" if answer.high - answer.low <= 1e-6 * (1 + abs(answer.low)) else ""
    truth = truth or f"[{answer.low:.8g}, {answer.high:.8g}]"
    return f"{answer.label}: {value} [{answer.kind}], truth {truth}, {answer.factor:.3g} times the claim"


class TooSlow(BaseException):
    """Past the limit; no handler of ordinary errors may catch it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` after so many seconds of processor time, in which latentia's own limits are measured too.

    So a loaded machine, or a pause, changes no answer.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise TooSlow

    before, wall = signal.signal(signal.SIGPROF, stop), time.monotonic
    time.monotonic = time.process_time
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        time.monotonic = wall


def run(name: str, seed: int, seconds: float) -> Outcome:
    """Make a model, ask latentia, and compare."""
    case = make(name, seed)
    begin = time.process_time()
    outcome = Outcome(name, seed, "inside", case.about, 0.0, case.serve)
    try:
        with limit(3 * seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome.answers = case.ask(seconds)
    except TooSlow:
        outcome.verdict = "too slow"
    except LatentiaError as error:
        outcome.verdict, outcome.message = "refused", " ".join(str(error).split())
    except Exception as error:
        outcome.verdict, outcome.message = "crashed", " ".join(f"{type(error).__name__}: {error}".split())
    outcome.seconds = time.process_time() - begin
    if outcome.verdict == "inside":
        outcome.verdict = verdict(outcome.answers)
    return outcome


def verdict(answers: list[Answer]) -> str:
    """The worst of the answers."""
    if any(answer.factor > 1 for answer in answers):
        return "outside"
    if not answers or all(answer.value is None for answer in answers):
        return "refused"
    if any(answer.value is None or answer.claimed > answer.wanted for answer in answers):
        return "loose"
    return "inside"


def table(outcomes: list[Outcome]) -> str:
    """Counts by class; answers by kind, with those outside after the slash."""
    by_class: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_class[outcome.name].append(outcome)
    by_class["all"] = outcomes
    head = f"{'class':20}" + "".join(f"{word:>9}" for word in ("models", *VERDICTS, "unneeded", "worst", "median s"))
    lines = [head + "".join(f"{kind:>13}" for kind in KINDS)]
    for name, group in by_class.items():
        if not group:
            continue
        counts = [sum(o.verdict == word for o in group) for word in VERDICTS]
        unneeded = sum(o.serve and o.verdict in ("refused", "loose") for o in group)
        worst = max((o.worst.factor for o in group if o.worst is not None), default=0.0)
        cells = [len(group), *counts, unneeded]
        line = f"{name:20}" + "".join(f"{count or '·':>9}" for count in cells)
        line += f"{worst:9.3g}{statistics.median(o.seconds for o in group):9.2f}"
        for kind in KINDS:
            mine = [a for o in group for a in o.answers if a.kind == kind and a.value is not None]
            line += f"{f'{len(mine)}/{sum(a.factor > 1 for a in mine)}' if mine else '·':>13}"
        lines.append(line)
    return "\n".join(lines)


def to_json(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """One object for each model."""
    return [
        {
            **{key: getattr(o, key) for key in ("name", "seed", "verdict", "about", "seconds", "serve", "message")},
            "worst": None if o.worst is None else describe(o.worst),
            "factor": None if o.worst is None or math.isinf(o.worst.factor) else o.worst.factor,
        }
        for o in outcomes
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=200, help="models in all, spread evenly over the classes")
    parser.add_argument("--classes", default=",".join(CLASSES), help="names with commas between them")
    parser.add_argument("--seed", type=int, default=0, help="of the first model of each class")
    parser.add_argument("--seconds", type=float, default=5.0, help="allowed for each model")
    parser.add_argument("--minutes", type=float, default=math.inf, help="allowed for the whole attack")
    parser.add_argument("--only", help="CLASS:SEED, one model with all its answers")
    parser.add_argument("--json", help="write every outcome to this file too")
    arguments = parser.parse_args()
    if arguments.only:
        name, _, seed = arguments.only.partition(":")
        if name not in CLASSES or not seed.isdigit():
            parser.error(f"--only takes CLASS:SEED; the classes are {', '.join(CLASSES)}")
        outcome = run(name, int(seed), arguments.seconds)
        print(outcome.line())
        print("\n".join(f"  {describe(answer)}" for answer in outcome.answers))
        return int(outcome.verdict in ("outside", "crashed"))
    names = arguments.classes.split(",")
    unknown = [name for name in names if name not in CLASSES]
    if unknown:
        parser.error(f"unknown classes {', '.join(unknown)}; the classes are {', '.join(CLASSES)}")
    jobs = [(names[i % len(names)], arguments.seed + i // len(names)) for i in range(arguments.n)]
    outcomes: list[Outcome] = []
    shown, begin = 0.0, time.monotonic()
    try:
        for name, seed in jobs:
            if time.monotonic() - begin > 60 * arguments.minutes:
                print(f"\nstopped after {len(outcomes)} of {len(jobs)} models", file=sys.stderr)
                break
            if sys.stderr.isatty() or time.monotonic() - shown > 10:
                print(f"\r{len(outcomes)}/{len(jobs)} {name}:{seed} ".ljust(60), end="", file=sys.stderr, flush=True)
                shown = time.monotonic()
            outcomes.append(run(name, seed, arguments.seconds))
            if outcomes[-1].verdict in ("outside", "crashed", "too slow"):
                print(outcomes[-1].line(), flush=True)
    except KeyboardInterrupt:
        print(f"\nstopped after {len(outcomes)} of {len(jobs)} models", file=sys.stderr)
    print("", file=sys.stderr)
    print(f"{len(outcomes)} models, {arguments.seconds} s each, {torch.get_num_threads()} threads")
    print(table(outcomes))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(to_json(outcomes), file, indent=1)
    return int(any(outcome.verdict in ("outside", "crashed") for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
