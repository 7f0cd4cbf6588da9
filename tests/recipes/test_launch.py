"""Processes started by `devices=2`, and by torchrun."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from latentia.errors import Interrupted, RunError
from latentia.recipes import Run, VAERecipe, train
from latentia.training import SGD
from latentia.training.checkpoint import find_checkpoints

from .pairs import pair, two

FIELDS = (
    "epochs=3, batch_size=64, record_every=7, checkpoint_every=0.1, posterior=Fixed(scale=1e-6), "
    "network=MLP(hidden=(32,)), data={'type': 'digits', 'binarize': 'threshold'}, optimizer=SGD(lr=0.01)"
)
PATIENCE = 120
HEAD = """
from latentia.distributions import Fixed
from latentia.networks import MLP
from latentia.recipes import VAERecipe, train
from latentia.training import SGD
"""


def recipe(**fields) -> VAERecipe:
    names: dict = {}
    exec(HEAD, names)
    return VAERecipe(**{**eval(f"dict({FIELDS})", names), **fields})


def run_script(folder, text, *before, **environment):
    """Run a script to its end, or end it with all that it has started."""
    (folder / "script.py").write_text(text)
    with open(folder / "out.txt", "w") as out, open(folder / "err.txt", "w") as err:
        process = subprocess.Popen(
            [*(before or (sys.executable,)), str(folder / "script.py")],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            code = process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, (folder / "out.txt").read_text(), (folder / "err.txt").read_text()


def close(a: Run, b: Run):
    for one, other in zip(a.records, b.records, strict=True):
        assert (one["step"], one["name"]) == (other["step"], other["name"])
        assert other["value"] == pytest.approx(one["value"], rel=1e-5, abs=1e-6)
    weights = a.directory.weights(), b.directory.weights()
    assert all(torch.allclose(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6) for name in weights[0])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train(recipe(), tmp_path_factory.mktemp("alone") / "run", quiet=True)


def test_sigterm_to_the_parent_of_two_saves_and_resumes(alone, tmp_path, capfd):
    """The caller sees what it would see of one process, and both processes are gone."""
    chosen = recipe(devices=2)
    torch.set_num_threads(1)

    def stop_after_a_while():
        while not any(int(p.name[5:]) >= 4 for p in find_checkpoints(tmp_path / "run" / "checkpoints")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    watcher = threading.Thread(target=stop_after_a_while, daemon=True)
    watcher.start()
    with pytest.raises(Interrupted, match=r"stopped after step \d+ of 60, saved in .*latentia resume"):
        train(chosen, tmp_path / "run", quiet=True)
    watcher.join()
    with pytest.raises(RunError, match="holds a run already"):
        train(chosen, tmp_path / "run", quiet=True)
    assert pair(two, chosen, tmp_path / "run", True) == [str(tmp_path / "run")] * 2  # forked, which is quicker
    run = Run(tmp_path / "run")
    assert run.environment["devices"] == 2
    close(alone, run)
    assert capfd.readouterr() == ("", "")


def test_torchrun(alone, tmp_path):
    """The same script serves one process and several; an error reaches the one who started it."""
    text = f"{HEAD}\ntrain(VAERecipe({FIELDS}), 'run', quiet=True)\n"
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    code, _, err = run_script(tmp_path, text, *torchrun)
    assert code == 0, err
    run = Run(tmp_path / "run")
    assert run.environment["devices"] == 2
    close(alone, run)


@pytest.mark.slow
def test_a_script_without_a_guard(alone, tmp_path):
    """It needs none, as long as the recipe names nothing that the script defines."""
    code, _, err = run_script(tmp_path, f"{HEAD}\ntrain(VAERecipe({FIELDS}, devices=2), 'run', quiet=True)\n")
    assert code == 0, err
    close(alone, Run(tmp_path / "run"))


OWN = f"""{HEAD}
from torch import nn
from latentia.networks import Custom

class Decoder(nn.Sequential):
    def forward(self, z):
        return super().forward(z).view(-1, 1, 8, 8)

def go():
    custom = Custom(encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), decoder=Decoder(nn.Linear(2, 64)))
    run = train(VAERecipe(epochs=1, batch_size=64, network=custom, devices=2), 'run', quiet=True)
    print(run.model.sample(3).shape)

"""


@pytest.mark.slow
def test_a_script_with_its_own_classes_needs_a_guard(tmp_path):
    code, _, err = run_script(tmp_path, OWN + "go()\n")
    assert code != 0
    assert 'put the call under `if __name__ == "__main__":`' in err.splitlines()[-1]
    code, out, err = run_script(tmp_path, OWN + 'if __name__ == "__main__":\n    go()\n')
    assert code == 0, err
    assert "torch.Size([3, 1, 8, 8])" in out


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised_here(tmp_path):
    with pytest.raises(RunError, match=r"step 2: the vae's .* not finite; the last good checkpoint"):
        train(recipe(devices=2, optimizer=SGD(lr=1e30)), tmp_path / "run", quiet=True)


@pytest.mark.slow
def test_workers_die_with_their_parent(tmp_path):
    text = f"{HEAD}\ntrain(VAERecipe({FIELDS.replace('epochs=3', 'epochs=100000')}, devices=2), 'run', quiet=True)\n"
    (tmp_path / "script.py").write_text(text)
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    while not find_checkpoints(tmp_path / "run" / "checkpoints"):
        time.sleep(0.05)
    process.kill()
    process.wait()
    time.sleep(2)
    first = find_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    time.sleep(2)
    assert find_checkpoints(tmp_path / "run" / "checkpoints")[-1] == first


@pytest.mark.slow
def test_a_killed_rank_is_one_line(tmp_path):
    text = f"{HEAD}\ntrain(VAERecipe({FIELDS.replace('epochs=3', 'epochs=100000')}, devices=2), 'run', quiet=True)\n"

    def kill():
        while not find_checkpoints(tmp_path / "run" / "checkpoints"):
            time.sleep(0.05)
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                about = (path / "environ").read_bytes().split(b"\0")
                if b"RANK=1" in about and (path / "cwd").resolve() == tmp_path:
                    os.kill(int(path.name), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    code, _, err = run_script(tmp_path, text)
    assert code != 0
    assert "process 1 of 2 was killed by SIGKILL; go on with `latentia resume run`" in err.splitlines()[-1]
