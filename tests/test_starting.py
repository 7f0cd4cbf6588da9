"""Starting is quick: `import latentia` imports nothing heavy and takes less than 0.3 s of CPU time in all. Opening a
run or choosing what to train imports torch, but nothing else that takes as long as torch."""

from __future__ import annotations

import resource
import subprocess
import sys


def cpu_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_import_latentia_imports_nothing_heavy() -> None:
    heavy = {"torch", "numpy", "scipy", "pydantic", "matplotlib", "typer"}
    code = f"import sys, latentia; found = {heavy!r} & set(sys.modules); assert not found, found"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_takes_little_cpu_time() -> None:
    """CPU time of the whole process, the least of three; a bare interpreter's is a tenth of the bound."""
    assert min(cpu_seconds("import latentia") for _ in range(3)) < 0.3


SLOW = {
    "torch._dynamo",  # only training imports it
    "torchmetrics",
    "scipy.optimize",
    "scipy.signal",
    "scipy.stats",
    "sklearn",
    "pandas",
    "sympy",
    "matplotlib",
    "tensorboard",
    "datasets",
}
STEPS = [
    "from latentia import VAE, GAN",
    "import latentia.data, latentia.objectives, latentia.divergences",
    "import latentia.likelihood, latentia.metrics",
    "from latentia import VAERecipe, GANRecipe, load, train, train_seeds",
    "VAERecipe(), GANRecipe()",
    "import latentia; latentia.objectives.IWAE, latentia.evaluate, latentia.compare, latentia.distance",
    "from latentia.reports.tables import print_run, estimates_table",
    "from latentia.cli import app; app(['train', 'vae', '--keys'], standalone_mode=False)",
]


def test_slow_modules_are_imported_where_they_are_used() -> None:
    """Each of these in turn, in one process: none imports a slow module that torch has not imported already."""
    code = f"""
import sys, torch
slow = {SLOW!r} - set(sys.modules)
for step in {STEPS!r}:
    exec(step)
    found = slow & set(sys.modules)
    assert not found, f"{{step}} imports {{found}}"
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_parts_of_scipy_are_imported_on_first_use() -> None:
    """In a new process: in this one, other tests have imported them already."""
    code = """
import sys, torch
from latentia.divergences import empirical, wasserstein

assert not {"scipy.stats", "scipy.optimize"} & set(sys.modules)
x = torch.tensor([0.0, 2.0])
assert empirical.assignment(x, x + 1).value == 1
assert abs(empirical.assignment(x, torch.tensor([1.0])).value - 1) < 1e-9
p, q = torch.distributions.Normal(0.0, 1.0), torch.distributions.Laplace(1.0, 1.0)
assert wasserstein.quadrature(p, q).value > 1  # the distance of the means
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_torch_knows_full_against_diagonal_gaussians_without_our_divergences() -> None:
    code = """
import sys, torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from latentia.distributions import Full

assert "latentia.divergences" not in sys.modules
diagonal = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
assert kl_divergence(MultivariateNormal(torch.zeros(2), torch.eye(2)), diagonal).item() == 0
"""
    subprocess.run([sys.executable, "-c", code], check=True)
