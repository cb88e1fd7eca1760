"""Rows held out: every row on one side, the same for a table and for its numbers, by chance and by the key."""

import jax
import numpy as np
import pytest

from lr_nn import data
from lr_nn.data import split, splitting

KEY = jax.random.key(0)


def sides(n, share, seed):
    """The numbers of the rows on both sides, read from a table and from rows."""
    numbers = np.arange(n)
    rows = split(data.Arrays(numbers[:, None], -numbers), share, key=jax.random.key(seed))
    tables = split(data.frame({"row": numbers}), share, key=jax.random.key(seed))
    for part, table in zip(rows, tables):
        batch = part.read(0, len(part))
        np.testing.assert_array_equal(batch.x[:, 0], -batch.y)
        np.testing.assert_array_equal(batch.x[:, 0], table.read(0, len(table)).column("row").to_numpy())
        assert len(part) == len(table) == len(batch.x)
    return [part.read(0, len(part)).x[:, 0] for part in rows]


@pytest.mark.parametrize("most", [2**20, 100, 7, 3])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [5, 100, 101])
def test_every_row_is_on_one_side_in_its_order(monkeypatch, n, seed, most):
    monkeypatch.setattr(splitting, "MOST", most)
    seen, held = sides(n, 0.4, seed)
    np.testing.assert_array_equal(np.sort(np.concatenate([seen, held])), np.arange(n))
    assert (np.diff(seen) > 0).all() and (np.diff(held) > 0).all()


def test_the_share_is_held_out_and_the_key_chooses():
    seen, held = sides(1000, 0.2, 0)
    assert len(held) == 200 and len(seen) == 800
    np.testing.assert_array_equal(held, sides(1000, 0.2, 0)[1])
    with pytest.raises(TypeError, match="key must be a random key"):
        split(data.Arrays(np.ones((9, 1))), 0.5, key=0)
    assert len(np.intersect1d(held, sides(1000, 0.2, 1)[1])) < 100


@pytest.mark.parametrize("most", [2**20, 13])
def test_blocks_of_a_side_are_its_rows(monkeypatch, most):
    monkeypatch.setattr(splitting, "MOST", most)
    for part in split(data.Arrays(np.arange(90)[:, None]), 0.3, key=KEY):
        whole = part.read(0, len(part)).x
        np.testing.assert_array_equal(np.concatenate([batch.x for batch in data.blocks(part, 4)]), whole)


def test_a_side_without_rows_is_refused():
    for n, share in ((3, 0.1), (3, 0.9), (1, 0.5)):
        with pytest.raises(ValueError, match=f"of {n} rows leaves none on one side"):
            split(data.Arrays(np.zeros((n, 1))), share, key=KEY)


def test_rows_of_a_side_are_named_by_their_place_among_all():
    size = np.arange(20.0)
    size[[3, 17]] = np.inf
    table = data.frame({"size": size, "sold": np.arange(20) % 2})
    sides = split(table.part(0, 1), 0.5, key=KEY)
    schema = data.learn(data.frame({"size": np.arange(20.0), "sold": np.arange(20) % 2}), "sold")
    for side in sides:
        bad = [row for row in side.row_numbers(0, len(side)) if row in (3, 17)]
        for wrong in (
            lambda side=side: data.learn(side, "sold"),
            lambda side=side: schema.rows(side).read(0, len(side)),
        ):
            if bad:
                with pytest.raises(ValueError, match=f"at row {bad[0]}[:;]"):
                    wrong()
    assert sorted(row for side in sides for row in side.row_numbers(0, len(side))) == list(range(20))


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (0, 99)])
def test_what_is_no_range_of_rows_is_refused_and_not_cut_short(start, stop):
    table = data.frame({"size": np.arange(20.0), "sold": np.arange(20) % 2})
    rows = data.learn(table, "sold").rows(table)
    for source in (
        table,
        table.part(0, 2),
        split(table, 0.5, key=KEY)[0],
        rows,
        rows.part(0, 2),
        split(rows, 0.5, key=KEY)[0],
    ):
        with pytest.raises(ValueError, match="expected 0 ≤ start < stop ≤ n"):
            source.read(start, stop)


def test_what_a_reader_noted_is_noted_of_both_sides():
    assert [side.notes for side in split(data.Arrays(np.ones((9, 1)), notes=("so",)), 0.5, key=KEY)] == [("so",)] * 2
