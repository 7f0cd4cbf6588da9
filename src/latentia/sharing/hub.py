"""Share a run on the Hugging Face Hub: push its files with a model card, and pull a run that someone has shared.

What is shared is text, pictures and safetensors: the recipe, the environment, the records, the estimates, the pictures
and the weights. Checkpoints stay at home. What is fetched is limited to the same names, so that no code and no pickle
of a repository ever reaches the disk.
"""

from __future__ import annotations

__all__ = ["pull", "push"]

import errno
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from latentia.errors import RunError, first_line
from latentia.estimate import Estimate
from latentia.files import atomic_write
from latentia.training import RunDirectory

T = TypeVar("T")
DISK_FAULTS = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)

SHARED = (
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "weights.safetensors",
    "evaluation/*.json",
    "figures/*.png",
)
CARD = "README.md"


def push(
    path: Path | str, name: str, *, private: bool = False, token: str | None = None, endpoint: str | None = None
) -> str:
    """Upload a finished run with a model card, in one commit.

    Args:
        path: the run directory.
        name: of the repository on the Hub, `user/name`; made if it is not there.
        private: whether a new repository is visible to its owner alone.
        token: of the Hub; the one that `hf auth login` stored by default.
        endpoint: of another Hub; the public one, or the one that HF_ENDPOINT names, by default.

    Returns:
        The address of the repository.

    Raises:
        RunError: a run that has not ended, a repository that holds something else, no network, or no right to write.
    """
    hub = _hub()
    from huggingface_hub.errors import RepositoryNotFoundError

    directory = RunDirectory(path)
    directory.recipe()
    directory.weights()  # refuses a run that has not ended, or whose weights are damaged
    files = shared_files(directory.path)
    size = sum(file.stat().st_size for file in files)
    what = f"{len(files)} files of {directory.path} ({size / 1e6:.1f} MB)"
    _check_name(name)

    def upload() -> str:
        api = hub.HfApi(endpoint=endpoint, token=token)
        try:
            others = _files(api, name) - {CARD, ".gitattributes"}
        except RepositoryNotFoundError:
            api.create_repo(name, private=private, repo_type="model")
            others = set()
        if others and "recipe.yaml" not in others:
            raise RunError(f"{name} holds files that are not a run ({min(others)}); give another name")
        with tempfile.TemporaryDirectory() as folder:
            card = Path(folder) / CARD
            card.write_text(model_card(directory, name), encoding="utf-8", errors="replace")
            operations = [
                hub.CommitOperationAdd(str(file.relative_to(directory.path)), str(file)) for file in files
            ] + [hub.CommitOperationAdd(CARD, str(card))]
            stale = [file for file in others if file not in {operation.path_in_repo for operation in operations}]
            operations += [hub.CommitOperationDelete(file) for file in stale if _is_shared(file)]
            api.create_commit(name, operations, commit_message="Share a run of latentia")
        return f"{api.endpoint}/{name}"

    return _call(upload, f"{what} would be sent to {name}, and nothing was sent", name)


def pull(
    name: str,
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """Fetch a shared run.

    Args:
        name: `user/name`, with or without `hf://` before it.
        out: the run directory to make; the cache of huggingface_hub by default.
        revision: a commit, branch or tag.
        token: of the Hub, for private repositories.
        endpoint: as for `push`.

    Returns:
        The run directory.

    Raises:
        RunError: a repository that is not there or holds no run, no network, or a folder that holds something.
    """
    hub = _hub()
    name = name.removeprefix("hf://")
    _check_name(name)
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise RunError(f"{out} is there already; give another --out")

    def download(folder: Path | None) -> str:
        api = hub.HfApi(endpoint=endpoint, token=token)
        there = _files(api, name, revision)
        if not {"recipe.yaml", "environment.json", "weights.safetensors"} <= there:
            raise RunError(f"{name} holds no run of latentia: it lacks recipe.yaml, environment.json or weights")
        options = {} if folder is None else {"local_dir": str(folder)}
        return api.snapshot_download(name, revision=revision, allow_patterns=list(SHARED), **options)

    doing = f"the files of {name} would be fetched, and none was"
    if out is None:
        return Path(_call(lambda: download(None), doing, name))
    with atomic_write(out) as temporary:
        _call(lambda: download(temporary), doing, name)
        shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's own notes
    return Path(out)


def shared_files(path: Path) -> list[Path]:
    """The files of a run directory that are shared, without hidden ones."""
    found = [file for pattern in SHARED for file in sorted(path.glob(pattern))]
    return [file for file in found if not file.name.startswith(".") and file.is_file()]


def _files(api: Any, name: str, revision: str | None = None) -> set[str]:
    """The names of a repository's files, asked for once: the client asks six times where it lists the tree."""
    return {sibling.rfilename for sibling in api.model_info(name, revision=revision).siblings or ()}


def _is_shared(name: str) -> bool:
    return any(Path(name).match(pattern) for pattern in SHARED)


def model_card(directory: RunDirectory, name: str) -> str:
    """A model card: what was trained, on what, the estimates with their errors, and how to load the run.

    Args:
        directory: the run.
        name: of the repository.
    """
    recipe, about = directory.recipe(), directory.environment()
    data = recipe.get("data")
    data = data.get("type", "") if isinstance(data, dict) else data
    lines = [
        "---",
        "library_name: latentia",
        f"tags: [latentia, {recipe.get('type', 'model')}]",
        "---",
        f"# {_plain(name)}",
        "",
        f"A `{_plain(recipe.get('type'))}` that latentia "
        f"{_plain(about.get('latentia'))} trained on `{_plain(data)}`, "
        f"examples of shape {tuple(about['shape'])}, with {about['parameters']:,} parameters.",
        "",
        "```python",
        "import latentia",
        "",
        f'model = latentia.load("hf://{name}")',
        "```",
        "",
        "Loading reads YAML, JSON and safetensors. No code is run.",
    ]
    for file, estimates in directory.evaluations().items():
        lines += ["", f"## {_plain(file)}", "", "| | value | kind | method |", "|---|---|---|---|"]
        lines += [_row(estimate) for estimate in estimates]
    lines += ["", "## Limits", ""]
    lines += [
        "Each value above holds for the data named and for these weights. A bound is not the log-likelihood, and an "
        "estimate has the standard error that stands after ±.",
    ]
    figures = sorted(directory.figures.glob("*.png"))[:6]
    if figures:
        lines += ["", "## Pictures", ""] + [f"![{_plain(file.stem)}](figures/{file.name})" for file in figures]
    return "\n".join([*lines, ""])


def _row(estimate: Estimate) -> str:
    return f"| {_plain(estimate.name)} | {_plain(str(estimate))} | {estimate.kind} | {_plain(estimate.method)} |"


def _plain(text: Any) -> str:
    """Text that Markdown and HTML show as it is."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "|[]`*" else letter for letter in " ".join(escaped.split()))


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise RunError(
            "sharing needs the package huggingface_hub; install it with pip install 'latentia[hub]'"
        ) from None
    return huggingface_hub


def _check_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        sound = name.count("/") == 1
    except HFValidationError:
        sound = False
    if not sound:
        raise RunError(f"{name!r} is not the name of a repository; give user/name")


def _call(action: Callable[[], T], what: str, name: str) -> T:
    """Run an action of the Hub's client; its errors become one line with the cure."""
    from huggingface_hub import errors

    try:
        return action()
    except RunError:
        raise
    except errors.RepositoryNotFoundError:
        text = f"{name} is not on the Hub, or you may not see it; check the name, or log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        text = f"{name} has no such revision; leave it out, or name a commit, branch or tag"
    except (errors.HfHubHTTPError, errors.LocalTokenNotFoundError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (None, 401, 403):
            text = (
                f"the Hub does not let you read or write {name}; log in with `hf auth login`, or give a name of yours"
            )
        else:
            text = f"the Hub answers {status} for {name} ({first_line(error)}): {what}; try again later"
    except OSError as error:
        if error.errno in DISK_FAULTS:  # of the files here, not of the network
            raise
        text = f"the Hub cannot be reached ({first_line(error)}): {what}; try again with a network"
    except Exception as error:
        client = type(error).__module__.split(".")[0].rstrip("2")  # the client's transport is httpx, or a fork of it
        if not isinstance(error, errors.OfflineModeIsEnabled) and client not in ("httpx", "requests"):
            raise
        text = f"the Hub cannot be reached ({first_line(error)}): {what}; try again with a network"
    raise RunError(text)
