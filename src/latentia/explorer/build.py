"""The explorer: one page about trained models that one can touch, made from runs. Nothing in it uses a network.

The page holds the scripts of `page/`, the models' weights and some data. It computes everything else: pictures of any
z, exact posteriors p(z|x) and log p(x) of any image, bounds. See docs/explorer.md.
"""

from __future__ import annotations

__all__ = ["ExplorerPage", "write_explorer"]

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from latentia.data import ToyDistribution
from latentia.errors import ConfigurationError, RunError, UnsupportedError
from latentia.explorer.gan_scenes import image_gan_scene, toy_scene
from latentia.explorer.payload import Encoding, Payload
from latentia.explorer.theory import saved_statements
from latentia.explorer.vae_scene import Scene, encoded_gan_scene, vae_scene
from latentia.files import atomic_write
from latentia.models import GAN, VAE, EncodedGAN
from latentia.recipes import Run

LARGEST = 4_000_000  # bytes of a page, unless more are allowed
# In the order in which they use each other. The mathematics runs in a worker as well, the rest with the page alone.
MATHEMATICS = ("numbers", "network", "model", "posterior", "gaps", "digits", "dirac", "toys", "enumeration", "engine")
VIEWS = ("drawing", "parts", "plane", "pad", "vae", "codes", "toy", "gan", "theory", "app")
HEIGHT = 860  # of the frame in a notebook, in pixels


@dataclass(frozen=True)
class ExplorerPage:
    """A page that was written; a notebook shows it in place.

    Attributes:
        path: of the HTML file.
        notes: what the page leaves out or shows in another form, run by run.
    """

    path: Path
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        page = escape(self.path.read_text(encoding="utf-8"), quote=True)
        return (
            f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:{HEIGHT}px;border:0" '
            f'title="explorer of {escape(str(self.path))}"></iframe>'
        )


def write_explorer(runs: Sequence[Run], path: Path, *, weights: str = "auto", max_bytes: int = LARGEST) -> ExplorerPage:
    """Write the page of some runs, atomically.

    Args:
        runs: finished runs of VAEs and GANs; each is a tab.
        path: of the page.
        weights: `float16`, `int8`, or `auto`: the first unless the page would then be too large.
        max_bytes: the largest size of the page.

    Raises:
        ConfigurationError: an unknown encoding, or a page above the size.
        RunError: a run that has not ended, or one that cannot be shown.
    """
    if weights not in ("auto", "float16", "int8"):
        raise ConfigurationError([("--weights", f"{weights!r} is not known. Known: auto, float16, int8.")])
    choices: tuple[Encoding, ...] = ("float16", "int8") if weights == "auto" else (weights,)  # pyright: ignore
    page, notes, size = "", (), 0
    for encoding in choices:
        page, notes = _page(runs, encoding)
        size = len(page.encode("utf-8"))
        if size <= max_bytes:
            break
    else:
        smaller = "" if "int8" in choices else " --weights int8 halves the weights;"
        raise ConfigurationError(
            [
                (
                    "--max-bytes",
                    f"the page has {size:,} bytes and {max_bytes:,} are allowed;{smaller} give fewer runs, or "
                    f"allow --max-bytes {size} (in Python max_bytes={size})",
                )
            ]
        )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="replace")  # a name may be no text
    return ExplorerPage(Path(path), notes)


def _page(runs: Sequence[Run], encoding: Encoding) -> tuple[str, tuple[str, ...]]:
    payload = Payload()
    scenes, notes, refused = [], [], []
    for run in runs:
        try:
            scene = _scene(run, payload, encoding)
        except RunError as error:
            if len(runs) == 1:
                raise
            refused.append(error)
            scene = Scene({"kind": "none"}, [f"{error}."])
        name = run.path.resolve().name
        scene.content |= {"name": name, "recipe": _about(run), "notes": scene.notes}
        scenes.append(scene.content)
        notes += [f"{name}: {note}" for note in scene.notes]
    if len(refused) == len(runs):
        raise refused[0]
    content = {"version": version("latentia"), "scenes": scenes, "theory": saved_statements()}
    template = _read("page.html")
    parts = {
        "title": escape(", ".join(scene["name"] for scene in scenes)),
        "style": _read("style.css"),
        "mathematics": "".join(map(_script, MATHEMATICS)),
        "views": "".join(map(_script, VIEWS)),
        "content": _json(content),
        "payload": payload.text(),
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: parts[match.group(1)], template), tuple(notes)


def _scene(run: Run, payload: Payload, encoding: Encoding) -> Scene:
    """The tab of a run.

    Raises:
        RunError: for a model that the page cannot show.
    """
    model = run.model
    try:
        if isinstance(model, VAE):
            return vae_scene(run, payload, encoding)
        if isinstance(model, EncodedGAN):
            return encoded_gan_scene(run, payload, encoding)
        if isinstance(model, GAN) and isinstance(run.recipe.data, ToyDistribution):
            return toy_scene(run, payload)
        if isinstance(model, GAN):
            return image_gan_scene(run, payload, encoding)
    except UnsupportedError as error:
        raise RunError(str(error)) from None
    raise RunError(
        f"{run.path} holds a {type(model).__name__}, which the explorer cannot show; give a run of a VAE or a "
        f"GAN, or use `latentia report {run.path}`"
    )


def _about(run: Run) -> dict[str, Any]:
    """Recipe, data, length and size of a run, for its heading."""
    environment = run.environment
    return {
        "kind": run.recipe.type_name,
        "data": run.recipe.data.type_name,
        "epochs": run.recipe.epochs,
        "parameters": environment.get("parameters"),
    }


def _read(name: str) -> str:
    return files("latentia.explorer").joinpath("page", name).read_text(encoding="utf-8")


def _script(name: str) -> str:
    """A module as a part of one classic script: without its imports, and with its exports as plain declarations."""
    source = _read(f"{name}.mjs")
    source = re.sub(r"^import \{[^}]*\} from \"[^\"]*\";\n", "", source, flags=re.MULTILINE)
    return re.sub(r"^export ", "", source, flags=re.MULTILINE)


def _json(content: Any) -> str:
    """JSON that can stand inside a script element, whatever names it holds."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e").replace("\u2028", "\\u2028")
