"""Push and pull against a stand-in of the Hub, with the real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import latentia
from latentia.errors import RunError
from latentia.recipes import Run
from latentia.sharing import pull, push
from latentia.sharing.hub import model_card
from latentia.training import RunDirectory

from .hub_server import HubServer, serving

pytest.importorskip("huggingface_hub")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return latentia.train(
        latentia.VAERecipe(
            data={"type": "digits", "binarize": "dynamic"}, epochs=1, network={"type": "mlp", "hidden": [8]}
        ),
        tmp_path_factory.mktemp("runs") / "vae",
        quiet=True,
    )


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving() as server:
        yield server


def test_what_is_pulled_is_what_was_pushed(run: Run, hub: HubServer, tmp_path: Path) -> None:
    address = push(run.path, "me/vae", token="secret", endpoint=hub.url)
    assert address == f"{hub.url}/me/vae"
    assert not any("checkpoint" in name for name in hub.repositories["me/vae"])
    path = pull("hf://me/vae", tmp_path / "got", endpoint=hub.url)
    x = run.test.x[:5]
    with torch.no_grad():
        torch.manual_seed(0)
        expected = run.model.elbo(x)
        torch.manual_seed(0)
        assert torch.equal(latentia.load(path).elbo(x), expected)
    assert Run(path).estimates == run.estimates


def test_a_pulled_run_is_cached(run: Run, hub: HubServer) -> None:
    push(run.path, "me/vae", token="secret", endpoint=hub.url)
    path = pull("me/vae", endpoint=hub.url)
    assert Run(path).status == "ended"
    assert torch.equal(Run(path).model.prior.mean, run.model.prior.mean)


def test_pushing_again_replaces_what_is_gone(run: Run, hub: HubServer) -> None:
    push(run.path, "me/vae", token="secret", endpoint=hub.url)
    hub.repositories["me/vae"]["evaluation/old.json"] = b"[]"
    hub.repositories["me/vae"]["notes.txt"] = b"mine"
    push(run.path, "me/vae", token="secret", endpoint=hub.url)
    assert "evaluation/old.json" not in hub.repositories["me/vae"]
    assert "notes.txt" in hub.repositories["me/vae"]


def test_code_and_pickles_of_a_repository_are_not_fetched(run: Run, hub: HubServer, tmp_path: Path) -> None:
    push(run.path, "me/vae", token="secret", endpoint=hub.url)
    hub.repositories["me/vae"] |= {"model.pkl": b"x", "setup.py": b"x", "figures/a.svg": b"x", "checkpoints/a.pt": b"x"}
    path = pull("me/vae", tmp_path / "got", endpoint=hub.url)
    assert {file.suffix for file in path.rglob("*") if file.is_file() and ".cache" not in file.parts} <= {
        ".yaml",
        ".json",
        ".jsonl",
        ".safetensors",
        ".png",
    }


def test_damaged_weights_are_refused_when_they_are_read(run: Run, hub: HubServer, tmp_path: Path) -> None:
    push(run.path, "me/vae", token="secret", endpoint=hub.url)
    weights = hub.repositories["me/vae"]["weights.safetensors"]
    hub.repositories["me/vae"]["weights.safetensors"] = weights[:-4] + b"\0\1\0\1"
    with pytest.raises(RunError, match="weights"):
        latentia.load(pull("me/vae", tmp_path / "got", endpoint=hub.url))


@pytest.mark.parametrize("name", ["vae", "a b/c", "a/b/c", "", "../x/y", "me/-x-"])
def test_names_that_are_none(run: Run, name: str) -> None:
    with pytest.raises(RunError, match="user/name"):
        pull(name)
    with pytest.raises(RunError, match="user/name"):
        push(run.path, name)


def test_refusals(run: Run, hub: HubServer, tmp_path: Path) -> None:
    hub.repositories["me/other"] = {"model.pkl": b"x"}
    with pytest.raises(RunError, match="another name"):
        push(run.path, "me/other", token="secret", endpoint=hub.url)
    with pytest.raises(RunError, match="holds no run"):
        pull("me/other", endpoint=hub.url)
    with pytest.raises(RunError, match="hf auth login"):
        pull("me/none", endpoint=hub.url)
    hub.read_only = True
    with pytest.raises(RunError, match="hf auth login"):
        push(run.path, "me/new", token="secret", endpoint=hub.url)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(RunError, match="--out"):
        pull("me/other", tmp_path / "full", endpoint=hub.url)


def test_no_network(run: Run, tmp_path: Path) -> None:
    nowhere = "http://127.0.0.1:9"
    with pytest.raises(RunError, match=r"would be sent to me/vae, and nothing was sent"):
        push(run.path, "me/vae", token="secret", endpoint=nowhere)
    with pytest.raises(RunError, match=r"would be fetched, and none was"):
        pull("me/vae", tmp_path / "got", endpoint=nowhere)


def test_a_run_that_has_not_ended(tmp_path: Path) -> None:
    with pytest.raises(RunError):
        push(tmp_path, "me/vae")


def test_the_card_states_every_estimate_with_its_kind(run: Run) -> None:
    card = model_card(RunDirectory(run.path), "me/<b>")
    for estimate in run.estimates:
        assert f"| {estimate.name} | " in card
        assert f"| {estimate.kind} |" in card
    assert "<b>" not in card.replace('load("hf://me/<b>")', "")
    assert card.startswith("---\nlibrary_name: latentia\n")
