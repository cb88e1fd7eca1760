"""A schema is what pandas and scikit-learn would do, learned in one pass, saved, and applied again to the last bit."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import date
from functools import reduce
from itertools import pairwise
from operator import add
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from sklearn.preprocessing import StandardScaler

from lr_nn import data
from lr_nn.data import Categorical, Learner, Numeric, Schema, learning
from tests.test_tables import ADULT, shared
from tests.tolerances import assert_close

N = 500
RNG = np.random.default_rng(0)
SIZES = np.where(RNG.random(N) < 0.1, np.nan, RNG.normal(1e3, 2.0, N))
FRAME = pandas.DataFrame(
    {
        "size": SIZES,
        "count": RNG.integers(-5, 50, N),
        "colour": pandas.Series(RNG.choice(["red", "green", "blue"], N, p=[0.2, 0.3, 0.5])).mask(RNG.random(N) < 0.1),
        "new": RNG.random(N) < 0.3,
        "grade": RNG.choice([1, 2, 5], N),
        "times": RNG.integers(1, 4, N),
        "base": RNG.normal(size=N),
        "price": RNG.normal(size=N),
        "sold": RNG.choice(["no", "yes"], N),
        "kind": RNG.choice(["b", "c", "a"], N),
    }
)
TABLE = data.frame(FRAME)
ROLES = {"weight": "times", "offset": "base", "ignore": ("price", "kind"), "categorical": ("grade",)}


def encoded(schema, table=TABLE):
    return schema.rows(table).read(0, len(table))


def learned(columns, target="y", **choices):
    return data.learn(data.frame(columns), target, **choices)


def same(a, b):
    for mine, other in zip(a, b):
        assert (mine is None and other is None) or (mine.dtype == other.dtype and mine.tobytes() == other.tobytes())


def test_features_are_named_by_column_and_level():
    assert data.learn(TABLE, "sold", missing="indicator", **ROLES).features == (
        *("size", "size is missing", "count", "colour=green", "colour=red", "colour is missing"),
        *("new=True", "grade=2", "grade=5"),
    )
    common = FRAME.groupby("grade")["times"].sum().idxmax()
    assert data.learn(TABLE, "sold", reference="most_frequent", **ROLES).features == (
        *("size", "count", "colour=green", "colour=red", "new=True"),
        *(f"grade={level}" for level in (1, 2, 5) if level != common),
    )


def test_encoding_is_dummies_and_a_standard_scaler():
    filled = FRAME.fillna({"size": FRAME["size"].mean(), "colour": "blue"})
    assert FRAME["colour"].mode()[0] == "blue"
    peer = pandas.get_dummies(filled, columns=["colour", "new", "grade"], drop_first=True)
    numbers = StandardScaler().fit_transform(filled[["size", "count"]])
    batch = encoded(data.learn(TABLE, "price", ignore=("times", "base", "sold", "kind"), categorical=("grade",)))
    dummies = ["colour_green", "colour_red", "new_True", "grade_2", "grade_5"]
    # Means of about 1000 and deviations of 2 lose that ratio in the difference.
    assert_close(batch.x[:, :2], numbers, N, np.float64, condition=1e3)
    np.testing.assert_array_equal(batch.x[:, 2:], peer[dummies].to_numpy(float))
    np.testing.assert_array_equal(batch.y, FRAME["price"])
    assert batch.weight is None and batch.offset is None


def test_an_indicator_tells_what_was_missing():
    batch = encoded(data.learn(TABLE, "sold", missing="indicator", **ROLES))
    np.testing.assert_array_equal(batch.x[:, 1], FRAME["size"].isna())
    np.testing.assert_array_equal(batch.x[:, 5], FRAME["colour"].isna())
    np.testing.assert_array_equal(batch.x[:, 3:6].sum(axis=1), FRAME["colour"] != "blue")
    assert not batch.x[FRAME["size"].isna(), 0].any() or abs(batch.x[FRAME["size"].isna(), 0]).max() < 1e-12


@pytest.mark.parametrize("weight", [None, "times"])
def test_standardised_columns_have_mean_zero_and_deviation_one(weight):
    schema = data.learn(TABLE, "sold", weight=weight)
    x, s = encoded(schema).x, np.ones(N) if weight is None else FRAME["times"]
    numeric = [schema.features.index(c.name) for c in schema.columns if isinstance(c, Numeric)]
    for j in numeric:
        mean = np.average(x[:, j], weights=s)
        assert_close(1 + mean, 1.0, N, np.float64, condition=1e3)
        assert_close(np.average((x[:, j] - mean) ** 2, weights=s), 1.0, N, np.float64, condition=1e3)


def test_weights_are_duplicated_rows():
    repeated = FRAME.loc[np.repeat(np.arange(N), FRAME["times"])]
    choices = {"ignore": ("base", "price", "kind"), "reference": "most_frequent"}
    weighted = data.learn(TABLE, "sold", weight="times", **choices)
    ours = data.learn(data.frame(repeated), "sold", **{**choices, "ignore": (*choices["ignore"], "times")})
    assert weighted.features == ours.features
    for mine, other in zip(weighted.columns, ours.columns):
        if isinstance(mine, Numeric):
            assert_close([mine.mean, mine.scale], [other.mean, other.scale], N, np.float64, condition=1e3)
        else:
            assert mine == other


def close(one, other):
    assert one.features == other.features and one.target == other.target and one.notes[1:] == other.notes[1:]
    for mine, theirs in zip(one.columns, other.columns):
        if isinstance(mine, Numeric):
            assert_close([mine.mean, mine.scale], [theirs.mean, theirs.scale], N, np.float64, condition=1e3)
        else:
            assert mine == theirs


@pytest.mark.parametrize("size", [1, 7, 499])
def test_what_is_learned_does_not_depend_on_the_size_of_blocks(monkeypatch, size):
    whole = data.learn(TABLE, "sold", **ROLES)
    monkeypatch.setattr(learning, "ROWS", size)
    close(data.learn(TABLE, "sold", **ROLES), whole)


@given(st.lists(st.integers(1, N - 1), min_size=2, max_size=5, unique=True))
def test_totals_of_parts_add_in_any_grouping(cuts):
    learner = Learner("sold", **ROLES)
    bounds = [0, *sorted(cuts), N]
    parts = [learner.totals(data.frame(FRAME.iloc[a:b])) for a, b in pairwise(bounds)]
    from_left, from_right = reduce(add, parts), reduce(lambda a, b: b + a, reversed(parts))
    whole = learner.schema(learner.totals(TABLE), TABLE)
    close(learner.schema(from_left, TABLE), whole)
    close(learner.schema(from_right, TABLE), whole)
    assert from_left.rows == N


def test_hosts_that_read_parts_learn_what_one_learns():
    learner = Learner("kind", ignore=("sold",))
    totals = reduce(add, (learner.totals(TABLE.part(i, 3)) for i in range(3)))
    close(learner.schema(totals, TABLE), learner.schema(learner.totals(TABLE), TABLE))


@given(st.integers(-8, 8), st.integers(-8, 8))
def test_mean_and_deviation_keep_their_digits_at_any_scale(shift, scale):
    x = RNG.normal(10.0**shift, 10.0**scale, 1000)
    (column,) = learned({"x": x, "y": np.arange(1000)}).columns
    exact = np.longdouble(x)
    assert_close(column.mean, float(exact.mean()), 1000, np.float64, condition=max(1, 10.0 ** (scale - shift)))
    assert_close(column.scale, float(exact.std()), 1000, np.float64, condition=max(1, 10.0 ** (shift - scale)))


def test_a_fresh_process_encodes_to_the_last_bit(tmp_path):
    schema = data.learn(TABLE, "sold", missing="indicator", **ROLES)
    assert Schema.from_json(schema.to_json()) == schema
    parquet.write_table(TABLE.table, tmp_path / "a.parquet")
    (tmp_path / "schema.json").write_text(schema.to_json())
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\nfrom lr_nn import data\n"
        "folder = Path(sys.argv[1])\nschema = data.Schema.from_json((folder / 'schema.json').read_text())\n"
        "rows = schema.rows(data.open_table(folder / 'a.parquet'))\n"
        "np.savez(folder / 'a.npz', *rows.read(0, len(rows)))"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], check=True, timeout=300)
    with np.load(tmp_path / "a.npz") as found:
        same(encoded(schema), [found[name] for name in found.files])


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=5e-324, allow_infinity=False), st.text())
def test_every_number_and_name_survives_json(mean, scale, name):
    columns = (Numeric(name, mean, scale, mean, True), Categorical("c" + name, (name, name + "b"), name))
    schema = Schema(columns, data.Target("t" + name, "values"), notes=(name,))
    assert Schema.from_json(schema.to_json()) == schema


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_files_are_encoded_as_memory_is(tmp_path, kind):
    frame = FRAME.drop(columns=["grade"])
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.assign(new=frame["new"]).to_csv(path, index=False)
    elif kind == "parquet":
        parquet.write_table(pa.Table.from_pandas(frame), path, row_group_size=60)
    else:
        pa.feather.write_feather(pa.Table.from_pandas(frame), str(path), chunksize=60)
    table, memory = data.open_table(path), data.frame(frame)
    choices = {"weight": "times", "offset": "base", "missing": "indicator"}
    schema = data.learn(memory, "sold", **choices)
    assert data.learn(table, "sold", **choices) == schema
    rows = schema.rows(table)
    for start, stop in [(0, N), (59, 61), (499, 500)]:
        same(rows.read(start, stop), schema.rows(memory).read(start, stop))
    assert rows.features == schema.features and rows.fingerprint() == schema.rows(memory).fingerprint()
    same(schema.encode(table.read(3, 9)), rows.read(3, 9))


@pytest.mark.parametrize("standardise", [True, False])
def test_floats_stay_in_their_own_width(standardise):
    x = RNG.normal(size=(300, 3)).astype(np.float32)
    columns = {f"x{j}": x[:, j] for j in range(3)}
    schema = learned({**columns, "y": x[:, 0] > 0}, standardise=standardise)
    batch = encoded(schema, data.frame({**columns, "y": x[:, 0] > 0}))
    assert batch.x.dtype == np.float32 and batch.x.flags.c_contiguous
    if not standardise:
        np.testing.assert_array_equal(batch.x, x)
    else:
        np.testing.assert_allclose(batch.x, StandardScaler().fit_transform(x.astype(np.float64)), rtol=1e-6, atol=1e-7)
    assert learned({"x": x[:, 0].astype(float), "y": x[:, 1]}).dtype == "float64"


@pytest.mark.parametrize(
    ("y", "task", "kind", "classes", "encoded_as"),
    [
        (["b", "a", "b"], "auto", "binary", ("a", "b"), [1, 0, 1]),
        (["b", "c", "a"], "auto", "classes", ("a", "b", "c"), [1, 2, 0]),
        ([True, False, True], "auto", "binary", (False, True), [1, 0, 1]),
        ([1, 0, 1], "auto", "binary", (0, 1), [1, 0, 1]),
        ([1.0, 0.0, 1.0], "auto", "binary", (0, 1), [1, 0, 1]),
        ([1, 2, 1], "auto", "values", (), [1, 2, 1]),
        ([1, 2, 1], "labels", "binary", (1, 2), [0, 1, 0]),
        ([7.0, -1.0, 7.0], "labels", "binary", (-1, 7), [1, 0, 1]),
        ([0.5, 1.5, 0.5], "labels", "binary", (0.5, 1.5), [0, 1, 0]),
        ([10, 9, 2], "labels", "classes", (2, 9, 10), [2, 1, 0]),
        ([1, 0, 1], "values", "values", (), [1, 0, 1]),
        (pandas.Categorical(["u", "v", "u"]), "auto", "binary", ("u", "v"), [0, 1, 0]),
    ],
)
def test_targets_are_values_or_sorted_classes(y, task, kind, classes, encoded_as):
    columns = {"x": [1.0, 2.0, 4.0], "y": y}
    schema = learned(columns, task=task)
    assert (schema.target.kind, schema.target.classes) == (kind, classes)
    assert Schema.from_json(schema.to_json()) == schema
    assert encoded(schema, data.frame(columns)).y.tolist() == encoded_as


def test_prediction_needs_no_target():
    schema = data.learn(TABLE, "sold", **ROLES)
    batch = schema.inputs(data.frame(FRAME.drop(columns=["sold", "times", "kind"]))).read(0, N)
    assert batch.y is None and batch.weight is None
    np.testing.assert_array_equal(batch.x, encoded(schema).x)
    np.testing.assert_array_equal(batch.offset, FRAME["base"])
    strange = data.frame(FRAME.assign(sold="perhaps"))
    np.testing.assert_array_equal(schema.inputs(strange).read(0, N).x, batch.x)


def test_an_unknown_level_is_named_or_becomes_zeros():
    schema = data.learn(TABLE, "sold", **ROLES)
    changed = FRAME.copy()
    changed.loc[7, "colour"], changed.loc[3, "grade"] = "violet", 4
    table = data.frame(changed)
    with pytest.raises(ValueError, match=r"column 'colour' at row 7: 'violet' is not one of the 3 levels .*'blue'"):
        schema.inputs(table).read(5, 9)
    with pytest.raises(ValueError, match="'grade' at row 3: 4 is not one of"):
        schema.inputs(table.part(0, 2)).read(0, 5)
    x = schema.inputs(table, unknown="ignore").read(0, N).x
    level = [schema.features.index("colour=green"), schema.features.index("colour=red")]
    assert not x[7, level].any() and (np.delete(x, [3, 7], 0) == np.delete(encoded(schema).x, [3, 7], 0)).all()


def test_an_unknown_class_is_refused_even_where_levels_are_ignored():
    schema = data.learn(TABLE, "sold", **ROLES)
    with pytest.raises(ValueError, match="column 'sold' at row 0: 'perhaps'"):
        schema.rows(data.frame(FRAME.assign(sold="perhaps")), unknown="ignore").read(0, 5)


def test_other_columns_are_named_or_left_out():
    schema = data.learn(TABLE, "sold", **ROLES)
    with pytest.raises(ValueError, match="lacks columns of the schema: 'size', 'colour'"):
        schema.inputs(data.frame(FRAME.drop(columns=["size", "colour"])))
    more = data.frame(FRAME.assign(height=1.0))
    with pytest.raises(ValueError, match="does not know: 'height'; extra='ignore'"):
        schema.inputs(more)
    same(schema.rows(more, extra="ignore").read(0, N), encoded(schema))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("size", ["x"] * N, "column 'size' holds .*string; expected numbers"),
        ("size", [date(2020, 1, 1)] * N, "column 'size' holds date32.*a time is no number"),
        ("colour", np.arange(N), "column 'colour' holds int64; string was learned"),
        ("grade", ["1"] * N, "column 'grade' holds .*string; int64 was learned"),
        ("grade", [1.5] * N, "column 'grade' holds double, not levels that are int64"),
        ("new", np.arange(N), "column 'new' holds int64; bool was learned"),
        ("count", [[1.0]] * N, "column 'count' holds list"),
        ("size", [np.inf] * N, "column 'size' at row 0: inf is beyond the range"),
        ("count", [2**53 + 1] * N, r"column 'count' at row 0: 9007199254740993 is beyond 2\^53"),
        ("times", [-1.0] * N, "column 'times' must be finite and at least 0; got -1 at row 0"),
        ("base", [np.nan] * N, "column 'base' has no value at row 0"),
        ("sold", [None] * N, "column 'sold' has no value at row 0"),
    ],
)
def test_columns_that_changed_are_refused_by_name(name, values, message):
    schema = data.learn(TABLE, "sold", **ROLES)
    with pytest.raises(ValueError, match=message):
        encoded(schema, data.frame(FRAME.assign(**{name: pandas.Series(list(values))})))


def test_text_in_a_column_of_numbers_is_found_by_row(tmp_path):
    schema = learned({"x": [1.0, 2.0], "y": [0, 1]})
    (tmp_path / "a.csv").write_text("x,y\n1,0\nseven,1\n")
    with pytest.raises(ValueError, match="row 1: column 'x': conversion error to double: invalid value 'seven'"):
        encoded(schema, data.open_table(tmp_path / "a.csv"))


def test_levels_of_a_text_file_are_read_word_for_word(tmp_path):
    (tmp_path / "a.csv").write_text("zip,y\n01234,0\n98765,1\nx,1\n")
    (tmp_path / "b.csv").write_text("zip,y\n01234,0\n98765,1\n")
    schema = data.learn(data.open_table(tmp_path / "a.csv"), "y")
    again = data.learn(data.open_table(tmp_path / "b.csv"), "y", categorical=("zip",))
    assert schema.features == ("zip=98765", "zip=x") and again.features == ("zip=98765",)
    assert encoded(schema, data.open_table(tmp_path / "b.csv")).x.tolist() == [[0, 0], [1, 0]]


def test_what_is_missing_later_is_filled_as_learned():
    schema = learned({"x": [1.0, 3.0], "c": ["a", "b"], "y": [0, 1]}, missing="indicator")
    later = data.frame({"x": pa.array([None, 3.0], pa.float64()), "c": pa.array([None, "b"]), "y": [0, 1]})
    assert schema.features == ("x", "c=b")
    assert encoded(schema, later).x.tolist() == [[0, 0], [1, 1]]
    strict = learned({"x": [1.0, 3.0], "c": ["a", "b"], "y": [0, 1]}, missing="refuse")
    with pytest.raises(ValueError, match=r"column '[xc]' has no value at row 0"):
        encoded(strict, later)


def test_columns_that_tell_nothing_are_left_out_and_noted():
    schema = learned(
        {"one": [0.1] * 7, "none": [None] * 7, "nan": [np.nan] * 7, "same": ["a"] * 7, "x": range(7), "y": range(7)}
    )
    assert schema.features == ("x",) and schema.ignored == ("one", "none", "nan")
    assert [note.split(":")[0] for note in schema.notes] == ["one", "none", "nan", "same"]
    with pytest.raises(ValueError, match="no column varies"):
        learned({"x": [1, 1], "y": [0, 1]})


@pytest.mark.parametrize(
    ("columns", "choices", "message"),
    [
        ({"x": [1.0, np.inf], "y": [0, 1]}, {}, "column 'x' is inf at row 1"),
        ({"x": [1, 2**53 + 1], "y": [0, 1]}, {}, r"'x' at row 1: 9007199254740993 is beyond 2\^53"),
        ({"x": [1, 2], "y": [0, None]}, {}, "column 'y' has no value at row 1"),
        ({"x": [1, 2], "y": ["a", None]}, {}, "column 'y' has no value at row 1"),
        ({"x": [1, 2], "y": ["a", "a"]}, {}, "target 'y' is 'a' in every row"),
        ({"x": [1, None], "y": [0, 1]}, {"missing": "refuse"}, "column 'x' has no value at row 1"),
        ({"x": ["a", None], "y": [0, 1]}, {"missing": "refuse"}, "column 'x' has no value at row 1"),
        (
            {"x": [1, 2], "y": [0, 1], "s": [1, -1]},
            {"weight": "s"},
            "'s' must be finite and at least 0; got -1 at row 1",
        ),
        ({"x": [1, 2], "y": [0, 1], "s": [0, 0]}, {"weight": "s"}, "weight .*zero"),
        ({"x": [1, 2], "y": [0, 1], "s": [1, None]}, {"offset": "s"}, "column 's' has no value at row 1"),
        ({"x": [date(2020, 1, 1)] * 2, "y": [0, 1]}, {}, "a time is no number; .*year, weekday"),
        ({"x": [[1], [2]], "y": [0, 1]}, {}, "column 'x' holds list"),
        (
            {"x": list("abcd"), "y": [0, 1, 0, 1]},
            {"max_levels": 3},
            "'x' has more than 3 levels, such as 'a', 'b', 'c'",
        ),
        ({"x": [1, 2, 3, 4], "y": list("abcd")}, {"max_levels": 3}, "task='values' if it is a number"),
        ({"x": [1e200, -1e200], "y": [0, 1]}, {}, "cannot hold the squares"),
        ({"x": [1e-200, 2e-200], "y": [0, 1]}, {}, "cannot hold the squares"),
        ({"x": [1.5, 2.5], "y": [0, 1]}, {"categorical": ("x",)}, "not levels that are int64"),
        ({"x": [1, 2], "y": ["a", "b"]}, {"task": "values"}, "column 'y' holds string; expected numbers"),
        ({"x": [1, 2], "y": [0, 1]}, {"ignore": ("z",)}, "no column 'z'; it has 'x', 'y'"),
        ({"x": [1, 2], "y": [0, 1]}, {"weight": "y"}, "column 'y' has two parts"),
        ({"x": [1, 2], "y": [0, 1]}, {"missing": "zero"}, "missing must be one of mean, indicator, refuse"),
        ({"a": ["b", "c"], "a=c": [1, 2], "y": [0, 1]}, {}, "two features of the schema are called 'a=c'"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_name(columns, choices, message):
    with pytest.raises(ValueError, match=message):
        learned(columns, **choices)


@pytest.mark.parametrize(
    "damage",
    [
        lambda kept: kept | {"format": 2},
        lambda kept: {name: value for name, value in kept.items() if name != "columns"},
        lambda kept: kept | {"more": 1},
        lambda kept: kept | {"target": {"name": "y", "kind": "odd", "classes": []}},
        lambda kept: kept | {"columns": [kept["columns"][0] | {"scale": 0.0}]},
        lambda kept: kept | {"columns": [kept["columns"][0] | {"mean": "1"}]},
        lambda kept: kept | {"columns": kept["columns"] * 2},
        lambda kept: [],
        lambda kept: 3,
    ],
)
def test_text_that_is_no_schema_is_refused(damage):
    text = learned({"x": [1.0, 2.0], "y": [0, 1]}).to_json()
    with pytest.raises(ValueError, match="no schema"):
        Schema.from_json(json.dumps(damage(json.loads(text))))
    with pytest.raises(ValueError, match="no schema"):
        Schema.from_json(text[:-3])


def test_a_schema_may_ask_for_float32():
    schema = replace(data.learn(TABLE, "sold", **ROLES), dtype="float32")
    assert encoded(schema).x.dtype == np.float32
    with pytest.raises(ValueError, match="column 'x' at row 1: 1e\\+39 is beyond the range of float32"):
        narrow = replace(learned({"x": [1.0, 2.0], "y": [0, 1]}, standardise=False), dtype="float32")
        encoded(narrow, data.frame({"x": [1.0, 1e39], "y": [0, 1]}))


@shared
def test_the_adult_census_is_dummies_and_a_standard_scaler():
    path = Path(os.environ["LR_NN_DATA"]) / "adult.data.gz"
    table = data.csv(path, header=False, names=ADULT, missing=("?",), strip=True)
    schema = data.learn(table, "income", missing="indicator")
    batch = encoded(schema, table)
    peer = pandas.read_csv(path, header=None, names=ADULT, na_values="?", skipinitialspace=True)
    words = [name for name in ADULT[:-1] if not pandas.api.types.is_numeric_dtype(peer[name])]
    numbers = [name for name in ADULT[:-1] if name not in words]
    dummies = pandas.get_dummies(peer[words], drop_first=True)
    for name in words:
        for level in sorted(peer[name].dropna().unique())[1:]:
            found = batch.x[:, schema.features.index(f"{name}={level}")]
            np.testing.assert_array_equal(found, dummies[f"{name}_{level}"])
        if peer[name].isna().any():
            np.testing.assert_array_equal(batch.x[:, schema.features.index(f"{name} is missing")], peer[name].isna())
    places = [schema.features.index(name) for name in numbers]
    assert_close(batch.x[:, places], StandardScaler().fit_transform(peer[numbers]), len(peer), np.float64)
    assert batch.x.shape == (32561, len(dummies.columns) + 6 + 3)
    np.testing.assert_array_equal(batch.y, peer["income"] == ">50K")


def test_dictionaries_that_differ_from_group_to_group_are_one_column(tmp_path):
    words = pandas.Categorical(RNG.choice(list("abc"), 50).tolist() + RNG.choice(list("cde"), 50).tolist())
    frame = pandas.DataFrame({"c": words, "y": np.arange(100)})
    with parquet.ParquetWriter(tmp_path / "a.parquet", pa.Table.from_pandas(frame).schema) as writer:
        for part in (frame[:50], frame[50:]):
            used = part.assign(c=part["c"].cat.remove_unused_categories())
            writer.write_table(pa.Table.from_pandas(used, preserve_index=False))
    table = data.open_table(tmp_path / "a.parquet")
    schema = data.learn(table, "y")
    np.testing.assert_array_equal(
        schema.rows(table).read(40, 60).x, pandas.get_dummies(frame["c"])[40:60].to_numpy()[:, 1:]
    )


CELL = (
    st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.booleans() | st.dates() | st.binary(max_size=2)
)
COLUMN = st.one_of(*(st.lists(st.none() | kind, min_size=6, max_size=6) for kind in CELL.element_strategies))


@given(st.dictionaries(st.text(max_size=3), COLUMN, min_size=2, max_size=4), st.sampled_from(learning.MISSING))
def test_any_columns_are_learned_from_or_refused(columns, missing):
    try:
        table = data.frame(columns)
        schema = data.learn(table, next(iter(columns)), missing=missing)
        x = encoded(schema, table).x
    except ValueError:
        return
    assert x.shape == (6, len(schema.features)) and np.isfinite(x).all()
    same(encoded(Schema.from_json(schema.to_json()), table), encoded(schema, table))
