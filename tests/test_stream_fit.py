"""Fits of rows that are read in blocks, against the same rows in memory and against optima found by other means."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import expit, softmax
from test_fit import NETS, D, rows
from tolerances import tolerance

import lr_nn
from lr_nn import Batch, Status, losses, penalties
from lr_nn.data import Arrays
from lr_nn.fitting.chunks import Sums
from lr_nn.fitting.opening import of_rows
from lr_nn.fitting.settings import DEFAULT

# Programs are made for blocks, whose size is the same for all of these: most tests compile nothing.
N, MANY = 3000, 15000
# Too little for the rows, enough for blocks and factors.
LITTLE = 2**17
# Several outputs are those of "logistic, 3 labels".
every_net = pytest.mark.parametrize("name", [name for name in NETS if name != "linear, 3 outputs"])
smooth = pytest.mark.parametrize("penalty", [None, penalties.l2(0.01)], ids=["none", "l2"])


def both(net, x, y, memory=LITTLE, weight=None, offset=None, **settings):
    """The fit in memory, and that of blocks."""
    whole = lr_nn.fit(net, Batch(x, y, weight, offset), **settings)
    found = lr_nn.fit(net, Arrays(x, y, weight, offset), memory=memory, **settings)
    assert "passes of blocks" in found.message, "the rows were read into memory"
    return whole, found


def assert_same_fit(whole, found, closeness=1e-5):
    assert found.status is whole.status is Status.converged, found.message
    rounding = tolerance(np.float64, N) * (1 + abs(whole.cost))
    assert abs(found.cost - whole.cost) <= whole.certificate + found.certificate + rounding
    np.testing.assert_allclose(found.coefficients, whole.coefficients, rtol=closeness, atol=closeness / 10)


MEANS = {
    "linear": lambda eta: eta,
    "logistic": expit,
    "softmax": lambda eta: softmax(eta, axis=1),
    "poisson": np.exp,
}


def slope(net, task, params, x, y, penalty):
    """The largest entry of ∇J = x̃ᵀ(μ - y)/n + l2 w, by NumPy: zero at the minimum of a convex cost, and only there."""
    (layer,) = params
    eta = x @ layer.w + (0 if layer.b is None else layer.b[None])
    residual = MEANS[task](eta) - (np.eye(net.sizes[1])[y] if task == "softmax" else y)
    pull = x.T @ residual / len(x) + (0 if penalty is None else penalty.l2 * layer.w)
    return max(np.abs(pull).max(), 0 if layer.b is None else np.abs(residual.mean(axis=0)).max())


@smooth
@every_net
def test_rows_in_blocks_are_fitted_to_the_optimum_of_all_and_the_certificate_is_a_bound(name, penalty):
    net, x, y = rows(name, n=N)
    roughly, better, best = (
        lr_nn.fit(net, Arrays(x, y), penalty=penalty, tol=tol, memory=LITTLE) for tol in (1e-3, 1e-6, 1e-12)
    )
    assert slope(net, name.split(",")[0], best.params, x, y, penalty) <= 1e-6
    for found in (roughly, better, best):
        assert found.status is Status.converged and "passes of blocks" in found.message, found.message
        assert found.cost - best.cost <= found.certificate + tolerance(np.float64, N) * (1 + abs(best.cost))


@pytest.mark.parametrize("solver", ["newton_cg", "proximal"])
def test_what_is_solved_in_memory_is_solved_from_files(solver):
    net, x, y = rows("softmax", n=N)
    penalty = penalties.l1(0.02) if solver == "proximal" else None
    whole, found = both(net, x, y, penalty=penalty, solver=solver)
    assert_same_fit(whole, found)


def test_least_squares_in_closed_form_need_all_rows():
    net, x, y = rows("linear", n=N)
    with pytest.raises(ValueError, match="closed_form needs all rows in the memory of one process"):
        lr_nn.fit(net, Arrays(x, y), memory=LITTLE, solver="closed_form")


def test_a_sample_that_misleads_loosens_no_bound():
    """Rows are long in every third block."""
    net, x, y = rows("logistic", n=MANY)
    x[(np.arange(MANY) // 512) % 3 > 0] /= 100
    best = lr_nn.fit(net, Batch(x, y)).cost
    for tol in (1e-3, 1e-4):
        found = lr_nn.fit(net, Arrays(x, y), tol=tol, memory=LITTLE)
        assert found.status is Status.converged and "passes of blocks" in found.message, found.message
        assert found.cost - best <= found.certificate + tolerance(np.float64, MANY)


@smooth
def test_weights_and_offsets_come_with_the_rows(penalty):
    net, x, y = rows("softmax", n=N)
    rng = np.random.default_rng(3)
    offset = 0.3 * rng.standard_normal((N, net.sizes[1]))
    assert_same_fit(*both(net, x, y, weight=rng.random(N), offset=offset, penalty=penalty))


def test_integer_weights_are_duplicated_rows():
    net, x, y = rows("logistic", n=N)
    counts = np.random.default_rng(2).integers(0, 4, N)
    repeated = lr_nn.fit(net, Arrays(np.repeat(x, counts, axis=0), np.repeat(y, counts, axis=0)), memory=LITTLE)
    weighted = lr_nn.fit(net, Arrays(x, y, counts), memory=LITTLE)
    assert_same_fit(repeated, weighted)


@pytest.mark.parametrize("size", [1e-300, 1e300])
def test_weights_of_every_size_are_the_same_problem(size):
    net, x, y = rows("logistic", n=N)
    plain, weighted = (lr_nn.fit(net, Arrays(x, y, w), memory=LITTLE) for w in (None, np.full(N, size)))
    assert_same_fit(plain, weighted)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_a_row_of_weight_zero_may_hold_anything_but_targets(value):
    net, x, y = rows("logistic", n=N)
    weight = np.ones(N)
    weight[::7] = 0
    wild = np.where(weight[:, None] > 0, x, value)
    kept = weight > 0
    found = lr_nn.fit(net, Arrays(wild, y, weight), memory=LITTLE)
    assert_same_fit(lr_nn.fit(net, Arrays(x[kept], y[kept]), memory=LITTLE), found)


def test_the_size_of_the_blocks_changes_no_more_than_rounding():
    net, x, y = rows("logistic", n=N)
    assert_same_fit(*both(net, x, y, memory=2 * LITTLE, penalty=penalties.l2(1e-3)))


def test_rows_that_fit_into_memory_are_read_once():
    net, x, y = rows("logistic")
    source = Counted(x, y)
    found, whole = lr_nn.fit(net, source), lr_nn.fit(net, Batch(x, y))
    assert source.reads == [(0, len(x))]
    np.testing.assert_array_equal(found.coefficients, whole.coefficients)


@pytest.mark.parametrize("by", ["target", "feature"])
def test_a_sorted_file_is_no_harder(by):
    net, x, y = rows("logistic", n=N)
    order = np.argsort(y[:, 0] if by == "target" else x[:, 0], kind="stable")
    assert_same_fit(*both(net, x[order], y[order]))


def test_a_category_that_no_sample_knows_is_fitted_all_the_same():
    net, x, y = rows("logistic", n=MANY)
    x[:, -1] = 0
    x[7001:7041, -1] = 1
    # Few rows know its coefficient: the tolerance on J leaves it that much.
    assert_same_fit(*both(net, x, y), closeness=1e-3)


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_every_solver_ends_at_the_same_optimum(name, solver):
    net, x, y = rows(name, n=N)
    found = lr_nn.fit(net, Arrays(x, y), memory=LITTLE, solver=solver)
    assert found.solver == solver
    assert_same_fit(lr_nn.fit(net, Batch(x, y)), found)


def test_many_parameters_have_the_factors_of_a_sample_in_place_of_the_hessian():
    rng = np.random.default_rng(0)
    net, x = lr_nn.logistic_regression(20, 10), rng.standard_normal((4000, 20))
    y = (x @ rng.standard_normal((20, 10)) / 6 + rng.standard_normal((4000, 10)) > 0).astype(float)
    found = lr_nn.fit(net, Arrays(x, y), memory=2**20, penalty=penalties.l2(1e-2))
    assert found.status is Status.converged and "passes of blocks" in found.message, found.message
    assert slope(net, "logistic", found.params, x, y, found.penalty) <= 1e-6


@pytest.mark.parametrize("name", ["logistic", "softmax"])
def test_duplicated_columns_are_an_optimum_that_is_not_the_only_one(name):
    net, x, y = rows(name, n=N)
    x[:, -1] = x[:, 0]
    whole, found = both(net, x, y)
    assert found.status is whole.status is Status.rank_deficient and "penalty" in found.message
    assert abs(found.cost - whole.cost) <= 1e-12 and found.certificate <= 1e-12
    assert lr_nn.fit(net, Arrays(x, y), memory=LITTLE, penalty=penalties.l2(0.1)).status is Status.converged


def test_separated_rows_have_no_maximum_and_the_direction_is_named():
    _, x, _ = rows("logistic", n=N)
    y = (x[:, 0] > x[:, 0].mean()).astype(float)
    found = lr_nn.fit(NETS["logistic"][0], Arrays(x, y), memory=LITTLE)
    assert found.status is Status.separated and not found.certificate < np.inf
    (direction,) = found.direction
    gains = (2 * y - 1) * (x @ direction.w + direction.b[None])[:, 0]
    assert (gains >= -1e-9).all() and gains.max() > 0 and "coefficient 0 of output 0" in found.message
    held = lr_nn.fit(NETS["logistic"][0], Arrays(x, y), memory=LITTLE, penalty=penalties.l2(1e-3))
    assert held.status is Status.converged and held.direction is None


def test_a_sample_that_is_separated_does_not_make_all_rows_so():
    net, x, _ = rows("logistic", n=MANY)
    y = (x[:, 0] > x[:, 0].mean()).astype(float)
    y[1000:1010] = 1 - y[1000:1010]
    assert_same_fit(*both(net, x, y))


def test_one_class_alone_is_separated():
    _, x, _ = rows("logistic", n=N)
    found = lr_nn.fit(NETS["logistic"][0], Arrays(x, np.ones(N)), memory=LITTLE)
    assert found.status is Status.separated


def test_a_start_at_the_optimum_needs_few_passes_and_too_few_steps_say_so():
    net, x, y = rows("logistic", n=N)
    whole = lr_nn.fit(net, Batch(x, y))
    again = lr_nn.fit(net, Arrays(x, y), start=whole.params, memory=LITTLE)
    assert again.status is Status.converged and again.steps <= 2
    short = lr_nn.fit(net, Arrays(x, y), max_steps=1, memory=LITTLE)
    assert short.status is Status.max_steps and short.steps == 1 and "allow more steps" in short.message


def test_results_are_numpy_and_in_float32_the_certificate_is_still_a_bound():
    net, x, y = rows("logistic", n=N)
    whole, found = both(net, x.astype(np.float32), y)
    assert {type(leaf) for leaf in jax.tree.leaves(found.params)} == {np.ndarray}
    assert found.params[0].w.dtype == np.float64 and not jax.config.jax_enable_x64
    narrow = lr_nn.fit(net, Arrays(x.astype(np.float32), y), memory=LITTLE, dtype=np.float32, tol=1e-6)
    assert narrow.params[0].w.dtype == np.float32 and narrow.status is Status.converged
    assert narrow.cost - whole.cost <= narrow.certificate


class Counted(Arrays):
    """Rows that tell what was read, and may fail."""

    def __init__(self, x, y, weight=None, fails=None, at=2500):
        super().__init__(x, y, weight)
        object.__setattr__(self, "reads", [])
        object.__setattr__(self, "fails", fails)
        object.__setattr__(self, "at", at)

    def read(self, start, stop):
        self.reads.append((start, stop))
        if self.fails is not None and start <= self.at < stop and len(self.reads) > 60:
            raise self.fails
        return super().read(start, stop)


@pytest.mark.parametrize("error", [OSError("the disk has gone"), KeyboardInterrupt()], ids=["a disk", "Ctrl-C"])
def test_what_interrupts_a_pass_is_passed_on_and_leaves_no_thread(error, monkeypatch):
    net, x, y = rows("logistic", n=N)
    if isinstance(error, KeyboardInterrupt):
        monkeypatch.setattr(Sums, "joined", lambda a, b: (_ for _ in ()).throw(error))
        source = Arrays(x, y)
    else:
        source = Counted(x, y, fails=error)
    threads = set(threading.enumerate())
    with pytest.raises(type(error)) as raised:
        lr_nn.fit(net, source, memory=LITTLE)
    assert raised.value is error
    assert not [t for t in set(threading.enumerate()) - threads if t.name.startswith("lr_nn")]


class Growing(Arrays):
    """A file to which somebody writes."""

    def __init__(self, x, y):
        super().__init__(x, y)
        object.__setattr__(self, "asked", [])

    def __len__(self):
        self.asked.append(1)
        return super().__len__() - (len(self.asked) > 60)


def test_rows_that_change_between_passes_are_an_error():
    net, x, y = rows("logistic", n=N)
    with pytest.raises(ValueError, match="rows changed during the fit"):
        lr_nn.fit(net, Growing(x, y), memory=LITTLE)


def spoiled(array, row, value):
    array = np.array(array, float)
    array[row] = value
    return array


NET, X, Y = rows("logistic", n=N)
ONES = np.ones(N)
REFUSALS = {
    "NaN": (lambda: Arrays(spoiled(X, 2717, np.nan), Y), {}, "x must be finite; got .*nan.* at row 2717"),
    "infinity": (lambda: Arrays(spoiled(X, 0, np.inf), Y), {}, "x must be finite; got .*inf.* at row 0"),
    "a target of two": (lambda: Arrays(X, spoiled(Y, 2501, 2)), {}, "0 or 1, or probabilities .* at row 2501"),
    "a negative weight": (lambda: Arrays(X, Y, spoiled(ONES, 1234, -1)), {}, "weight must be .* at row 1234"),
    "no weight": (lambda: Arrays(X, Y, 0 * ONES), {}, "weight is zero for every example"),
    "an offset of NaN": (lambda: Arrays(X, Y, None, spoiled(ONES, 9, np.nan)), {}, "offset must be finite.* row 9"),
    "no targets": (lambda: Arrays(X), {}, "no targets"),
    "fewer features": (lambda: Arrays(X[:, :2], Y), {}, "takes 4 features; the rows have 2"),
    "little memory": (lambda: Arrays(X, Y), {"memory": 2**12}, "memory must hold two blocks"),
    "closed form": (lambda: Arrays(X, Y), {"solver": "closed_form"}, "closed_form is for the squared error"),
    "no step": (lambda: Arrays(X, Y), {"max_steps": 0}, "max_steps must be at least 1"),
}


@pytest.mark.parametrize(("source", "settings", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_rows_are_refused_by_number(source, settings, message):
    with pytest.raises(ValueError, match=message):
        lr_nn.fit(NET, source(), **{"memory": LITTLE, **settings})


def test_rows_of_a_file_need_targets_and_deep_networks_take_no_rows():
    with pytest.raises(ValueError, match="the rows have no targets"):
        lr_nn.fit(NET, Arrays(X))
    with pytest.raises(ValueError, match="one layer and a convex cost"):
        lr_nn.fit(lr_nn.mlp((D, 3, 1)), Arrays(X, Y))


def test_numbers_beyond_float32_are_fitted_in_float64():
    net, x, y = rows("logistic", n=N)
    whole, found = lr_nn.fit(net, Batch(x, y)), lr_nn.fit(net, Arrays(x * 1e45, y), memory=LITTLE)
    assert found.status is Status.converged, found.message
    np.testing.assert_allclose(found.params[0].w * 1e45, whole.params[0].w, rtol=1e-5, atol=1e-6)


def test_an_offset_that_overflows_an_exponential_is_taken_off_the_bias():
    net = lr_nn.Network((1, 1), (), losses.poisson)
    x = np.linspace(-1, 1, N)[:, None]
    found = lr_nn.fit(net, Arrays(x, np.ones(N), None, np.full(N, 1000.0)), memory=LITTLE)
    assert found.status is Status.converged, found.message
    np.testing.assert_allclose(found.coefficients[:, 0], [0, -1000], atol=1e-9)


@pytest.mark.parametrize("n", [N, 2800, 2801], ids=["a ragged end", "whole blocks", "a row of its own"])
def test_the_fold_of_a_pass_is_that_of_all_rows_at_once(n):
    """Blocks, and what the last one lacks, add up to the cost, the gradient and the Hessian of this package."""
    theta, x, y = np.random.default_rng(0).standard_normal((D + 1, 1)), X[:n], Y[:n]
    with jax.enable_x64(True):
        source = of_rows(NET, Arrays(x, y), 700, 1.0, np.inf, DEFAULT)
        found = source.fold(lambda chunk: chunk.sums(theta, True, True), Sums.joined)
        params = (lr_nn.types.Layer(theta[:D], theta[D]),)
        value, (fall,) = lr_nn.value_and_gradient(NET, jax.tree.map(jax.numpy.asarray, params), lr_nn.Batch(x, y))
    tol = tolerance(np.float64, n)
    np.testing.assert_allclose(found.cost / n, value, rtol=tol)
    expected = np.concatenate([fall.w, fall.b[None]])
    np.testing.assert_allclose(found.gradient / n, expected, rtol=tol, atol=tol * np.abs(expected).max())
    eta, inputs = x @ theta[:D, 0] + theta[D], np.column_stack([x, np.ones(n)])
    np.testing.assert_allclose(found.extent, np.abs(inputs).max(axis=0), rtol=tol)
    curvature = 1 / (2 + 2 * np.cosh(eta))
    expected = inputs.T @ (curvature[:, None] * inputs)
    np.testing.assert_allclose(found.hessian[0], expected, rtol=1e-9, atol=tol * np.abs(expected).max())
    np.testing.assert_allclose(found.cross[:, 0], inputs.T @ curvature, rtol=1e-9, atol=tol * n)


GROWTH = """
import sys
import numpy as np
import jax
import lr_nn
from lr_nn.data import Arrays

def resident():
    with open("/proc/self/status") as told:
        return next(int(line.split()[1]) * 1024 for line in told if line.startswith("VmRSS"))

class Watched(Arrays):
    def read(self, start, stop):
        highest.append(resident())
        return super().read(start, stop)

rows = Watched(*(np.load(path, mmap_mode="r") for path in sys.argv[1:3]))
net = lr_nn.logistic_regression(50)
highest = []
memory = int(sys.argv[-1])
lr_nn.fit(net, rows.part(0, 4), memory=memory)  # what compiles is compiled
begun, highest = resident(), []
assert lr_nn.fit(net, rows, memory=memory).status == 0
print(max(highest) - begun)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is resident")
def test_memory_does_not_grow_with_the_file(tmp_path):
    n, memory, rng = 10**6 // 4, 2**23, np.random.default_rng(0)
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 50))
    y = np.lib.format.open_memmap(tmp_path / "y.npy", "w+", np.float32, (n,))
    for start in range(0, n, n // 10):
        block = rng.standard_normal((n // 10, 50), np.float32)
        x[start : start + n // 10] = block
        y[start : start + n // 10] = block[:, 0] + rng.standard_normal(n // 10, np.float32) > 0
    x.flush(), y.flush()
    asked = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy"), str(memory)]
    here = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, *asked], env=here, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    # The working set, and what the allocator and the compiler keep.
    assert int(done.stdout) <= 4 * memory, f"{int(done.stdout) / 2**20:.0f} MiB for 50 MB of rows"
