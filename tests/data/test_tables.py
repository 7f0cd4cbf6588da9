"""Tables in files, the two of scikit-learn, and generated signals."""

import gzip

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine

from latentia.data import BreastCancer, Signals, Table, Wine
from latentia.errors import ConfigurationError, DataError

TEXT = """\
size,age,city,ill,grade,name
1.5,20,Rome,true,1,u
-2.5,31,Oslo,false,2,v
NA,40,"Rio, RJ",true,3,u
3.25,50,Rome,false,1,v
"""


def table(tmp_path, text=TEXT, name="t.csv", **options):
    path = tmp_path / name
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return Table(file=path, **options)


ALL = {"categorical": ("city",), "ordinal": ("grade",), "target": "name", "missing": "keep"}


def rows(source):
    parts = source._read()
    return parts.train.x.numpy()


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_file_becomes_numbers(tmp_path, mark):
    text = TEXT.replace('"Rio, RJ"', "Rio").replace(",", mark)
    source = table(tmp_path, text, **ALL)
    wanted = [[1.5, 20, 2, 1, 0], [-2.5, 31, 0, 0, 1], [np.nan, 40, 1, 1, 2], [3.25, 50, 2, 0, 0]]
    assert np.array_equal(rows(source), wanted, equal_nan=True)
    columns = source._read().columns
    assert [column.kind for column in columns] == ["real", "count", "category", "binary", "ordinal"]
    assert columns[2].categories == ("Oslo", "Rio", "Rome")
    assert np.array_equal(rows(table(tmp_path, text, name="t.csv.gz", **ALL)), wanted, equal_nan=True)


def test_the_hash_sees_values_names_and_kinds(tmp_path):
    hashes = {
        table(tmp_path, **options)._read().content_hash
        for options in (
            ALL,
            {**ALL, "real": ("age",)},
            {**ALL, "drop": ("ill",)},
            {**ALL, "target": None, "drop": ("name",)},
        )
    }
    renamed = table(tmp_path, TEXT.replace("size", "width"), **ALL)._read().content_hash
    assert len({*hashes, renamed}) == 5


@pytest.mark.parametrize(
    ("text", "options", "cure"),
    [
        (TEXT, {}, r"city, name hold text, such as 'Rome'.*data\.categorical=\[city,name\].*data\.drop"),
        (TEXT, {"target": "nam"}, "Did you mean name"),
        (TEXT, {"drop": ("cty",)}, "Did you mean city"),
        (TEXT, {**ALL, "columns": ()}, "no rows or columns are left"),
        ("", {}, "is empty"),
        ("a,b\n1,2\n3\n", {}, "line 3: 1 cells where there are 2"),
        ("a,a\n1,2\n", {}, "two columns are named 'a'"),
        ("a,b\n1,inf\n2,3\n", {}, "b has 1 infinite values"),
        ("a,b\n1,2\n2,300000000\n", {}, r"data\.real=.*data\.categorical="),
        ("a,b\n1,x\n2,\n", {"target": "b"}, "missing labels; remove these rows"),
        ("a,b\n1,0.5\n2,1.5\n", {"target": "b"}, "keep it as a column"),
    ],
)
def test_bad_tables_are_refused_with_the_cure(tmp_path, text, options, cure):
    with pytest.raises((ConfigurationError, DataError), match=cure):
        table(tmp_path, text, **options).load()


def test_files_that_are_not_tables_are_refused(tmp_path):
    for name, content, cure in (
        ("a.xlsx", b"", "give a .csv"),
        ("b.csv", b"\xff\xfe\x00", "UTF-8"),
        ("c.csv", b'a,"b\n1,2', "is not a CSV file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=cure):
            Table(file=tmp_path / name).load()
    with pytest.raises(DataError, match="there is no file"):
        Table(file=tmp_path / "none.csv").load()
    with pytest.raises(DataError, match=r"data\.limit"):
        table(tmp_path, limit=10, **ALL).load()


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_arrow_files_are_those_of_csv_or_name_the_extra(tmp_path, suffix):
    parquet = pytest.importorskip(f"pyarrow.{suffix}")
    arrow = pytest.importorskip("pyarrow")
    columns = {
        "size": [1.5, -2.5, None, 3.25],
        "age": [20, 31, 40, 50],
        "city": ["Rome", "Oslo", "Rio, RJ", "Rome"],
        "ill": [True, False, True, False],
        "grade": [1, 2, 3, 1],
        "name": ["u", "v", "u", "v"],
    }
    write = parquet.write_table if suffix == "parquet" else parquet.write_feather
    write(arrow.table(columns), str(tmp_path / f"t.{suffix}"))
    found = Table(file=tmp_path / f"t.{suffix}", **ALL)._read()
    assert found.content_hash == table(tmp_path, **ALL)._read().content_hash
    (tmp_path / f"bad.{suffix}").write_bytes(b"PAR1 and nothing")
    with pytest.raises(DataError, match="cannot be read"):
        Table(file=tmp_path / f"bad.{suffix}").load()


@pytest.mark.parametrize(("source", "library"), [(BreastCancer(), load_breast_cancer), (Wine(), load_wine)])
def test_the_tables_of_scikit_learn(source, library):
    published, splits = library(), source.load()
    parts = (splits.train, splits.validation, splits.test)
    x, labels = torch.cat([part.x for part in parts]).numpy(), torch.cat([part.labels for part in parts]).numpy()
    order, theirs = np.lexsort(x.T), np.lexsort(published.data.T)
    assert np.array_equal(x[order], published.data[theirs])
    names = np.array(splits.classes)[labels[order]]
    assert np.array_equal(names, published.target_names[published.target[theirs]])
    assert [column.name for column in splits.columns] == list(published.feature_names)


def test_signals_are_a_function_of_their_seed():
    splits = Signals(count=200).load()
    assert splits.shape == (1, 100)
    assert splits.content_hash == Signals(count=200).load().content_hash
    assert splits.content_hash != Signals(count=200, seed=1).load().content_hash
    quiet = Signals(count=200, noise=0).load()
    square = quiet.train.x[quiet.train.labels == quiet.classes.index("square"), 0]
    assert ((square.abs() - square.abs()[:, :1]).abs() < 1e-5).all()  # a square wave has one size
