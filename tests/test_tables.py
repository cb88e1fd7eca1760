"""Tables: every reader gives the same columns, any rows of them, and refuses by name what it cannot read."""

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, parquet

from benchmarks.fuzz import fuzz
from benchmarks.fuzz_tables import FORMATS
from lr_nn import data
from lr_nn.data.csv_files import EVERY

N = 2 * EVERY + 17
RNG = np.random.default_rng(0)
COLUMNS = {
    "whole": RNG.integers(-(10**12), 10**12, N),
    "decimal": [None if i % 7 == 0 else float(v) for i, v in enumerate(RNG.normal(size=N))],
    "text": [["a", "b,c", 'd "e"', "f\ng", "ß→∞"][i] for i in RNG.integers(0, 5, N)],
    "true": RNG.random(N) < 0.5,
}
EXPECTED = pa.table(COLUMNS)
FUZZED = int(os.environ.get("LR_NN_FUZZ", "12"))
ADULT = [
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship"),
    *("race", "sex", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income"),
]
shared = pytest.mark.skipif(not os.environ.get("LR_NN_DATA"), reason="LR_NN_DATA is not set; CI sets it")


def quoted(value):
    return "" if value is None else '"' + value.replace('"', '""') + '"' if isinstance(value, str) else repr(value)


def text(columns, end="\n"):
    rows = zip(*(np.asarray(values, object) for values in columns.values()))
    return end.join([",".join(columns), *(",".join(map(quoted, row)) for row in rows)]).encode()


def write(folder, kind):
    """The columns as a file of a kind."""
    path = folder / f"a.{kind}"
    if kind == "parquet":
        parquet.write_table(EXPECTED, path, row_group_size=1000)
    elif kind in ("arrow", "feather"):
        feather.write_feather(EXPECTED, str(path), "lz4" if kind == "arrow" else "uncompressed", chunksize=1000)
    else:
        path.write_bytes(gzip.compress(text(COLUMNS)) if kind == "csv.gz" else text(COLUMNS))
    return path


def plain(table):
    """Types and values; text is text, however it is stored."""
    types = [pa.string() if pa.types.is_large_string(kind) else kind for kind in table.schema.types]
    return types, table.to_pydict()


def made(tmp_path, content, **options):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    return data.csv(path, **options)


@pytest.fixture(params=["csv", "csv.gz", "parquet", "arrow", "feather", "frame", "pandas", "folder", "part"])
def table(request, tmp_path):
    if request.param == "frame":
        return data.frame(COLUMNS)
    if request.param == "pandas":
        return data.frame(EXPECTED.to_pandas())
    if request.param == "part":
        return data.frame(pa.concat_tables([EXPECTED] * 3)).part(1, 3)
    if request.param == "folder":
        for i, rows in enumerate([slice(0, 900), slice(900, N)]):
            order = list(COLUMNS)[:: (-1) ** i]
            kept = {name: [None if v is None else v for v in np.asarray(COLUMNS[name], object)[rows]] for name in order}
            (tmp_path / f"{i}.csv").write_bytes(text(kept))
        (tmp_path / "_SUCCESS").write_text("")
        return data.open_table(tmp_path)
    return data.open_table(write(tmp_path, request.param))


def test_every_reader_gives_the_same_table(table):
    assert len(table) == N
    assert table.schema.names == EXPECTED.schema.names
    assert plain(table.read(0, N)) == plain(EXPECTED)


def test_any_rows_are_those_of_the_whole_table(table):
    places = [0, 1, 899, 901, 999, 1000, EVERY - 1, EVERY, 2 * EVERY + 1, N]
    for start in places:
        for stop in places:
            if start < stop:
                found = table.read(start, stop, ["true", "whole"])
                assert found.equals(EXPECTED.slice(start, stop - start).select(["true", "whole"]))


def test_rows_are_read_from_many_threads(table):
    from concurrent.futures import ThreadPoolExecutor

    starts = list(RNG.integers(0, N - 10, 40))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda start: table.read(int(start), int(start) + 10), starts))
    assert all(plain(block) == plain(EXPECTED.slice(start, 10)) for start, block in zip(starts, found))


def test_parts_are_the_table_cut_in_order(table):
    parts = [table.part(i, 3) for i in range(3)]
    assert plain(pa.concat_tables(part.read(0, len(part)) for part in parts)) == plain(EXPECTED)
    assert [part.row_numbers(0, 1)[0] - table.row_numbers(0, 1)[0] for part in parts] == [0, N // 3, 2 * N // 3]


def test_a_group_of_rows_is_decoded_once_for_all_its_blocks(tmp_path):
    table, groups = data.open_table(write(tmp_path, "parquet")), []
    load = table.load
    object.__setattr__(table, "load", lambda group, names: groups.append((group, *names)) or load(group, names))
    for start in range(0, N - 50, 50):
        table.read(start, start + 50, ["whole"])
    assert groups == [(group, "whole") for group in range(3)]


@shared
def test_the_adult_census_is_read_word_for_word():
    path = Path(os.environ["LR_NN_DATA"]) / "adult.data.gz"
    table = data.csv(path, header=False, names=ADULT, missing=("?",), strip=True)
    rows = [line.split(", ") for line in gzip.decompress(path.read_bytes()).decode().split("\n") if line]
    assert table.schema.names == ADULT and len(table) == len(rows) == 32561
    found = table.read(0, len(table))
    for j, name in enumerate(ADULT):
        column = found.column(name).to_pylist()
        expected = [None if row[j] == "?" else row[j] for row in rows]
        assert [None if value is None else str(value) for value in column] == expected


@shared
def test_the_houses_are_read_as_pandas_reads_them():
    import pandas

    path = Path(os.environ["LR_NN_DATA"]) / "housing.csv.gz"
    table, peer = data.open_table(path), pandas.read_csv(path)
    assert table.read(0, len(table)).equals(pa.Table.from_pandas(peer, preserve_index=False).cast(table.schema))
    assert (
        table.schema.field("ocean_proximity").type == pa.string()
        and table.read(0, 20640)["total_bedrooms"].null_count == 207
    )


CELLS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r", exclude_categories=["Cs"]), min_size=1, max_size=8
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=30), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_text_in_quotes_comes_back(tmp_path_factory, rows, end, bom):
    content = text({"a": [a for a, _ in rows], "b": [b for _, b in rows]}, end)
    table = made(tmp_path_factory.mktemp("csv"), b"\xef\xbb\xbf" * bom + content, missing=("nothing of the kind",))
    typed = table.typed({"a": pa.string(), "b": pa.string()})
    assert typed.read(0, len(rows)).to_pydict() == {"a": [a for a, _ in rows], "b": [b for _, b in rows]}


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=50))
def test_every_float_comes_back_to_the_last_bit(tmp_path_factory, numbers):
    table = made(tmp_path_factory.mktemp("csv"), text({"a": numbers}))
    assert table.typed({"a": pa.float64()}).read(0, len(numbers))["a"].to_pylist() == numbers


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (b"a\n1\n2\n", pa.int64()),
        (b"a\n1\n2.5\n", pa.float64()),
        (b"a\n9223372036854775808\n1\n", pa.float64()),
        (b"a\n1\nNA\n", pa.int64()),
        (b"a,b\n,1\n,2\n", pa.null()),
        (b"a\ntrue\nFalse\n", pa.bool_()),
        (b"a\n1\ntrue\n", pa.string()),
        (b"a\n1\n2020-01-01\n", pa.string()),
        (b"a\n2020-01-01\n2021-02-03\n", pa.date32()),
        (b"a\n2020-01-01\n2021-02-03 10:00:00\n", pa.timestamp("s")),
        (b"a\n12:30:00\n2021-02-03 10:00:00\n", pa.string()),
        (b"a\n1.5\nx\n", pa.string()),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_type_holds_for_all_rows_wherever_they_are(tmp_path, monkeypatch, content, kinds, apart):
    if apart:  # each row in a block of its own
        monkeypatch.setattr("lr_nn.data.csv_files.PIECE", 3)
    assert made(tmp_path, content).schema.field("a").type == kinds


def test_lines_that_are_empty_are_no_rows(tmp_path):
    table = made(tmp_path, b"\n\r\n" + b"a,b\n\n1,2\r\n\r\n\n" + b"3,\n" * EVERY + b"\n\n4,5")
    assert len(table) == EVERY + 2
    assert table.read(EVERY, EVERY + 2).to_pydict() == {"a": [3, 4], "b": [None, 5]}


def test_delimiter_and_header_are_found_where_asked(tmp_path):
    assert made(tmp_path, b"a;b,c\n1;2\n3;4\n", delimiter="sniff", header="sniff").schema.names == ["a", "b,c"]
    assert made(tmp_path, b"1\tx\n2\ty\n", delimiter="sniff", header="sniff").schema.names == ["x0", "x1"]
    assert made(tmp_path, b"a;b\n1;2\n").schema.names == ["a;b"]
    assert made(tmp_path, b"a,,c\n1,2,3\n").schema.names == ["a", "x1", "c"]
    assert made(tmp_path, b"a,b\n1,2\n", names=("c", "d")).read(0, 1).to_pydict() == {"c": [1], "d": [2]}
    assert made(tmp_path, b'5" pipe,1\n6" pipe,2\n', header=False, quote="").read(0, 2)["x0"].to_pylist() == [
        '5" pipe',
        '6" pipe',
    ]


def test_blanks_around_columns_are_taken_away_where_asked(tmp_path):
    content = b'a , b\n1 ,  " x , y " \n 2,?\n'
    assert made(tmp_path, content, strip=True, missing=("?",)).read(0, 2).to_pydict() == {
        "a": [1, 2],
        "b": [" x , y ", None],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "has no row"),
        (b"a,b", "no rows beside its header"),
        (b"a,b\n\n", "no rows beside its header"),
        (b"a,a\n1,2", "two columns are called 'a'"),
        (b"a,b\n1,2\n" + b"3,4\n" * 3000 + b"5\n6,7\n", "row 3001: Expected 2 columns, got 1: 5"),
        (b"a,b\n1,2\n1,2,3\n", "row 1: Expected 2 columns, got 3: 1,2,3"),
        (b"a,b\n1,2\n3,4\xff\n", "row 1 is not UTF-8"),
        ("a,b\n1,2".encode("utf-16"), "is in UTF-16"),
        ("a,ä\n1,2".encode("latin-1"), "the first row is not UTF-8"),
        (b"a,b\n1,2\n3,\x00\n", "row 1 holds a byte of zero"),
        (b'a,b\n1,2\n3,"4\n5,6\n', "row 1 opens a quote that is never closed"),
        (b'"a,b\n1,2\n', "opens a quote that is never closed"),
        (b'a,b\n1,5" pipe\n2,6" pipe\n3,4\n', "a quote in a column that is not quoted"),
        (b"a,b\r1,2\r", "carriage return alone"),
    ],
)
def test_text_that_is_no_table_is_refused_by_row(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        made(tmp_path, content)


def test_text_that_is_no_number_is_refused_by_column_and_row(tmp_path):
    table = made(tmp_path, b"a,b\n" + b"1,2\n" * 5000 + b"3,x y\n4,5\n").typed({"b": pa.float64()})
    with pytest.raises(ValueError, match="row 5000: column 'b': conversion error to double: invalid value 'x y'"):
        table.read(4990, 5002)


@pytest.mark.parametrize("kind", ["csv", "parquet", "feather"])
def test_a_file_that_changes_or_goes_is_an_error(tmp_path, kind):
    path = write(tmp_path, kind)
    table = data.open_table(path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(OSError, match=str(path)):
        table.read(0, N)
    path.unlink()
    with pytest.raises(OSError, match=str(path)):
        table.read(0, N)


@pytest.mark.parametrize("opener", [data.csv, data.parquet, data.arrow, data.open_table])
def test_a_file_that_is_not_there_is_an_error(tmp_path, opener):
    with pytest.raises(FileNotFoundError, match=r"a\.csv"):
        opener(tmp_path / "a.csv")


def test_files_of_another_kind_are_refused_by_what_is_known(tmp_path):
    with pytest.raises(ValueError, match=r"\.csv, .*data\.open_rows"):
        data.open_table(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="Parquet"):
        data.parquet(write(tmp_path, "csv"))
    with pytest.raises(ValueError, match="Arrow"):
        data.arrow(write(tmp_path, "csv"))
    with pytest.raises(TypeError, match="options are for text"):
        data.open_table(write(tmp_path, "parquet"), delimiter=";")


def test_files_of_one_folder_must_agree(tmp_path):
    first = tmp_path / "1.parquet"
    parquet.write_table(pa.table({"a": [1], "b": [1]}), first)
    for other, message in [
        ({"a": [1]}, "2.parquet lacks column 'b'"),
        ({"a": [1], "b": [2], "c": [1]}, "2.parquet has a column 'c'"),
        ({"a": [1], "b": [2.5]}, "column 'b' is double in .*2.parquet and int64 in .*1.parquet"),
    ]:
        parquet.write_table(pa.table(other), tmp_path / "2.parquet")
        with pytest.raises(ValueError, match=message):
            data.parquet(tmp_path)
    (tmp_path / "2.parquet").rename(tmp_path / "2.csv")
    with pytest.raises(ValueError, match=r"2\.csv: a folder that is one table"):
        data.open_table(tmp_path)
    with pytest.raises(ValueError, match="empty folder"):
        (tmp_path / "none").mkdir()
        data.open_table(tmp_path / "none")


def test_text_files_of_one_folder_share_the_widest_type(tmp_path):
    for i, content in enumerate([b"a,b\n1,\n", b"a,b\n2.5,x\n", b"b,a\ny,3\n"]):
        (tmp_path / f"{i}.csv").write_bytes(content)
    assert data.open_table(tmp_path).read(0, 3).to_pydict() == {"a": [1.0, 2.5, 3.0], "b": [None, "x", "y"]}


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({}, ValueError, "no columns"),
        ({"a": []}, ValueError, "no rows"),
        ({"a": [1, "x"]}, ValueError, "the columns"),
        ({"a": [1, 2], "b": [1]}, ValueError, "the columns"),
        (np.zeros((2, 2)), TypeError, "pandas DataFrame"),
    ],
)
def test_columns_that_are_no_table_are_refused(columns, error, message):
    with pytest.raises(error, match=message):
        data.frame(columns)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_read_or_refused(tmp_path_factory, name):
    for seed in range(FUZZED):
        fuzz(FORMATS[name], seed, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("opener", [data.frame, data.csv, data.parquet, data.arrow])
def test_without_pyarrow_the_extra_is_named(monkeypatch, tmp_path, opener):
    path = write(tmp_path, "csv")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[data\]"'):
        opener(path)
