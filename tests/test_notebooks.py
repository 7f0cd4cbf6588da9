"""The notebooks run from top to bottom, and what they show is in order."""

from __future__ import annotations

import gc
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel for all notebooks, which imports torch once."""
    manager = pytest.importorskip("jupyter_client.manager")
    folder = tmp_path_factory.mktemp("jupyter")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        started = manager.KernelManager(kernel_name="python3")
        started.start_kernel()
        yield started
        with sockets_left_open():
            started.shutdown_kernel(now=True)
            del started


@contextmanager
def sockets_left_open() -> Iterator[None]:
    """Jupyter's clients leave sockets to the garbage collector, whose warning would be an error of a later test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_shows_tables_pictures_and_whole_lines(path: Path, tmp_path: Path, kernel: Any) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {tmp_path}"))
    with sockets_left_open():
        nbclient.NotebookClient(notebook, timeout=200, km=kernel).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type in ("display_data", "execute_result")]
    bars = [data["text/plain"] for data in shown if data["text/plain"].startswith(("step ", "final estimates: step "))]
    assert [output for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    assert bars, "training shows how far it is"
    assert [text for text in bars if "\n" in text or "\x1b" in text or "━" not in text or "╌" in text] == []
    assert any("<table>" in data.get("text/html", "") for data in shown)
    assert any("image/png" in data for data in shown) or path.stem == "5-your-own-data"


def test_notebooks_hold_no_outputs_and_five_subjects() -> None:
    assert len(NOTEBOOKS) == 5
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text("utf-8"))["cells"]
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells), path


def test_an_error_in_a_notebook_is_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    shell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell()
    shell.run_cell("import latentia; latentia.VAERecipe(latent=-1)")
    printed = capsys.readouterr().out
    assert "latent" in printed
    assert "Traceback" not in printed
    assert printed.count("\n") <= 2
