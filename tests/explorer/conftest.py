from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentia.data import Digits, Moons
from latentia.explorer.build import write_explorer
from latentia.models.flow import Flow
from latentia.networks import MLP
from latentia.recipes import GANRecipe, Recipe, Run, VAERecipe, train
from latentia.training import Adam

PAGE = Path(__file__).resolve().parents[2] / "src/latentia/explorer/page"


@pytest.fixture(scope="session")
def vae_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Digits with z ∈ R²; its name would be a script if it were not escaped."""
    path = tmp_path_factory.mktemp("runs") / "<script>alert(1)<"
    recipe = VAERecipe(
        data=Digits(binarize="dynamic"), network=MLP(hidden=(64, 64)), optimizer=Adam(lr=3e-3), epochs=15, batch_size=64
    )
    return train(recipe, path, quiet=True)


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Moons by a flow, with two snapshots."""
    path = tmp_path_factory.mktemp("runs") / "moons"
    recipe = GANRecipe(
        data=Moons(),
        latent=2,
        network=Flow(transforms=1, hidden=(16,)),
        discriminator=MLP(hidden=(32,)),
        epochs=2,
        steps_per_epoch=30,
        snapshots=(1, 2),
        fresh_steps=0,
    )
    return train(recipe, path, quiet=True)


@pytest.fixture(scope="session")
def gan_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A GAN on digits, conditional on the class, with a snapshot."""
    path = tmp_path_factory.mktemp("runs") / "digits-gan"
    recipe = GANRecipe(
        data=Digits(), latent=8, network=MLP(hidden=(32,)), conditional=True, epochs=2, snapshots=(1,), fresh_steps=0
    )
    return train(recipe, path, quiet=True)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory, vae_run: Run, toy_run: Run, gan_run: Run) -> Path:
    """The page of all three."""
    return write_explorer([vae_run, toy_run, gan_run], tmp_path_factory.mktemp("page") / "explorer.html").path


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A class-conditional VAE, with its own prior for each class, VAEs on the sphere and over codes, two hybrids."""
    path, small = tmp_path_factory.mktemp("kinds"), {"type": "mlp", "hidden": [32]}
    binary = {"type": "digits", "binarize": "dynamic"}
    vae = {"data": binary, "network": small, "epochs": 6, "optimizer": {"type": "adam", "lr": 3e-3}}
    recipes = {
        "labeled": {**vae, "type": "conditional-vae", "latent": 2, "conditional_prior": True},
        "sphere": {**vae, "type": "vae", "latent": 3, "posterior": "von-mises-fisher", "prior": "sphere"},
        "codes": {
            **vae,
            "type": "vae",
            "latent": 6,
            "posterior": {"type": "categorical", "variables": 2},
            "prior": {"type": "categorical", "variables": 2, "learned": True},
            "objective": {"type": "elbo", "gradient": "enumerated"},
        },
        "bigan": {"type": "bigan", "latent": 2, "data": "digits", "epochs": 1},
        "vae-gan": {"type": "vae-gan", "latent": 3, "data": "digits", "epochs": 1},
    }
    return {name: train(Recipe.parse(recipe), path / name, quiet=True) for name, recipe in recipes.items()}


@pytest.fixture(scope="session")
def page_of_kinds(tmp_path_factory: pytest.TempPathFactory, kinds: dict[str, Run]) -> Path:
    """The page of `kinds`."""
    return write_explorer(list(kinds.values()), tmp_path_factory.mktemp("page") / "kinds.html").path


@pytest.fixture(scope="session")
def node() -> Callable[..., Any]:
    """Run a module of JavaScript that prints JSON, with the page's modules under `page` and an input."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("the page's mathematics is tested in Node, which is not installed: install node 18 or newer")

    def run(script: str, **given: Any) -> Any:
        names = re.findall(r"(\w+)\.mjs", script)
        source = script.replace("page/", f"{PAGE.as_uri()}/") + "\nconsole.log(JSON.stringify(result));"
        source = f"const given = {json.dumps(given)};\n{source}"
        assert names
        done = subprocess.run(
            [program, "--input-type=module", "-"],
            input=source,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def content_of(page: Path) -> dict[str, Any]:
    """The JSON of a page."""
    found = re.search(r'id="content">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return json.loads(found.group(1))


def array_of(page: Path, reference: dict[str, Any]) -> np.ndarray:
    """An array of a page's payload, read by numpy."""
    found = re.search(r'id="payload">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    raw = zlib.decompress(base64.b64decode(found.group(1)))[reference["offset"] :][: reference["bytes"]]
    if reference["encoding"] == "bits":
        count = int(np.prod(reference["shape"]))
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")[:count]
        return bits.reshape(reference["shape"])
    return np.frombuffer(raw, reference["encoding"]).reshape(reference["shape"])


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright; the tests are skipped, aloud, where either is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need playwright: pip install 'latentia[test]'"
    )
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with playwright.sync_playwright() as driver:
        try:
            opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"browser tests need Chromium: install it, or run `playwright install chromium` ({error})")
        yield opened
        opened.close()
