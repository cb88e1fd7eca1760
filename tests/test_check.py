"""Bad input is refused at once, by a message that names what was expected, what was got, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas
import pytest
import scipy.sparse
from jax.experimental import sparse

import lr_nn
from lr_nn import activations, check, losses, penalties, probability
from lr_nn.network import Network
from lr_nn.types import Batch, Forward, Layer

X = np.arange(12.0).reshape(4, 3) / 10
Y = np.array([0, 1, 1, 0])
BAD = np.array([1, 1, np.nan, 1])

BINARY, CLASSES = lr_nn.logistic_regression(3), lr_nn.softmax_regression(3, 3)
COUNTS, VALUES = Network((3, 1), (), losses.poisson), lr_nn.linear_regression(3)


def cost(net=BINARY, x=X, y=Y, weight=None, offset=None, penalty=None, params=None):
    params = lr_nn.init(net, jax.random.key(0)) if params is None else params
    return lr_nn.cost(net, params, Batch(x, y, weight, offset), penalty)


def fit(**keywords):
    return lr_nn.value_and_gradient(BINARY, lr_nn.init(BINARY, jax.random.key(0)), Batch(X, Y), **keywords)


def pull(seed=None, widths=3):
    forward = Forward((jnp.ones((4, widths)),), (None,), jnp.ones((4, 1)))
    return lr_nn.pullback(BINARY, lr_nn.init(BINARY, jax.random.key(0)), forward, jnp.ones(seed))


def row(index, value, like=X):
    changed = np.array(like, float)
    changed[index] = value
    return changed


REFUSALS = {
    "y shorter than x": (lambda: cost(y=Y[:3]), ValueError, "x has 4 rows but y has 3"),
    "x too narrow": (lambda: cost(x=X[:, :2]), ValueError, r"x must have shape \(n, 3\); got \(4, 2\)"),
    "x one example": (lambda: cost(x=X[0]), ValueError, r"\(n, 3\); got \(3,\); one example is x\[None\]"),
    "x of one axis": (lambda: cost(x=Y), ValueError, r"\(n, 3\); got \(4,\)$"),
    "x a number": (lambda: cost(x=1.0), ValueError, r"\(n, 3\); got \(\)"),
    "no rows": (lambda: cost(x=X[:0], y=Y[:0]), ValueError, "x has no rows.*at least one"),
    "label too large": (lambda: cost(CLASSES, y=[0, 1, 2, 3]), ValueError, r"integers in \[0, 3\); got 3 at row 3"),
    "label negative": (lambda: cost(CLASSES, y=[0, -1, 2, 0]), ValueError, r"integers in \[0, 3\); got -1 at row 1"),
    "labels of floats": (
        lambda: cost(CLASSES, y=[0.0, 1.0, 2.0, 0.0]),
        ValueError,
        r"integers in \[0, 3\) or one-hot rows \(4, 3\); got dtype float64: use y.astype\(int\)",
    ),
    "two classes hot": (lambda: cost(CLASSES, y=np.eye(3)[[0, 1, 2, 0]] + [[0, 0, 1]]), ValueError, "one-hot.*row 0"),
    "half a class": (lambda: cost(CLASSES, y=np.full((4, 3), 1 / 2)), ValueError, "distributions.*; got .* at row 0"),
    "too many classes": (lambda: cost(CLASSES, y=np.eye(4)), ValueError, r"shape \(4, 3\); got \(4, 4\)"),
    "a column of labels": (lambda: cost(CLASSES, y=Y[:, None]), ValueError, r"shape \(4, 3\); got \(4, 1\)"),
    "y a matrix too wide": (lambda: cost(y=np.ones((4, 2))), ValueError, r"\(4, 1\) or \(4,\); got \(4, 2\)"),
    "y a number": (lambda: cost(y=1), ValueError, r"\(4, 1\) or \(4,\); got \(\)"),
    "probability above one": (lambda: cost(y=[0, 1, 2, 0]), ValueError, "0 or 1.*got 2 at row 2"),
    "labels of minus one": (lambda: cost(y=[1, 1, -1, 1]), ValueError, "0 or 1.*got -1 at row 2"),
    "negative counts": (lambda: cost(COUNTS, y=[0, 5, -2, 1]), ValueError, "counts, not negative; got -2 at row 2"),
    "x NaN": (lambda: cost(x=row(2, np.nan)), ValueError, "x must be finite; got nan at row 2"),
    "x infinite": (lambda: cost(x=row(1, -np.inf)), ValueError, "x must be finite; got -inf at row 1"),
    "x NaN in JAX": (lambda: cost(x=jnp.asarray(row(3, np.nan))), ValueError, "x must be finite; got nan at row 3"),
    "x NaN to predict": (
        lambda: lr_nn.predict(BINARY, lr_nn.init(BINARY, jax.random.key(0)), row(2, np.nan)),
        ValueError,
        "x must be finite; got nan at row 2",
    ),
    "y NaN": (lambda: cost(y=BAD), ValueError, "targets.*got nan at row 2"),
    "y infinite": (lambda: cost(VALUES, y=row(1, np.inf, Y)), ValueError, "targets.*finite.*got inf at row 1"),
    "weight NaN": (lambda: cost(weight=BAD), ValueError, "weight must be finite.*got nan at row 2"),
    "weight infinite": (lambda: cost(weight=row(2, np.inf, Y)), ValueError, "weight must be finite.*inf at row 2"),
    "weight negative": (
        lambda: cost(weight=[1, -1, 1, 1]),
        ValueError,
        "weight must be.*not negative; got -1 at row 1",
    ),
    "weights all zero": (lambda: cost(weight=np.zeros(4)), ValueError, "weight is zero for every example"),
    "weight a column": (lambda: cost(weight=np.ones((4, 1))), ValueError, r"weight must have shape \(4,\).*\(4, 1\)"),
    "weight a number": (lambda: cost(weight=1.0), ValueError, r"weight must have shape \(4,\).*got \(\)"),
    "weight too short": (
        lambda: lr_nn.backprop(BINARY, lr_nn.init(BINARY, jax.random.key(0)), Batch(X, Y, np.ones(3))),
        ValueError,
        r"weight must have shape \(4,\).*got \(3,\)",
    ),
    "offset NaN": (lambda: cost(offset=BAD), ValueError, "offset must be finite; got nan at row 2"),
    "offset too short": (lambda: cost(offset=np.zeros(3)), ValueError, r"offset.*\(4, 1\); got \(3,\)"),
    "string labels": (lambda: cost(y=["a", "b", "a", "b"]), TypeError, "targets must be.*real numbers; got dtype <U1"),
    "objects": (
        lambda: cost(y=np.array([0, 1, None, 0])),
        TypeError,
        "targets must be.*real numbers; got dtype object",
    ),
    "strings in x": (lambda: cost(x=np.full((4, 3), "1")), TypeError, "x must be.*real numbers; got dtype <U1"),
    "complex x": (lambda: cost(x=1j * X), TypeError, "x must be.*real numbers; got dtype complex128"),
    "scipy sparse x": (lambda: cost(x=scipy.sparse.csr_matrix(X)), TypeError, r"csr_matrix.*x\.toarray\(\)"),
    "scipy sparse array": (lambda: cost(x=scipy.sparse.coo_array(X)), TypeError, r"coo_array.*x\.toarray\(\)"),
    "JAX sparse x": (lambda: cost(x=sparse.BCOO.fromdense(jnp.ones((4, 3)))), TypeError, r"BCOO.*x\.todense\(\)"),
    "sparse y": (lambda: cost(y=scipy.sparse.csr_matrix(np.eye(4))), TypeError, "targets.*csr_matrix.*toarray"),
    "a size of zero": (lambda: lr_nn.mlp((3, 0, 1)), ValueError, "size must be at least 1; got 0"),
    "a fractional size": (lambda: lr_nn.mlp((3, 2.0, 1)), TypeError, "size must be an integer; got 2.0"),
    "a boolean size": (lambda: lr_nn.mlp((3, True, 1)), TypeError, "size must be an integer; got True"),
    "no outputs": (lambda: lr_nn.mlp((3,)), ValueError, r"inputs and outputs, \(d, k\); got \(3,\)"),
    "too few activations": (lambda: lr_nn.mlp((3, 2, 2, 1), (activations.relu,)), ValueError, "2 activations.*got 1"),
    "activations for none": (lambda: Network((3, 1), (activations.relu,), losses.bernoulli), ValueError, "got 1"),
    "a function in hidden": (lambda: lr_nn.mlp((3, 2, 1), (jnp.tanh,)), TypeError, "lr_nn.activations.sigmoid"),
    "a function as hidden": (lambda: lr_nn.mlp((3, 2, 1), jnp.tanh), TypeError, "lr_nn.activations.sigmoid"),
    "a name as hidden": (lambda: lr_nn.mlp((3, 2, 1), "relu"), TypeError, "lr_nn.activations.sigmoid"),
    "an unknown loss": (lambda: lr_nn.mlp((3, 1), loss="bernoulli"), TypeError, "lr_nn.losses.bernoulli; got 'bern"),
    "one class": (lambda: lr_nn.softmax_regression(3, 1), ValueError, "at least 2 outputs; got 1"),
    "integer parameters": (lambda: lr_nn.init(BINARY, jax.random.key(0), int), TypeError, "floating dtype; got int"),
    "block_size zero": (lambda: fit(block_size=0), ValueError, "block_size must be at least 1; got 0"),
    "block_size fractional": (lambda: fit(block_size=1.5), TypeError, "block_size must be an integer; got 1.5"),
    "l2 negative": (lambda: penalties.l2(-1), ValueError, "not negative; got -1"),
    "l1 NaN": (lambda: penalties.l1(np.nan), ValueError, "finite and not negative; got nan"),
    "a lane negative": (lambda: penalties.l2(np.array([0.5, -0.5])), ValueError, "not negative; got -0.5 at index 1"),
    "penalty negative in the cost": (lambda: cost(penalty=lr_nn.Penalty(l1=-1.0)), ValueError, "l1.*not negative"),
    "penalty negative in the gradient": (lambda: fit(penalty=lr_nn.Penalty(l2=-1.0)), ValueError, "l2.*not negative"),
    "penalty a number": (lambda: fit(penalty=0.1), TypeError, "Penalty"),
    "l1_ratio above one": (lambda: penalties.elastic_net(1.0, 1.5), ValueError, "l1_ratio must be at most 1; got 1.5"),
    "l1_ratio negative": (lambda: penalties.elastic_net(1.0, -0.5), ValueError, "l1_ratio.*not negative; got -0.5"),
    "params of another network": (
        lambda: cost(params=lr_nn.init(CLASSES, jax.random.key(0))),
        ValueError,
        r"expected shapes \(w, b\) \[\(\(3, 1\), \(1,\)\)\], got \[\(\(3, 3\), \(3,\)\)\]",
    ),
    "params without bias": (lambda: cost(params=(Layer(jnp.ones((3, 1)), None),)), ValueError, r"got \[.*None"),
    "params of a dict": (lambda: cost(params={"w": 1, "b": 2}), TypeError, r"tuple of Layer\(w, b\).*got dict"),
    "params of integers": (
        lambda: lr_nn.predict(VALUES, (Layer(jnp.ones((3, 1), int), jnp.zeros(1, int)),), X),
        TypeError,
        "float",
    ),
    "params of pairs": (lambda: cost(params=((jnp.ones((3, 1)), jnp.ones(1)),)), TypeError, r"Layer\(w, b\)"),
    "a penalty in the place of the weight": (
        lambda: cost(weight=penalties.l2(0.1)),
        TypeError,
        "weight must be an array of real numbers; got a Penalty: it is an argument of its own, penalty=",
    ),
    "a weight in the place of the penalty": (lambda: cost(penalty=np.ones(4)), TypeError, "penalty must be a Penalty"),
    "a batch in the place of x": (
        lambda: lr_nn.predict(BINARY, lr_nn.init(BINARY, jax.random.key(0)), Batch(X, Y)),
        TypeError,
        "x must be an array of real numbers; got a Batch: pass its field, such as batch.x",
    ),
    "x in the place of the batch": (
        lambda: lr_nn.backprop(BINARY, lr_nn.init(BINARY, jax.random.key(0)), X),
        TypeError,
        r"data must be a Batch\(x, y\); got ndarray",
    ),
    "activations in the place of the forward pass": (
        lambda: lr_nn.pullback(BINARY, lr_nn.init(BINARY, jax.random.key(0)), (jnp.ones((4, 3)),), jnp.ones((4, 1))),
        TypeError,
        "forward must be what lr_nn.forward returns; got tuple",
    ),
    "params of a flat vector": (
        lambda: cost(params=jnp.ones(4)),
        TypeError,
        "params must be.*flat vector.*ravel_pytree",
    ),
    "a key of an integer": (lambda: lr_nn.init(BINARY, 0), TypeError, r"key must be a random key, such as.*got 0"),
    "many keys": (
        lambda: lr_nn.init(BINARY, jax.random.split(jax.random.key(0))),
        ValueError,
        r"key must be one key; got keys of shape \(2,\)",
    ),
    "layers in the place of x": (
        lambda: cost(x=lr_nn.init(lr_nn.mlp((3, 2, 1)), jax.random.key(0))),
        TypeError,
        "x must be an array of real numbers; got a tuple",
    ),
    "rows of unequal lengths": (
        lambda: cost(x=[[1.0, 2.0, 3.0], [1.0]]),
        TypeError,
        "x must be an array of real numbers; got a list",
    ),
    "no network": (lambda: lr_nn.n_parameters((3, 1)), TypeError, "net must be a Network"),
    "no data to train on": (
        lambda: lr_nn.train(BINARY, lr_nn.init(BINARY, jax.random.key(0)), None, optimizer=optax.sgd(0.1), epochs=1),
        TypeError,
        r"data must be a Batch\(x, y\); got NoneType",
    ),
    "a masked array": (lambda: cost(x=np.ma.masked_array(X, X > 1)), TypeError, "x is a masked array"),
    "text in a frame": (
        lambda: cost(x=pandas.DataFrame({"a": [1.0] * 4, "b": list("abcd"), "c": [1] * 4})),
        TypeError,
        "x must be an array of real numbers; got dtype .* in column 'b'",
    ),
    "a missing value of a nullable column": (
        lambda: cost(y=pandas.Series([0, 1, None, 1], dtype="Int64")),
        ValueError,
        "targets.*got nan at row 2",
    ),
    "seed too wide": (lambda: pull((4, 2)), ValueError, r"\(\.\.\., 4, 1\); got \(4, 2\)"),
    "seed of one axis": (lambda: pull((4,)), ValueError, r"\(\.\.\., 4, 1\); got \(4,\)"),
    "seed of other rows": (lambda: pull((3, 1)), ValueError, r"\(\.\.\., 4, 1\); got \(3, 1\)"),
    "activations of other widths": (lambda: pull((4, 1), widths=2), ValueError, r"widths \(3, 1\); got \[\(4, 2\)"),
    "probability 1.5": (lambda: probability.odds(1.5), ValueError, r"p must be in \[0, 1\]; got 1.5"),
    "probability negative": (lambda: probability.log_odds([0.5, -0.5]), ValueError, "got -0.5 at row 1"),
    "probability NaN": (lambda: probability.entropy(BAD), ValueError, r"in \[0, 1\]; got nan at row 2"),
    "q no probability": (lambda: probability.cross_entropy([0.5, 0.5], [0.5, 1.5]), ValueError, "q.*1.5 at row 1"),
    "base one": (lambda: probability.entropy([0.5, 0.5], base=1), ValueError, "base must be positive and not 1"),
    "class out of range": (lambda: probability.categorical_likelihood(np.eye(3), [0, 1, 3]), ValueError, "3 at row 2"),
    "more heads than tosses": (lambda: probability.coin_toss_estimate(4, 3), ValueError, "between 0 and tosses"),
    "no tosses": (lambda: probability.coin_toss_estimate(0, 0), ValueError, "tosses must be at least 1"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_the_refusals_vary_is_accepted():
    assert jnp.isfinite(cost(weight=[1, 0, 2, 1], offset=np.zeros(4), penalty=penalties.elastic_net(0.5, 0.5)))
    assert jnp.isfinite(cost(CLASSES, y=[0, 1, 2, 0])) and jnp.isfinite(cost(COUNTS, y=[0, 5, 2, 1]))
    assert jnp.isfinite(cost(y=[0, 0.5, 1, 0])) and jnp.isfinite(cost(VALUES, y=[0, -7.5, 1, 0]))
    assert fit(block_size=2) and pull((4, 1))


@pytest.mark.parametrize("dtype", [bool, "i1", "u1", "i4", "f2", "f4", jnp.bfloat16])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
def test_targets_and_weights_of_any_real_dtype_mean_the_same(kind, dtype):
    weight = np.array([1, 0, 1, 1])
    assert cost(y=kind(Y.astype(dtype)), weight=kind(weight.astype(dtype))) == cost(weight=weight.astype("f"))
    if np.dtype(dtype).kind in "biu":
        assert cost(CLASSES, y=kind(Y.astype(dtype))) == cost(CLASSES)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray], ids=["NumPy", "JAX"])
def test_labels_in_eight_bits_name_any_class_they_can_hold(kind):
    net = lr_nn.softmax_regression(3, 300)
    labels = np.array([0, 1, 255, 3])
    assert cost(net, y=kind(labels.astype("u1"))) == cost(net, y=labels)


def test_frames_of_numbers_nullable_and_boolean_columns_are_arrays():
    expected = cost(y=np.array([0, 1, 1, 0]))
    frame = pandas.DataFrame(X, columns=list("abc")).astype({"a": "Float64", "b": "float32", "c": float})
    for y in (
        pandas.Series(Y),
        pandas.Series(Y, dtype="Int64"),
        pandas.Series(Y == 1),
        pandas.Series(Y == 1, dtype="boolean"),
    ):
        assert cost(x=frame, y=y) == expected


def test_counts_beyond_32_bits_keep_their_value():
    counts = np.array([0, 1, 3_000_000_000, 2])
    start = (Layer(jnp.zeros((3, 1)), jnp.ones(1)),)
    assert cost(COUNTS, y=counts, params=start) == cost(COUNTS, y=counts.astype(float), params=start)


@pytest.mark.parametrize("strength", [jnp.array([1, 2]), jnp.array([1.0, 2.0], jnp.bfloat16), np.array([1.0, 2.0])])
@pytest.mark.parametrize("x64", [False, True])
def test_an_elastic_net_takes_strengths_of_any_real_dtype(strength, x64):
    with jax.enable_x64(x64):
        penalty = penalties.elastic_net(strength, 0.5)
        assert np.asarray(penalty.l1, float).tolist() == np.asarray(penalty.l2, float).tolist() == [0.5, 1.0]


def test_shapes_and_dtypes_are_checked_in_traced_arrays_and_values_are_not():
    params = lr_nn.init(BINARY, jax.random.key(0))
    traced = jax.jit(lambda x, y, s: lr_nn.cost(BINARY, params, Batch(x, y, s)))
    with pytest.raises(ValueError, match="x has 4 rows but y has 3"):
        traced(X, Y[:3], np.ones(4))
    with pytest.raises(ValueError, match="weight must have shape"):
        traced(X, Y, np.ones(3))
    assert jnp.isnan(traced(row(2, np.nan), Y, np.ones(4)))
    assert check.is_concrete(X) and check.is_concrete(jnp.ones(2))
    assert not jax.jit(lambda a: jnp.asarray(check.is_concrete(a)))(jnp.ones(2))
