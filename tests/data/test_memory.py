"""Data given in Python: what is taken, what is refused with a cure, and that a run accepts the same bits alone."""

import numpy as np
import pandas
import pytest
import scipy.sparse
import torch

import latentia
from latentia import VAERecipe
from latentia.data import InMemory
from latentia.errors import ConfigurationError, DataError, RunError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
LABELS = np.arange(60) % 3


class Rows(torch.utils.data.Dataset):
    """A map-style data set of functions of the row."""

    def __init__(self, get, lengths=(60,)):
        self.get, self.lengths = get, list(lengths)

    def __len__(self):
        return self.lengths.pop(0) if len(self.lengths) > 1 else self.lengths[0]

    def __getitem__(self, row):
        return self.get(row)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(X)


def frame():
    return pandas.DataFrame(
        {
            "size": X[:, 0],
            "age": LABELS + 20,
            "city": np.array(["b", "a", "c"])[LABELS],
            "grade": pandas.Categorical(np.array(["low", "high", "mid"])[LABELS]),
            "ill": LABELS == 1,
            "name": np.array(["x", "y", "z"])[LABELS],
        }
    )


def whole(source):
    splits = source.load()
    return torch.cat([splits.train.x, splits.validation.x, splits.test.x]).numpy()


@pytest.mark.parametrize(
    "given",
    [
        X,
        torch.tensor(X),
        (X, LABELS),
        (torch.tensor(X), torch.tensor(LABELS)),
        torch.utils.data.TensorDataset(torch.tensor(X)),
        torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(LABELS)),
        Rows(lambda row: (X[row], int(LABELS[row]))),
        Rows(lambda row: X[row]),
        pandas.DataFrame(X, columns=["a", "b", "c"]),
        (pandas.DataFrame(X, columns=["a", "b", "c"]), pandas.Series(LABELS)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_the_same_numbers_come_back_whatever_holds_them(given):
    source = VAERecipe(data=given, batch_size=8).data
    rows = whole(source)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, X.tolist()))
    has_labels = isinstance(given, tuple) or "labels" in source.given
    assert source.load().classes == (("0", "1", "2") if has_labels else ())


@pytest.mark.parametrize(
    ("x", "shape", "dtype", "likelihood"),
    [
        (X.astype(np.float32), (3,), torch.float32, "gaussian-per-column"),
        (X.astype(np.float16), (3,), torch.float32, "gaussian-per-column"),
        (X[:, :1].reshape(60, 1, 1), (1, 1), torch.float64, "gaussian-per-column"),
        (X[:, 0], (1,), torch.float64, "gaussian-per-column"),
        (LABELS, (1,), torch.int64, "negative-binomial"),
        (X > 0, (3,), torch.bool, "bernoulli"),
        (RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8), (1, 8, 8), torch.uint8, "bernoulli"),
        (RNG.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), (3, 8, 8), torch.uint8, "bernoulli"),
        (RNG.integers(0, 256, (60, 4), dtype=np.uint8), (4,), torch.int64, "negative-binomial"),
        (torch.tensor(X).bfloat16(), (3,), torch.float32, "gaussian-per-column"),
        (pandas.DataFrame(X), (3,), torch.float64, "mixed"),
    ],
    ids=str,
)
def test_shapes_types_and_the_likelihood_that_suits(x, shape, dtype, likelihood):
    recipe = VAERecipe(data=x, batch_size=8)
    splits = recipe.data.load()
    assert (splits.shape, splits.train.dtype, recipe.likelihood.type_name) == (shape, dtype, likelihood)


def test_columns_of_a_frame_have_kinds_and_the_target_is_the_label():
    source = InMemory(data=frame(), target="name", categorical=("city",), ordinal=("grade",), real=("age",))
    splits = source.load()
    kinds = {column.name: (column.kind, column.categories) for column in splits.columns}
    assert kinds == {
        "size": ("real", ()),
        "age": ("real", ()),
        "city": ("category", ("a", "b", "c")),
        "grade": ("ordinal", ("high", "low", "mid")),
        "ill": ("binary", ()),
    }
    assert splits.classes == ("x", "y", "z")
    codes = {tuple(row[2:4]) for row in whole(source).tolist()}
    assert codes == {(1.0, 1.0), (0.0, 0.0), (2.0, 2.0)}  # b low, a high, c mid


def test_a_run_takes_the_same_bits_alone(tmp_path):
    recipe = VAERecipe(data=(X, LABELS), epochs=1, batch_size=8, network={"type": "mlp", "hidden": [4]})
    run = latentia.train(recipe, tmp_path, quiet=True)
    assert "a NumPy array, float64, (60, 3), with labels" in (tmp_path / "recipe.yaml").read_text()
    text = run.recipe.to_yaml()
    assert str(X[0, 0])[:8] not in text
    assert torch.equal(latentia.Run(tmp_path, data=(X, LABELS)).test.x, run.test.x)
    assert isinstance(latentia.load(tmp_path), latentia.VAE)  # the model needs no data
    with pytest.raises(DataError, match=r"latentia\.Run\(path, data=x\)"):
        latentia.Run(tmp_path).test  # noqa: B018
    for other in ((X + 1e-9, LABELS), (X, (LABELS + 1) % 3), (X.astype(np.float32), LABELS)):
        with pytest.raises(ConfigurationError, match="sha256 differ"):
            latentia.Run(tmp_path, data=other)
    assert latentia.train(recipe, tmp_path, resume=True, quiet=True).status == "ended"
    with pytest.raises(RunError, match=r"data\.sha256"):
        latentia.train(VAERecipe(**{**dict(recipe), "data": (X + 1, LABELS)}), tmp_path, resume=True, quiet=True)


def test_the_caller_may_change_the_array_afterwards():
    x = X.copy()
    source = InMemory(data=x)
    x += 100
    assert whole(source).max() < 50


def shrinking(row):
    if row >= 50:
        raise IndexError
    return X[row]


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        (np.full((9, 2), np.inf), "18 infinite values, the first at .0, 0.; replace"),
        (np.array([["a"]]), "text; give numbers"),
        (X + 1j, "complex numbers; give numbers"),
        (np.full((9, 2), 2**40), "float32 is exact up to 16777216"),
        (np.zeros((0, 3)), "one example a row"),
        ((X, LABELS[:5]), "60 examples and 5 labels"),
        ((X, X[:5]), "60 examples and 5 rows of covariates"),
        ((X, np.where(X > 1, np.nan, X)), "covariate c0 are missing.*remove these rows"),
        ({"type": "memory", "data": frame(), "target": "name", "covariates": ["age"]}, "leave target out"),
        ((X, X, X), r"pair \(x, labels\)"),
        (X.tolist(), r"numpy\.asarray"),
        ({"x": X}, r"pandas\.DataFrame\(data\)"),
        (np.array(3.0), "one example a row"),
        (X * 1e300, "beyond .* the range of float32"),
        (np.ma.masked_array(X, X > 1), "of 60 examples .*data.missing=keep"),
        (torch.tensor(X).to_sparse(), r"x\.to_dense"),
        (torch.empty(60, 3, device="meta"), "without values"),
        (scipy.sparse.csr_array(X), r"x\.toarray"),
        (pandas.DataFrame(X, columns=["a", "b", "a"]), "named 'a'; give each its own name"),
        (pandas.DataFrame({"a": X.tolist(), "b": LABELS}), r"an array of shape \(3,\).*data\.columns=\[a\]"),
        (pandas.DataFrame({"a": pandas.date_range("2020", periods=60)}), r"leave it out by data\.drop"),
        (Rows(lambda row: {"x": X[row]}), r"of the type dict; let it give x or \(x, label\)"),
        (Rows(lambda row: (X[row], 1, 2)), r"\(ndarray, int, int\); let it give"),
        (Rows(lambda row: (X[row], X[row])), r"\(ndarray, ndarray\); let it give"),
        (Rows(lambda row: "a"), "of the type str; let it give"),  # noqa: ARG005
        (Rows(lambda row: X[row % 60], lengths=range(60, 80)), "the length of .* changed from"),
        (Rows(shrinking), "claims 60 examples and ends after 50"),
        (Rows(lambda row: X[row, : 1 + row % 2]), "make them alike"),
        (Rows(lambda row: (X[row], None if row else 1)), "labels for 1 of 60 examples"),
        (Rows(lambda row: torch.rand(3)), "random augmentation"),  # noqa: ARG005
        (Rows(lambda row: X[row], lengths=(0,)), "is empty"),
        (frame(), r"city, name hold text.*data\.categorical=\[city,name\]|city, grade, name hold text"),
        (object(), "give a NumPy array"),
        ({"type": "memory", "data": frame(), "target": "nme"}, "Did you mean name"),
        ({"type": "memory", "data": frame(), "categorical": ["city", "name"], "real": ["city"]}, "two kinds"),
        ({"type": "memory", "data": X, "target": "a"}, "pandas.DataFrame"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else type(value).__name__,
)
def test_other_values_are_refused_with_the_cure(given, cure):
    with pytest.raises((ConfigurationError, DataError), match=cure):
        VAERecipe(data=given).data.load()


def test_negative_whole_numbers_are_measurements_as_floats(tmp_path):
    recipe = VAERecipe(data=LABELS[:, None] - 1, epochs=1, batch_size=8, network={"type": "mlp", "hidden": [4]})
    assert recipe.likelihood.type_name == "gaussian-per-column"
    with pytest.raises(DataError, match=r"x\.astype\('float32'\)"):
        latentia.train(recipe, tmp_path, quiet=True)


@pytest.mark.parametrize("library", ["pandas", "polars", "datasets"])
def test_a_column_of_arrays_is_the_examples_and_another_their_labels(library):
    columns = {"signal": X[:, None, :].tolist(), "kind": LABELS.tolist(), "name": ["u", "v", "w"] * 20}
    module = pytest.importorskip(library)
    frame = module.Dataset.from_dict(columns) if library == "datasets" else module.DataFrame(columns)
    source = InMemory(data=frame, target="kind", drop=("name",))
    assert source.load().shape == (1, 3)
    assert source.load().classes == ("0", "1", "2")
    pairs = {(*row, label) for row, label in zip(X.tolist(), LABELS.tolist(), strict=True)}
    train = source.load().train
    assert {(*row, int(label)) for row, label in zip(train.x[:, 0].tolist(), train.labels, strict=True)} <= pairs
    given = InMemory(data=frame, covariates=("kind",), columns=("signal",)).load()
    assert given.schema.covariates == ("kind",)
    assert {(*row, int(c)) for row, (c,) in zip(given.train.x[:, 0].tolist(), given.train.labels, strict=True)} <= pairs


def test_polars_frames_give_the_numbers_of_pandas_frames():
    polars = pytest.importorskip("polars")
    given = frame().astype({"grade": str})
    ours = {"target": "name", "categorical": ("city", "grade"), "real": ("age",)}
    there = InMemory(data=polars.DataFrame({name: given[name].tolist() for name in given.columns}), **ours)
    assert there.sha256 == InMemory(data=given, **ours).sha256
    holes = polars.DataFrame(
        {"a": [1.0, None, 2.0] * 20, "b": polars.Series(["u", "v", "w"] * 20, dtype=polars.Categorical)}
    )
    kept = InMemory(data=holes, categorical=("b",), missing="keep").load()
    assert np.isnan(whole(InMemory(data=holes, categorical=("b",), missing="keep"))).sum() == 20
    assert [column.categories for column in kept.columns] == [(), ("u", "v", "w")]
    assert whole(InMemory(data=polars.Series(X[:, 0]))).shape == (60, 1)
    with pytest.raises(ConfigurationError, match=r"frame\.collect\(\)"):
        VAERecipe(data=holes.lazy())


def test_data_sets_of_hugging_face_are_tables_or_images():
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"a": X[:, 0], "city": ["u", "v", "w"] * 20})
    source = InMemory(data=table, target="city")
    assert (source.load().shape, source.load().classes) == ((1,), ("u", "v", "w"))
    pictures = RNG.integers(0, 256, (30, 8, 8), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["u", "v", "w"])})
    images = datasets.Dataset.from_dict({"image": list(pictures), "label": LABELS[:30]}, features=features)
    splits = InMemory(data=images, target="label", validation=5).load()
    assert (splits.shape, splits.train.dtype, len(splits.classes)) == ((1, 8, 8), torch.uint8, 3)
    with pytest.raises(ConfigurationError, match=r"data\['train'\]"):
        VAERecipe(data=datasets.DatasetDict({"train": table}))
    with pytest.raises(ConfigurationError, match="of the type dict; let it give x"):
        VAERecipe(data=table.to_iterable_dataset())


def test_missing_values_are_refused_kept_or_dropped():
    x = X.copy()
    x[3, 1] = x[7, 1] = x[7, 2] = np.nan
    with pytest.raises(
        ConfigurationError, match=r"3 values .* in 2 of 60 .*\(column 1, column 2\).*data\.missing=keep"
    ):
        InMemory(data=x).load()
    assert len(whole(InMemory(data=x, missing="drop"))) == 58
    kept = InMemory(data=x, missing="keep").load()
    assert kept.schema.missing
    assert np.isnan(whole(InMemory(data=x, missing="keep"))).sum() == 3


def test_masked_values_are_missing():
    for masked in (np.ma.masked_equal(X.round(), 1), np.ma.masked_equal(LABELS[:, None], 2)):
        with pytest.raises(ConfigurationError, match=f"{masked.mask.sum()} values are missing"):
            InMemory(data=masked).load()
        kept = whole(InMemory(data=masked, missing="keep"))
        known = masked.astype(float).filled(np.nan).astype(np.float32)
        assert np.array_equal(np.sort(kept, axis=0), np.sort(known, axis=0), equal_nan=True)
    assert np.array_equal(whole(InMemory(data=np.ma.masked_array(X))), whole(InMemory(data=X)))


def test_a_wrong_value_is_shown_short():
    for field in ({"latent": X}, {"epochs": X.tolist()}, {"network": X}):
        with pytest.raises(ConfigurationError) as caught:
            VAERecipe(**field)
        assert len(str(caught.value)) < 400
    with pytest.raises(ConfigurationError, match=r"ndarray of shape \(60, 3\) and type float64"):
        VAERecipe(latent=X)
