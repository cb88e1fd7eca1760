"""The referee kills what is wrong, spares what is right, and says which of the two it cannot tell."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lr_nn
from lr_nn import Batch, activations, audit, curvature, losses, penalties, tangents
from lr_nn.referee import Verdict

W = np.array([0.5, -1.25, 2.0])


def cube(w):
    return jnp.sum(w**3)


def cube_slope(w):
    return 3 * w**2


@jax.custom_vjp
def hidden(w):
    return jnp.sum(w**2)


hidden.defvjp(lambda w: (hidden(w), w), lambda w, g: (3 * w * g,))


def while_doubled(w):
    """8 Σ w, by a loop that has no pullback."""
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, jnp.sum(w)))[1]


def worst(*arguments, **options):
    report = audit(*arguments, **options)
    return report, report.worst.verdict, report.worst.worst.reason


def network(net, penalty=None):
    """An audit of `value_and_gradient` on weighted data."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((24, net.sizes[0])).astype(np.float32)
    y = rng.integers(0, 2, 24) if net.loss in (losses.bernoulli, losses.categorical) else rng.random(24)
    batch = Batch(x, y, weight=rng.uniform(0.5, 2, 24).astype(np.float32))
    params = jax.tree.map(lambda leaf: leaf + 0.1, lr_nn.init(net, jax.random.key(0)))
    return (
        lambda params, batch: lr_nn.cost(net, params, batch, penalty),
        lambda params, batch: lr_nn.value_and_gradient(net, params, batch, penalty)[1],
        params,
        batch,
    )


@pytest.mark.parametrize(
    ("net", "penalty"),
    [
        (lr_nn.logistic_regression(3), penalties.elastic_net(0.1, 0.5)),
        (lr_nn.mlp((3, 4, 4, 2), activations.tanh, losses.categorical), None),
        (lr_nn.mlp((3, 4, 1), activations.relu, losses.squared_error), penalties.l2(0.1)),
    ],
    ids=["logistic", "softmax", "relu"],
)
def test_the_gradients_of_this_package_are_right_in_both_types_at_every_point(net, penalty):
    report = audit(*network(net, penalty))
    assert report.ok, report
    assert {leaf.dtype for leaf in report.leaves} == {"float32", "float64"}
    assert len(report.leaves) == 2 * len(jax.tree.leaves(lr_nn.init(net, jax.random.key(0))))
    assert all(leaf.findings[0].verdict == Verdict.right for leaf in report.leaves), "as given"


def test_at_zero_parameters_too():
    value, gradient, params, batch = network(lr_nn.logistic_regression(3))
    assert audit(value, gradient, jax.tree.map(jnp.zeros_like, params), batch).ok


def test_taylor_remainders_of_a_right_gradient_fall_like_h_h2_h3_and_of_a_wrong_one_like_h():
    def slopes(gradient):
        return audit(cube, gradient, W).leaves[-1].findings[0].evidence.by_hand.slopes

    np.testing.assert_allclose(slopes(cube_slope), [1, 2, 3], atol=0.1)
    np.testing.assert_allclose(slopes(lambda w: 3.01 * w**2)[:2], [1, 1], atol=0.1)


def test_complex_step_and_central_difference_are_exact_to_their_own_errors():
    found = audit(cube, cube_slope, W).leaves[-1].findings[0].evidence
    assert found.complex_step < 1e-15 and 1e-15 < found.central_difference < 1e-8


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (lambda w: jnp.sum(jnp.abs(w)), "abs"),
        (lambda w: jnp.sum(jnp.real(w) ** 2), "real"),
        (lambda w: jnp.sum(jax.jit(jnp.maximum)(w, 0.1)), "max"),
        (lambda w: jnp.sum(w.at[0].set(w[0].astype(jnp.float32).astype(w.dtype))), "complex"),
    ],
)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_the_report_says_why_there_is_no_complex_step(value, says):
    report = audit(value, jax.grad(value), W)
    assert says in report.leaves[-1].findings[0].evidence.complex_step
    assert "complex step: " in str(report)


@pytest.mark.parametrize(
    ("gradient", "reason"),
    [
        (lambda w: cube_slope(w) * 1.0001, "1.0001 times"),
        (lambda w: -cube_slope(w), "-1 times"),
        (lambda w: 0 * w, "it is zero"),
        (lambda w: cube_slope(w).at[1].multiply(2), "1 of 3 entries, the first at (1,)"),
        (lambda w: cube_slope(w).astype(jnp.float16).astype(w.dtype), "computed in float16"),
        (lambda w: jnp.where(jnp.abs(w) > 1e3, jnp.nan, cube_slope(w)), "NaN or infinity"),
        (lambda w: jnp.clip(cube_slope(w), -1e6, 1e6), ""),
    ],
)
def test_a_wrong_gradient_is_killed_and_described(gradient, reason):
    report, verdict, found = worst(cube, lambda w: gradient(jnp.asarray(w)), W)
    assert not report.ok and verdict == Verdict.wrong and reason in found


def test_a_transposed_gradient_is_called_that():
    a = np.random.default_rng(0).standard_normal((3, 3))
    report, _, reason = worst(lambda w: jnp.sum(a.astype(w.dtype) * w), lambda w: a.T.astype(w.dtype), np.ones((3, 3)))
    assert not report.ok and reason == "it is transposed"


def test_a_small_leaf_cannot_hide_behind_a_large_one():
    params = {"large": np.full((100, 100), 10.0), "small": np.array([1e-3])}
    report = audit(
        lambda p: jnp.sum(p["large"] ** 2) + jnp.sum(p["small"] ** 2),
        lambda p: {"large": 2 * p["large"], "small": 2.001 * p["small"]},
        params,
    )
    assert not report.ok and report.worst.name == "params['small']"


def test_values_decide_between_a_gradient_and_autodiff():
    report, verdict, _ = worst(hidden, lambda w: 2 * w, W)
    assert report.ok and verdict == Verdict.autodiff_wrong
    report, verdict, reason = worst(hidden, lambda w: 3 * w, W)
    assert not report.ok and verdict == Verdict.wrong and "agrees with jax.grad, but not with the values" in reason


def test_where_the_values_are_too_coarse_a_refuted_autodiff_is_no_judge():
    report = audit(lambda w: 1e18 + hidden(w), lambda w: 2 * w, W)
    assert {finding.verdict for leaf in report.leaves for finding in leaf.findings} <= set(Verdict) - {Verdict.wrong}
    assert report.leaves[-1].findings[0].verdict == Verdict.undecided and not report.ok
    assert not audit(lambda w: 1e18 + hidden(w), lambda w: 5 * w, W).ok


def test_errors_stand_beside_those_of_autodiff():
    finding = audit(cube, lambda w: 1.01 * cube_slope(w), W).leaves[-1].findings[0]
    assert abs(finding.hand.largest - 0.01) < 1e-12 and finding.autodiff.largest == 0


def test_the_types_are_that_of_the_parameters_and_float64(float64):
    for dtype, expected in {jnp.float16: ["float16", "float64"], np.float64: ["float64"]}.items():
        assert [leaf.dtype for leaf in audit(cube, cube_slope, W.astype(dtype)).leaves] == expected


def test_a_product_that_is_not_symmetric_is_found():
    skewed = 2 * np.eye(3) + 1e-6 * np.triu(np.ones((3, 3)), 1)
    report = audit(
        lambda w, a: jnp.sum(w**2), lambda w, a: 2 * w, W, skewed, dtypes=[np.float64], ggn=lambda w, v, a: a @ v
    )
    assert [check.name for check in report.second_order if not check.ok] == ["ggn: symmetric"]


def test_a_value_that_stops_its_gradient_is_found_out():
    assert not audit(lambda w: jnp.sum(w * jax.lax.stop_gradient(w)), lambda w: w, W).ok


def test_any_slope_between_the_two_of_a_kink_is_spared_and_no_other():
    w = np.array([0.0, 0.0, 1.0])
    report, verdict, _ = worst(lambda w: jnp.sum(jnp.abs(w)), jnp.sign, w)
    assert report.ok and verdict == Verdict.at_a_kink
    report, _, reason = worst(lambda w: jnp.sum(jnp.abs(w)), lambda w: 3 * jnp.sign(w), w)
    assert not report.ok and "kink" in reason


def test_at_a_tie_the_sum_of_the_sides_is_no_slope_between_them():
    report, _, reason = worst(jnp.max, lambda w: (w == w.max()).astype(w.dtype), np.array([1.0, 1.0, 0.0]))
    assert not report.ok and "kink" in reason


def test_what_does_not_show_at_zero_is_found_beside_it():
    def value(w):
        return jnp.sum(jax.nn.softplus(w)) + jnp.sum(w**2)

    assert audit(value, lambda w: jax.nn.sigmoid(w) + 2 * w, np.zeros(3)).ok
    assert not audit(value, jax.nn.sigmoid, np.zeros(3)).ok


def half(w):
    return jnp.sum(jnp.square(w.astype(jnp.bfloat16)).astype(w.dtype))


def masked(w):
    return jnp.sum(jnp.ones(3, jnp.bfloat16).astype(w.dtype) * w**3)


def test_a_value_of_mixed_precision_is_read_above_its_own_noise():
    assert audit(half, jax.grad(half), W).ok
    assert not audit(half, lambda w: 3 * w, W).ok


def test_a_mask_in_a_narrow_type_rounds_nothing_and_excuses_nothing():
    assert audit(masked, cube_slope, W).ok
    assert not audit(masked, lambda w: 1.01 * cube_slope(w), W).ok


def test_a_right_formula_that_cancels_loses_digits_and_is_spared_until_half_of_them_are_gone():
    def value(w):
        return -jnp.sum(jax.nn.log_sigmoid(w))

    def gradient(w):
        return jax.nn.sigmoid(w) - 1

    report, verdict, _ = worst(value, gradient, np.array([6.0, 6.5]))
    assert report.ok and verdict == Verdict.loses_digits and "loses digits" in str(report)
    report, verdict, reason = worst(value, gradient, np.array([20.0, 21.0]))
    assert not report.ok and verdict == Verdict.wrong and "loses more than half of its digits" in reason


def test_a_gradient_written_in_numpy_is_audited():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.integers(0, 2, 30).astype(float)

    def value(w, x, y):
        return jnp.mean(jax.nn.softplus(x @ w) - y * (x @ w))

    def gradient(w, x, y, scale=1.0):
        eta = np.asarray(x) @ np.asarray(w)
        return scale * (1 / (1 + np.exp(-eta)) - y) @ np.asarray(x) / len(y)

    assert audit(value, gradient, np.full(4, 0.3), x, y).ok
    assert not audit(value, lambda *a: gradient(*a, scale=1.01), np.full(4, 0.3), x, y).ok


def test_python_numbers_are_settings_and_float_arrays_take_the_type_of_the_audit():
    seen = set()

    def value(w, power, shift):
        seen.add((type(power), shift.dtype.name))
        return jnp.sum((w + shift) ** power)

    assert audit(value, lambda w, power, shift: power * (w + shift) ** (power - 1), W, 3, np.ones(3)).ok
    assert seen == {(int, "float32"), (int, "float64")} | {(int, "complex128")} & seen


def test_randomness_of_the_default_type_is_another_function_in_float64_and_not_held_against_the_gradient():
    def value(w, key):
        return jnp.sum(w**2 * jax.random.normal(key, (3,)))

    def gradient(w, key):
        return 2 * w * jax.random.normal(key, (3,))

    assert audit(value, gradient, W, jax.random.key(0)).ok
    assert not audit(value, lambda w, key: 1.1 * gradient(w, key), W, jax.random.key(0)).ok


def test_where_the_value_is_not_finite_nothing_is_asked_and_a_leaf_that_no_point_decides_is_not_ok():
    report = audit(lambda w: jnp.sum(jnp.exp(100 * w)), lambda w: 100 * jnp.exp(100 * w), W)
    by_point = {finding.point: finding.verdict for finding in report.leaves[-1].findings}
    assert report.ok and by_point["as given"] == Verdict.right
    assert by_point["parameters x 30"] == Verdict.undecided and "is not finite here" in str(report)
    assert not audit(lambda w: jnp.sum(jnp.log(w)), lambda w: 1 / w, -(W**2)).ok


def test_inputs_are_made_extreme_and_labels_are_not():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)), rng.integers(0, 2, 12).astype(float)
    seen = []

    def value(w, x, y):
        return jnp.sum(jax.nn.softplus(x @ w) - y * (x @ w))

    def gradient(w, x, y):
        seen.append((np.abs(np.asarray(x)).max() / np.abs(x_given).max(), np.asarray(y).max()))
        delta = np.clip(1 / (1 + np.exp(-np.asarray(x) @ np.asarray(w))) - np.asarray(y), -1, 1)
        return delta @ np.clip(np.asarray(x), -50, 50)

    x_given = x
    report = audit(value, gradient, np.full(3, 0.3), x, y)
    assert not report.ok and {
        finding.point for leaf in report.leaves for finding in leaf.findings if finding.verdict == Verdict.wrong
    } == {"inputs x 100"}
    assert {round(float(by)) for by, _ in seen} == {1, 100} and {label for _, label in seen} == {1.0}


def test_points_of_the_users_own():
    report = audit(cube, lambda w: jnp.where(w == 7, 0, cube_slope(w)), W, points={"seven": (np.full(3, 7.0),)})
    assert not report.ok and report.worst.worst.point == "seven"


def test_second_order_products_of_a_network_obey_their_laws():
    net = lr_nn.mlp((3, 4, 2), activations.tanh, losses.bernoulli)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 3)), rng.integers(0, 2, (12, 2)).astype(float)
    params = lr_nn.init(net, jax.random.key(0))

    def value(params):
        return lr_nn.cost(net, params, Batch(x, y))

    def gradient(params):
        return lr_nn.value_and_gradient(net, params, Batch(x, y))[1]

    def product(matrix):
        return lambda params, v: matrix(net, params, Batch(x, y)) @ v

    def pushforward(params, v):
        return tangents.pushforward(net, params, lr_nn.forward(net, params, x), v)

    def pullback(params, seed):
        forward = lr_nn.forward(net, params, x)
        deltas = lr_nn.pullback(net, params, forward, seed)
        return tuple(type(params[0])(a.T @ d, d.sum(axis=0)) for a, d in zip(forward.activations, deltas))

    right = {"hessian": product(curvature.hessian), "ggn": product(curvature.ggn), "pullback": pullback}
    report = audit(value, gradient, params, pushforward=_eta(pushforward), **right)
    assert report.ok and len(report.second_order) == 5, report
    slopes = report.leaves[-1].findings[0].evidence.by_hand.slopes
    assert abs(slopes[2] - 3) < 0.2, "the Hessian's product is the second-order term"
    wrong = {
        "hessian": lambda params, v: jax.tree.map(lambda leaf: 1.01 * leaf, right["hessian"](params, v)),
        "ggn": lambda params, v: jax.tree.map(jnp.negative, right["ggn"](params, v)),
        "pullback": lambda params, seed: pullback(params, 1.01 * seed),
    }
    for name, law in {"hessian": "derivative", "ggn": "semidefinite", "pullback": "adjoint"}.items():
        others = {"pushforward": _eta(pushforward)} if name == "pullback" else {}
        report = audit(value, gradient, params, dtypes=[np.float64], **{name: wrong[name]}, **others)
        assert not report.ok and [law in check.name for check in report.second_order if not check.ok] == [True]
        assert law in str(report)


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e6])
def test_a_right_hessian_obeys_its_laws_at_parameters_of_any_size(size):
    w = size * W
    report = audit(
        lambda w: jnp.sum((w / size) ** 4),
        lambda w: 4 * (w / size) ** 3 / size,
        w,
        hessian=lambda w, v: 12 * (w / size) ** 2 * v / size**2,
    )
    assert report.ok, report


def test_a_few_negative_eigenvalues_among_many_positive_ones_are_found():
    def refuted(eigenvalues):
        half = jnp.asarray(eigenvalues) / 2
        report = audit(
            lambda w, half: jnp.sum(half * w**2),
            lambda w, half: 2 * half * w,
            np.ones(40),
            half,
            dtypes=[np.float64],
            ggn=lambda w, v, half: 2 * half * v,
        )
        return [check.name for check in report.second_order if not check.ok]

    assert refuted(np.r_[np.zeros(10), np.ones(30)]) == []
    assert refuted(np.r_[-0.1, np.ones(39)]) == ["ggn: positive semidefinite"]


def _eta(pushforward):
    """The tangent of the linear predictor alone."""
    return lambda params, v: jax.tree.leaves(pushforward(params, v))[-1]


def test_json_holds_every_finding_and_the_figure_a_panel_for_each_leaf():
    report = audit(cube, cube_slope, W)
    held = json.loads(report.to_json())
    assert held["ok"] and held["leaves"][-1]["points"][0]["verdict"] == "right"
    assert len(held["leaves"][-1]["points"][0]["evidence"]["by_hand"]["steps"]) == 45
    [axis] = report.figure().axes
    assert axis.get_title() == "params: right" and len(axis.patches) == 3, "a window for each order"
    lines = str(report).splitlines()
    assert len(lines) == 2 + len(report.leaves) + 1 and lines[-1].startswith("ok")
    assert max(map(len, lines)) <= 120


FACTORS = np.linspace(0.1, 1, 3)


def weighted(w):
    return jnp.sum(FACTORS * w**3)


@pytest.mark.parametrize(
    ("error", "says", "arguments"),
    [
        (ValueError, r"value_fn must return one number, of shape \(\); got \(3,\)", (lambda w: w, jnp.sign, W)),
        (ValueError, "floating-point number; got int", (lambda w: jnp.sum(w > 0), jnp.sign, W)),
        (ValueError, "pass lambda", (cube, jax.value_and_grad(cube), W)),
        (ValueError, r"shape \(3,\) at params; got \(2,\)", (cube, lambda w: w[:2], W)),
        (TypeError, "real floating-point numbers; got int64", (cube, cube_slope, np.arange(3))),
        (TypeError, "real floating-point numbers; got complex128", (cube, cube_slope, W + 0j)),
        (ValueError, "NaN or infinity", (cube, cube_slope, np.array([1, np.inf]))),
        (ValueError, "no leaves", (cube, cube_slope, ())),
        (TypeError, "JAX can trace", (lambda w: np.sum(np.asarray(w)), jnp.ones_like, W)),
        (TypeError, "masks by values", (lambda w: jnp.sum(w[w > 0]), jnp.ones_like, W)),
        (TypeError, "value_fn must be a function", (1.0, cube_slope, W)),
        (TypeError, r"holds the 64-bit array 'FACTORS' of NumPy.*params, FACTORS\)", (weighted, cube_slope, W)),
        (ValueError, r"one number, of shape \(\); got None", (lambda w: None, cube_slope, W)),
        (ValueError, r"one number, of shape \(\); got str", (lambda w: "text", cube_slope, W)),
        (ValueError, "floating-point number; got bool", (lambda w: jnp.sum(w) > 0, cube_slope, W)),
        (ValueError, "a real number; got complex128", (lambda w: jax.lax.complex(cube(w), cube(w)), cube_slope, W)),
        (ValueError, "jax.grad, .* fails on value_fn: Reverse-mode", (while_doubled, jnp.ones_like, W)),
        (
            TypeError,
            "real numbers at params; got complex128",
            (cube, lambda w: np.asarray(w) + 0j, W),
        ),
        (TypeError, "real numbers at params; got <U1", (cube, lambda w: np.array(["a", "b", "c"]), W)),
        (TypeError, "real numbers at params; got object", (cube, lambda w: np.array([1, 2, 3], object), W)),
        (TypeError, r"got >f8: pass it .astype\(np.float64\)", (cube, cube_slope, W.astype(">f8"))),
        (TypeError, "got object", (cube, cube_slope, W.astype(object))),
        (TypeError, "masked array", (cube, cube_slope, np.ma.masked_array(W, [1, 0, 0]))),
        (TypeError, "args hold an array of >f8", (lambda w, x: cube(w), lambda w, x: w, W, W.astype(">f8"))),
        (ValueError, "params holds a number that float32 cannot hold", (cube, cube_slope, 1e300 * W)),
    ],
)
def test_bad_input_gets_a_clear_error(error, says, arguments):
    with pytest.raises(error, match=says):
        audit(*arguments)


def test_bad_options_get_a_clear_error():
    with pytest.raises(ValueError, match="pass both or neither"):
        audit(cube, cube_slope, W, pushforward=lambda w, v: v)
    with pytest.raises(TypeError, match="floating-point types; got int"):
        audit(cube, cube_slope, W, dtypes=[int])
    with pytest.raises(ValueError, match="is one of the audit's own"):
        audit(cube, cube_slope, W, points={"parameters x 30": (W,)})
    with pytest.raises(ValueError, match="point 'a' must be"):
        audit(cube, cube_slope, W, points={"a": ((W, W),)})
    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(lambda w: audit(cube, cube_slope, w).ok)(W)


@pytest.mark.parametrize(
    ("error", "says", "options"),
    [
        (TypeError, "dtypes must be a list of types", {"dtypes": np.float32}),
        (TypeError, "dtypes must be a list of types", {"dtypes": ["none such"]}),
        (TypeError, "floating-point types; got float128", {"dtypes": [np.longdouble]}),
        (ValueError, "dtypes is empty", {"dtypes": []}),
        (TypeError, "key must be a random key", {"key": 1.5}),
        (TypeError, "key must be a random key", {"key": -1}),
        (TypeError, "points must be a dict", {"points": [W]}),
        (ValueError, r"point 'a' must be a tuple \(params, \*args\); got float64", {"points": {"a": W}}),
        (ValueError, r"point 'a' must have shape \(3,\) at params; got \(4,\)", {"points": {"a": (np.ones(4), 3)}}),
        (ValueError, "point 'a': params holds NaN", {"points": {"a": (W * np.nan, 3)}}),
        (ValueError, "point 'a' must keep the settings .*, 3; got 2", {"points": {"a": (W, 2)}}),
        (TypeError, "hessian must be a function", {"hessian": 3}),
        (ValueError, "hessian must return the structure", {"hessian": lambda w, v, power: None}),
        (TypeError, "ggn must return real numbers", {"ggn": lambda w, v, power: np.asarray(v) + 0j}),
        (
            ValueError,
            "pushforward must return the tangent",
            {"pushforward": lambda w, v, power: None, "pullback": lambda w, c, power: w},
        ),
    ],
)
def test_a_wrong_option_is_named_with_what_is_expected(error, says, options):
    with pytest.raises(error, match=says):
        audit(lambda w, power: jnp.sum(w**power), lambda w, power: power * w ** (power - 1), W, 3, **options)


def test_an_array_of_a_trace_around_the_audit_is_refused():
    for value, gradient in ((lambda w, y: cube(w) * y, cube_slope), (lambda w, y: cube(w), lambda w, y: y * w**2)):
        with pytest.raises(ValueError, match="outside jit, grad and vmap"):
            jax.jit(lambda y: audit(lambda w: value(w, y), lambda w: gradient(w, y), W).ok)(3.0)  # noqa: B023


@pytest.mark.parametrize("name", ["hessian", "ggn"])
def test_a_product_that_is_not_a_number_obeys_no_law(name):
    report = audit(cube, cube_slope, W, **{name: lambda w, v: v * np.nan})
    assert not report.ok and not any(check.ok for check in report.second_order)
    assert f"{name}: symmetric: not finite" in str(report)


def test_an_adjoint_that_is_not_a_number_is_none():
    report = audit(cube, cube_slope, W, pushforward=lambda w, v: v * np.nan, pullback=lambda w, c: c)
    assert not report.ok


def test_a_gradient_of_numpy_may_write_on_its_arguments_and_use_one_array_for_every_result():
    x, result = np.array([3, 1, 2]), np.zeros(3)

    def gradient(w, x, factor=2):
        w, x = np.asarray(w), np.asarray(x)
        result[...] = factor * w * x
        w *= 0
        x *= 0
        return result

    def product(w, v, x):
        v = np.asarray(v)
        v *= 2 * np.asarray(x)
        return v

    def value(w, x):
        return jnp.sum(w**2 * x.astype(w.dtype))

    assert audit(value, gradient, W, x, hessian=product).ok
    assert not audit(value, lambda w, x: gradient(w, x, factor=2.01), W, x).ok
    np.testing.assert_array_equal(x, [3, 1, 2])


def test_a_point_where_the_type_overflows_is_undecided_without_a_warning():
    report = audit(jnp.sum, jnp.ones_like, np.array([10.0, 20.0], np.float16))
    assert report.ok and report.leaves[0].findings[3].verdict == Verdict.undecided


def test_a_gradient_without_numbers_obeys_every_law():
    laws = {"hessian": lambda w, v: 2 * v, "ggn": lambda w, v: 2 * v}
    report = audit(
        lambda w: jnp.sum(w**2),
        lambda w: 2 * w,
        np.zeros(0),
        pushforward=lambda w, v: v,
        pullback=lambda w, c: c,
        **laws,
    )
    assert report.ok and len(report.second_order) == 5


def test_reports_are_compared_by_identity_and_a_name_is_no_formula_in_the_figure():
    report, again = (
        audit(lambda p: p["$x_$"] ** 2, lambda p: {"$x_$": 2 * p["$x_$"]}, {"$x_$": 2.0}) for _ in range(2)
    )
    assert report != again and len({report, again}) == 2
    report.figure().draw_without_rendering()


def test_an_error_of_the_users_gradient_comes_through():
    def broken(w):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        audit(cube, broken, W)


def test_infinity_is_the_ratio_of_what_is_not_a_number():
    report = audit(cube, lambda w: w * jnp.nan, W)
    assert report.worst.worst.bound_ratio == math.inf
