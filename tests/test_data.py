"""Rows are read as they lie, in any part and order; a stream covers each once, and remembers nothing."""

import os
import re
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lr_nn.data import Arrays, blocks, mini_batches, npy, problems
from lr_nn.data.stream import count, order, read_ahead

N, D = 37, 3
STATM = Path("/proc/self/statm")


def arrays(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, D)).astype(np.float32), rng.integers(0, 3, n), rng.random(n), rng.random((n, 2))


def assert_same(batch, expected):
    for got, array in zip(batch, expected, strict=True):
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


@given(st.integers(1, N + 3))
def test_blocks_cover_each_row_once_in_its_order(size):
    read = list(blocks(Arrays(*arrays()), size))
    assert [len(block.x) for block in read[:-1]] == [size] * (len(read) - 1)
    assert_same(map(np.concatenate, zip(*read, strict=True)), arrays())


@given(st.integers(1, N + 3), st.integers(0, 3))
def test_an_epoch_is_each_block_once_in_the_order_of_key_and_epoch(size, epoch):
    rows, key = Arrays(*arrays()), jax.random.key(epoch)
    places = order(key, epoch, count(rows, size))
    assert sorted(places.tolist()) == list(range(-(-N // size)))
    for place, batch in zip(places, mini_batches(rows, size, key=key, epoch=epoch), strict=True):
        assert_same(batch, (array[place * size : (place + 1) * size] for array in arrays()))


def test_a_stream_goes_on_from_any_position():
    rows, key = Arrays(*arrays()), jax.random.key(1)
    all_of_them = list(mini_batches(rows, 4, key=key, epoch=5))
    for start in range(len(all_of_them)):
        for late, early in zip(mini_batches(rows, 4, key=key, epoch=5, start=start), all_of_them[start:], strict=True):
            assert_same(late, early)


def test_epochs_and_keys_have_orders_of_their_own():
    orders = {tuple(order(jax.random.key(k), epoch, 20).tolist()) for k in range(3) for epoch in range(3)}
    assert len(orders) == 9


@given(st.integers(1, N))
def test_parts_are_the_whole_and_differ_by_one_row_at_most(parts):
    rows = Arrays(*arrays())
    cut = [rows.part(index, parts) for index in range(parts)]
    assert max(map(len, cut)) - min(map(len, cut)) <= 1
    assert_same(map(np.concatenate, zip(*(part.read(0, len(part)) for part in cut), strict=True)), arrays())


def test_a_part_of_a_part_is_a_part():
    rows = Arrays(*arrays()).part(1, 2).part(2, 3)
    start = N // 2 + 2 * (N - N // 2) // 3
    assert_same(rows.read(0, len(rows)), (array[start:] for array in arrays()))


@pytest.mark.parametrize("start, stop", [(0, 0), (-1, 2), (3, 2), (0, 6), (18, 19)])
def test_no_range_is_cut_short_in_silence(start, stop):
    with pytest.raises(ValueError, match="0 ≤ start < stop"):
        Arrays(*arrays()).part(0, 7).read(start, stop)
    with pytest.raises(ValueError, match="0 ≤ start < stop"):
        Arrays(*arrays(5)).read(start, stop)


def test_what_was_read_is_the_readers_own():
    x = arrays()[0]
    Arrays(x).read(0, N).x[:] = 0
    np.testing.assert_array_equal(x, arrays()[0])


def test_a_fingerprint_tells_rows_apart():
    x, y, *_ = arrays(500)
    other = x.copy()
    other[-1, -1] += 1
    rows = (Arrays(x), Arrays(x, y), Arrays(other), Arrays(x[:-1]), Arrays(x, features=("a", "b", "c")))
    assert len({each.fingerprint() for each in rows}) == 5
    assert Arrays(x).fingerprint() == Arrays(x.copy()).fingerprint() != Arrays(x.astype(float)).fingerprint()


@pytest.mark.parametrize("wrong", [{"y": np.ones(3)}, {"weight": np.ones((N, 1))}, {"offset": np.ones((N, 1, 1))}])
def test_shapes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must have shape"):
        Arrays(arrays()[0], **wrong)


def resident():
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not STATM.exists(), reason="resident memory is read as Linux tells it")
@pytest.mark.parametrize("by_column", [False, True])
def test_a_mapped_file_does_not_stay_in_memory(tmp_path, by_column):
    size = 2**25
    x = np.ones((size // 8 // 4, 4))
    np.save(tmp_path / "x.npy", np.asfortranarray(x) if by_column else x)
    del x
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for rows in (Arrays(mapped), npy(tmp_path / "x.npy")):
        before = resident()
        assert sum(block.x.sum() for block in blocks(rows, 2**12)) == size / 8
        assert resident() - before < size / 4
    before = resident()
    assert mapped.sum() == size / 8
    assert resident() - before > size / 2, "a map that is touched stays, and the test sees it"


def test_changes_that_a_map_keeps_to_itself_are_read(tmp_path):
    np.save(tmp_path / "x.npy", arrays()[0])
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c")
    mapped[0, 0] = 7
    assert Arrays(mapped).read(0, 1).x[0, 0] == 7


VIEWS = {
    "rows": lambda a: a[5:],
    "columns": lambda a: a[3:, 1:],
    "every other row": lambda a: a[1::2],
    "backwards": lambda a: a[::-1],
    "turned": lambda a: a.T,
}


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("view", VIEWS.values(), ids=list(VIEWS))
def test_a_view_of_a_map_is_read_where_it_lies(tmp_path, view, by_column):
    x = arrays()[0]
    np.save(tmp_path / "x.npy", np.asfortranarray(x) if by_column else x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    rows, expected = Arrays(view(mapped), view(mapped)[:, 0]), view(x)
    batch = rows.read(1, len(rows))
    np.testing.assert_array_equal(batch.x, expected[1:])
    np.testing.assert_array_equal(batch.y, expected[1:, 0])


def test_a_map_whose_file_is_cut_off_is_an_error_and_no_crash(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float64, (10000, 3))
    rows = Arrays(x[:, :2], x[:, 2])
    assert rows.read(9999, 10000).y == 0
    os.truncate(tmp_path / "x.npy", 4096)
    with pytest.raises(OSError, match=r"x\.npy was cut off"):
        rows.read(9999, 10000)


@pytest.mark.parametrize("cut", [True, False])
def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path, cut):
    path = tmp_path / "x.npy"
    np.save(path, arrays()[0])
    rows = npy(path)
    rows.read(0, N)
    content = path.read_bytes()
    path.write_bytes(content[:-8] if cut else content + b"more")
    with pytest.raises(OSError, match=f"{path} was {'cut off' if cut else 'changed'}"):
        rows.read(0, 1)
    path.unlink()
    with pytest.raises(OSError, match=r"x\.npy"):
        rows.read(0, 1)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lr_nn")]


def test_errors_come_in_their_place_and_end_the_thread():
    def fail():
        raise OSError("the disk is gone")

    stream = read_ahead([lambda: 1, lambda: 2, fail, lambda: 4])
    assert [next(stream), next(stream)] == [1, 2]
    assert threads()
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert not threads()


def test_a_stream_that_is_left_ends_its_thread():
    reads = []
    stream = read_ahead(lambda i=i: reads.append(i) or i for i in range(100))
    assert next(stream) == 0
    stream.close()
    assert not threads() and len(reads) <= 2, "no more than one is read ahead"


def test_nothing_is_read_ahead_of_an_empty_stream():
    assert list(read_ahead([])) == [] and not threads()


CLEAN = np.random.default_rng(0).normal(size=(200, 4))
HALVES = np.arange(200) % 2


def changed(rows=slice(None), column=1, value=np.nan):
    x = CLEAN.copy()
    x[rows, column] = value
    return x


PROBLEMS = {
    "nan": (Arrays(changed(17), HALVES), ["column x1 has 1 value .* nan at row 17"]),
    "infinities": (Arrays(changed([150, 3], 0, -np.inf), HALVES), ["column x0 has 2 values .* -inf at row 3"]),
    "constant": (Arrays(changed(value=2.5), HALVES), [r"column x1 is 2\.5 in every row"]),
    "nothing but nan": (Arrays(changed(), HALVES), ["column x1 has 200 values"]),
    "scales": (Arrays(CLEAN * [1, 1e4, 1, 1e-4], HALVES), ["scales of columns differ: x1 .*, x3 .*standardise"]),
    "narrow": (Arrays(changed(value=1e9 + HALVES), HALVES), ["x1 from 1000000000 to 1000000001: subtract"]),
    "huge": (Arrays(CLEAN * 1e40, HALVES), ["infinite in float32"]),
    "names": (Arrays(CLEAN, HALVES, features=("a", "b", "a", "c")), ["the name a stands for 2 columns"]),
    "few rows": (Arrays(CLEAN[:3], HALVES[:3]), ["3 rows are fewer than 4 columns"]),
    "one label": (Arrays(CLEAN, 0 * HALVES), ["y is 0 in every row: there is nothing to learn"]),
    "signs": (Arrays(CLEAN, 2 * HALVES - 1), ["two values -1 and 1"]),
    "from one": (Arrays(CLEAN, np.arange(200) % 3 + 1), ["values 1 to 3: if they are classes, count them from 0"]),
    "missing target": (Arrays(CLEAN, np.where(HALVES, 1.0, np.nan)), ["y has 100 values .* at row 0", "y is 1"]),
    "one output": (Arrays(CLEAN, np.stack([HALVES, 0 * HALVES], 1)), [r"y\[1\] is 0"]),
    "weight": (Arrays(CLEAN, HALVES, -1.0 * (np.arange(200) == 9)), ["weight is negative at row 9"]),
    "no weight": (Arrays(CLEAN, HALVES, np.zeros(200)), ["weight is zero in every row"]),
    "offset": (Arrays(CLEAN, HALVES, None, np.where(HALVES, 0, np.inf)), ["offset has 100 values"]),
}


@pytest.mark.parametrize("rows, expected", PROBLEMS.values(), ids=list(PROBLEMS))
def test_each_problem_is_said_once_with_its_place(rows, expected, monkeypatch):
    monkeypatch.setattr("lr_nn.data.checks.BLOCK", 64)
    found = problems(rows)
    assert len(found) == len(expected)
    for sentence, pattern in zip(found, expected):
        assert re.search(pattern, sentence), sentence


def test_good_rows_have_no_problems():
    assert problems(Arrays(CLEAN, HALVES, np.ones(200), np.zeros(200))) == []
    assert problems(Arrays(CLEAN, CLEAN[:, :2])) == []


def test_rows_that_cannot_be_read_are_a_problem_with_its_place(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, CLEAN)
    rows = npy(path)
    path.write_bytes(path.read_bytes()[:-8])
    (sentence,) = problems(rows)
    assert "from row 0 on" in sentence and "cut off" in sentence
