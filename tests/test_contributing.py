"""The code of CONTRIBUTING works as written: each block is run, and a small model is trained with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BLOCKS = re.compile(r"```python\n(.*?)```", re.DOTALL)
IMPORTS = """
from __future__ import annotations
import math
from pathlib import Path
from typing import Any, ClassVar
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Cauchy, Distribution, Independent, Laplace, StudentT
from latentia.data.source import Parts, Source
from latentia.data.split import Split
from latentia.distributions import Conditional, Likelihood, Posterior, Prior
from latentia.errors import DataError
from latentia.networks import Network
"""
TRAINING = """
import sys
import torch
import latentia
from latentia.likelihood import evaluate_gaps
from latentia.metrics import score
from latentia.recipes import Recipe
folder = sys.argv[1]
recipe = latentia.VAERecipe.parse({
    "data": {"type": "noise", "binarize": "threshold", "count": 60}, "network": "linear", "epochs": 1, "batch_size": 16,
    "objective": {"type": "tempered", "temperature": 0.5}})
print(sorted(e.name for e in latentia.train(recipe, folder + "/tempered", quiet=True).estimates))
prior = latentia.VAERecipe.parse({
    "data": {"type": "noise", "binarize": "threshold", "count": 60}, "network": "linear", "epochs": 1, "batch_size": 16,
    "prior": "student", "objective": {"type": "elbo", "kl": "monte-carlo"}})
latentia.train(prior, folder + "/student", quiet=True)
torch.manual_seed(0)
laplace = latentia.VAERecipe.parse({
    "data": torch.randn(300, 4), "network": "linear", "epochs": 2, "batch_size": 16,
    "posterior": "laplace", "likelihood": "cauchy", "objective": {"type": "elbo", "kl": "monte-carlo"}})
run = latentia.train(laplace, folder + "/laplace", quiet=True)
gaps = evaluate_gaps(run.model, run.test.x[:3], 0.01)
print({e.name for e in gaps.estimates()} >= {"approximation_gap"} and bool((gaps.approximation > -0.1).all()))
hybrid = Recipe.parse({"type": "latent-regression", "data": {"type": "noise", "count": 60}, "network": "linear",
    "discriminator": "linear", "epochs": 1, "batch_size": 16})
print(sorted(e.name for e in latentia.train(hybrid, folder + "/hybrid", quiet=True).estimates))
images = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
print([e.name for e in score(images, images, metrics=["mean-shift"], features="pixels")])
"""


def test_code_of_contributing_runs_as_written(tmp_path):
    blocks = BLOCKS.findall((Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    names = [f"block_{number}" for number in range(len(blocks))]
    for name, block in zip(names, blocks, strict=True):
        code = block if "from __future__" in block else IMPORTS + block
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    (tmp_path / "main.py").write_text("\n".join(f"import {name}" for name in names) + TRAINING, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, str(tmp_path / "main.py"), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    trained, gaps, hybrid, scored = found.stdout.splitlines()
    assert "test/elbo" in trained
    assert gaps == "True"
    assert hybrid == "['test/reconstruction_error']"
    assert scored == "['mean_shift', 'mean_shift/real_vs_real']"
