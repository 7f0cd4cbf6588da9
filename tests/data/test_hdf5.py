"""HDF5 files against h5py, tables of AnnData against their dense arrays, Parquet and Feather against pyarrow."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from scipy import sparse

import latentia
from latentia.data import NPZ, InMemory, Table
from latentia.errors import ConfigurationError, DataError
from latentia.recipes import VAERecipe

h5py = pytest.importorskip("h5py", reason="the extra hdf5 is not installed")
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(0.7, size=(30, 6))
KINDS = RNG.integers(0, 2, 30)
AGES = RNG.uniform(20, 80, 30)


def annotated(path, kind):
    """The parts of an .h5ad that are read, as anndata writes them."""
    with h5py.File(path, "w") as file:
        if kind == "dense":
            file["X"] = COUNTS.astype(np.float32)
        else:
            matrix = sparse.csr_matrix(COUNTS) if kind == "csr_matrix" else sparse.csc_matrix(COUNTS)
            group = file.create_group("X")
            group.attrs["encoding-type"], group.attrs["shape"] = kind, COUNTS.shape
            group["data"], group["indices"], group["indptr"] = (
                matrix.data.astype(np.float32),
                matrix.indices,
                matrix.indptr,
            )
        var, obs = file.create_group("var"), file.create_group("obs")
        var.attrs["_index"] = "_index"
        var["_index"] = [f"gene{place}" for place in range(6)]
        obs["age"] = AGES
        kinds = obs.create_group("kind")
        kinds["codes"], kinds["categories"] = KINDS.astype(np.int8), ["B cell", "T cell"]
        obs["note"] = ["x"] * 30
    return path


@pytest.mark.parametrize("kind", ["dense", "csr_matrix", "csc_matrix"])
def test_tables_of_annotated_data_are_their_dense_counts(tmp_path, kind):
    table = Table(file=annotated(tmp_path / "cells.h5ad", kind), target="kind")
    whole = table.whole()
    assert np.array_equal(whole.x.numpy(), COUNTS)
    splits = table.load()
    assert splits.classes == ("B cell", "T cell")
    assert np.array_equal(whole.labels.numpy(), KINDS)
    assert {column.kind for column in splits.columns} <= {"count", "binary"}
    given = Table(file=tmp_path / "cells.h5ad", covariates=("age",)).whole()
    assert np.allclose(given.labels[:, 0].numpy(), AGES)


@pytest.mark.parametrize("name", ["x.h5", "x.hdf5", "anything"])
def test_arrays_of_any_shape_are_read_by_name(tmp_path, name):
    x = RNG.normal(size=(20, 2, 5, 3, 2)).astype(np.float32)
    with h5py.File(tmp_path / name, "w") as file:
        file["x"], file["labels"] = x, np.arange(20) % 3
    source = NPZ(file=tmp_path / name)
    assert np.array_equal(source.whole().x.numpy(), x)
    assert source.load().classes == ("0", "1", "2")


def test_damaged_foreign_and_too_large_files_are_refused(tmp_path):
    path = annotated(tmp_path / "a.h5ad", "dense")
    content = path.read_bytes()
    (tmp_path / "short.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="truncated or damaged"):
        Table(file=tmp_path / "short.h5ad").load()
    with pytest.raises(DataError, match=r"data\.limit"):
        Table(file=path, limit=10).load()
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(path), "/X")
    with pytest.raises(DataError, match="link to another file"):
        NPZ(file=tmp_path / "link.h5").load()
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["y"] = COUNTS
    with pytest.raises(DataError, match="data=npz"):
        Table(file=tmp_path / "other.h5ad").load()


def test_damage_anywhere_is_one_clear_error(tmp_path):
    """Bytes that are changed one by one: a clear error, or the arrays."""
    content = annotated(tmp_path / "a.h5ad", "csr_matrix").read_bytes()
    refused = 0
    for place in RNG.integers(0, len(content), 60):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        (tmp_path / "b.h5ad").write_bytes(damaged)
        try:
            Table(file=tmp_path / "b.h5ad", target="kind").load()
        except (DataError, ConfigurationError):
            refused += 1
    assert refused > 0


@pytest.mark.parametrize("ending", ["parquet", "feather"])
def test_arrow_tables_are_read_as_data_frames_are(tmp_path, ending):
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow", reason="the extra tables")
    from pyarrow import feather, parquet

    frame = pandas.DataFrame({"a": RNG.normal(size=25), "n": RNG.poisson(3, 25), "city": ["x", "y", "z", "x", "y"] * 5})
    frame.loc[3, "a"] = np.nan
    write = parquet.write_table if ending == "parquet" else feather.write_feather
    write(pyarrow.Table.from_pandas(frame), str(tmp_path / f"t.{ending}"))
    options = {"categorical": ("city",), "missing": "keep"}
    ours = Table(file=tmp_path / f"t.{ending}", **options)
    same = InMemory(data=frame, **options)
    assert torch.equal(ours.whole().x.nan_to_num(-9), same.whole().x.nan_to_num(-9))
    assert ours.load().columns == same.load().columns
    assert ours.load().content_hash == same.load().content_hash
    (tmp_path / f"cut.{ending}").write_bytes((tmp_path / f"t.{ending}").read_bytes()[:200])
    with pytest.raises(DataError, match="write it again"):
        Table(file=tmp_path / f"cut.{ending}").load()


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows, endless=False):
        self.rows, self.endless = rows, endless

    def __iter__(self):
        while True:
            yield from self.rows
            if not self.endless:
                return


def test_streams_are_read_in_one_pass_and_resume_to_the_same_bits(tmp_path):
    x = RNG.normal(size=(80, 1, 10)).astype(np.float32)
    recipe = VAERecipe(data=Stream(x), batch_size=16, epochs=2, network={"type": "mlp", "hidden": [4]})
    assert recipe.data.sha256 == InMemory(data=x).sha256
    wanted = latentia.train(recipe, tmp_path / "whole", quiet=True).model.state_dict()
    shutil.rmtree(sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1])
    (tmp_path / "whole" / "weights.safetensors").unlink()
    again = recipe.model_copy(update={"data": InMemory(data=Stream(x))})
    resumed = latentia.train(again, tmp_path / "whole", resume=True, quiet=True).model.state_dict()
    assert all(torch.equal(resumed[name], value) for name, value in wanted.items())
    with pytest.raises(ConfigurationError, match="may not end"):
        InMemory(data=Stream(x, endless=True), limit=100_000)
    with pytest.raises(ConfigurationError, match="is empty"):
        InMemory(data=Stream(x[:0]))
