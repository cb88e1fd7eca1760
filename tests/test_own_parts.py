"""Losses and activations of one's own: what is enough to train, what is missed by name, and what fits may assume."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
from own_parts import Bump, Coupled, LogCosh
from tolerances import assert_close, assert_mean_close, assert_trees_close

import lr_nn
from lr_nn import activations, curvature, losses
from lr_nn.losses import Loss, Separable
from lr_nn.training import Checkpoints
from lr_nn.types import Batch, Layer


class Squared(Loss):
    """½ ‖η - y‖², written for rows (n, k)."""

    def value(self, eta, y):
        return ((eta - y) ** 2).sum(axis=1) / 2

    def residual(self, eta, y):
        return eta - y


def table(k=1, n=40, seed=0):
    rng = np.random.default_rng(seed)
    return Batch(rng.normal(size=(n, 3)), rng.standard_t(2, size=(n, k)) + [3.0, -1.0][:k])


BUMP = Bump()


def setting(loss, hidden=BUMP, k=1):
    net = lr_nn.mlp((3, 4, k), hidden, loss)
    return net, lr_nn.init(net, jax.random.key(0), jnp.result_type(float)), table(k)


@pytest.mark.parametrize("loss", [LogCosh(), Coupled()], ids=lambda loss: loss.name)
def test_value_and_residual_are_enough_to_train(float64, loss):
    net, params, rows = setting(loss, k=2)
    gradient = lr_nn.value_and_gradient(net, params, rows)[1]
    assert_trees_close(gradient, jax.jit(jax.grad(lambda p: lr_nn.cost(net, p, rows)))(params), 40)
    trained = lr_nn.train(net, params, rows, optimizer=optax.sgd(0.01), epochs=20, validation=rows)
    assert trained.history["cost"][-1] < trained.history["cost"][0]
    v = jax.tree.map(jnp.ones_like, params)
    each = jax.tree.leaves(lr_nn.per_example.gradients(lr_nn.backprop(net, params, rows)))
    each = np.concatenate([np.reshape(leaf, (40, -1)) for leaf in each], axis=1)
    found = curvature.empirical_fisher(net, params, rows) @ v
    assert_close(
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)]), each.T @ each.sum(axis=1) / 40, 40
    )


def test_targets_of_one_output_come_as_rows():
    """y of shape (n,) beside η (n, 1) would broadcast to (n, n)."""
    net = lr_nn.Network((3, 1), (), Squared())
    params, rows = lr_nn.init(net, jax.random.key(0)), table()
    flat = rows._replace(y=rows.y[:, 0], weight=np.arange(40.0))
    reference = lr_nn.Network((3, 1), (), losses.squared_error)
    for function in (lr_nn.cost, lr_nn.value_and_gradient):
        assert_trees_close(function(net, params, flat), function(reference, params, flat), 40)


@pytest.mark.parametrize(
    ("call", "part"),
    [
        (lambda net, params, rows: lr_nn.predict(net, params, rows.x), "mean"),
        (curvature.ggn, "information"),
        (curvature.hessian, "curvature"),
        (curvature.kfac, "information"),
        (lambda *at: curvature.kfac(*at, kind="sampled", key=jax.random.key(0)), "sample"),
        (lambda net, *_: lr_nn.fit(net, table(), solver="newton_cg"), "information"),
    ],
    ids=["predict", "ggn", "hessian", "kfac", "sampled kfac", "newton_cg"],
)
def test_a_part_that_is_not_stated_is_missed_by_name(call, part):
    with pytest.raises(NotImplementedError, match=rf"states no {part}\(.*need"):
        call(*setting(LogCosh()))


def test_the_hessian_misses_the_curvature_of_the_loss_and_through_the_bend_of_its_activation():
    with pytest.raises(NotImplementedError, match=r"the loss LogCosh states no curvature\(eta, y\)"):
        curvature.hessian(*setting(LogCosh(), activations.tanh))
    through = losses.through(Bump(), losses.squared_error)
    with pytest.raises(NotImplementedError, match="the activation Bump states no second_derivative"):
        curvature.hessian(*setting(through, activations.tanh))
    assert not through.states("hessian_multiply") and through.states("fisher_factor") and through.states("mean")
    assert not losses.through(activations.tanh, LogCosh()).states("fisher_multiply")


class Flat(Squared):
    """Its value is a sum over the batch."""

    def value(self, eta, y):
        return super().value(eta, y).sum()


class Wide(Squared):
    """Its residual has a column too many."""

    def residual(self, eta, y):
        return jnp.concatenate([eta - y, eta - y], axis=1)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (Flat(), r"value of the loss Flat must be an array of shape \(40,\); got shape \(\)"),
        (Wide(), r"residual of the loss Wide must be an array of shape \(40, 1\); got shape \(40, 2\)"),
    ],
)
def test_results_of_another_shape_are_refused(loss, message):
    net, params, rows = setting(loss)
    with pytest.raises(ValueError, match=message):
        lr_nn.value_and_gradient(net, params, rows)


@dataclass(frozen=True)
class Scaled(activations.Activation):
    """c z."""

    c: object

    def value(self, z):
        return self.c * z

    def derivative(self, a):
        return self.c * jnp.ones_like(a)


class Misspelt(Bump):
    """Keeps what there is not."""

    keeps = "Z"


def test_a_network_takes_parts_that_are_hashable_and_say_what_they_keep():
    assert lr_nn.mlp((3, 4, 1), Scaled(2.0)) == lr_nn.mlp((3, 4, 1), Scaled(2.0)) != lr_nn.mlp((3, 4, 1), Scaled(3.0))
    with pytest.raises(TypeError, match=r"Scaled must be hashable .*numbers or nested tuples, not as arrays"):
        lr_nn.mlp((3, 4, 1), Scaled(np.ones(2)))
    with pytest.raises(TypeError, match="Coupled must be hashable"):
        lr_nn.mlp((3, 4, 2), loss=Coupled(np.eye(2)))
    with pytest.raises(ValueError, match="keeps of the activation Misspelt must be 'a' or 'z'; got 'Z'"):
        lr_nn.mlp((3, 4, 1), Misspelt())


def test_flags_promise_nothing_unless_stated():
    flags = {"convex": False, "canonical": False, "shift_invariant": False, "concordance": np.inf}
    for loss in (Squared(), losses.through(activations.identity, losses.squared_error)):
        assert {name: getattr(loss, name) for name in flags} == flags
    assert Coupled().convex and not Coupled().canonical, "a finite concordance implies convexity"
    canonical = {loss.name for loss in MENU if loss.canonical}
    assert canonical == {"squared_error", "bernoulli", "categorical", "poisson"}
    assert [loss.name for loss in MENU if loss.shift_invariant] == ["categorical"]
    assert all(loss.convex for loss in MENU)


MENU = (
    losses.squared_error,
    losses.absolute_error,
    losses.huber(1.0),
    losses.bernoulli,
    losses.categorical,
    losses.poisson,
)


def test_a_fit_of_an_own_loss_rests_on_no_promise_that_was_not_made():
    """The rows of A do not change the optimum: it is that of least squares. Centred coefficients would cost 27."""
    rows = table(k=2, n=200)
    solution = lr_nn.fit(lr_nn.Network((3, 2), (), Coupled()), rows)
    design = np.column_stack([rows.x, np.ones(200)])
    assert solution.status == lr_nn.Status.converged and solution.certificate == np.inf
    assert "stationary point" in solution.message
    np.testing.assert_allclose(solution.coefficients, np.linalg.lstsq(design, rows.y)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("delta", [0.5, 1.5, 100.0])
def test_a_fit_of_the_huber_loss_is_that_of_scipy(delta):
    rows = table(n=60, seed=1)
    solution = lr_nn.fit(lr_nn.Network((3, 1), (), losses.huber(delta)), rows, tol=1e-15)
    design = np.column_stack([rows.x, np.ones(60)])
    expected = scipy.optimize.least_squares(
        lambda beta: design @ beta - rows.y[:, 0], np.zeros(4), loss="huber", f_scale=delta, xtol=1e-15, ftol=1e-15
    )
    np.testing.assert_allclose(solution.coefficients[:, 0], expected.x, rtol=1e-5, atol=1e-6)
    assert_close(solution.cost, expected.cost / 60, condition=1e4)


@pytest.mark.parametrize("delta", [0.3, 1.5, 5.0])
def test_the_law_of_the_huber_loss_is_its_density(float64, delta):
    loss = losses.huber(delta)

    def density(r):
        return np.exp(-(r * r / 2 if abs(r) <= delta else delta * (abs(r) - delta / 2)))

    pieces = [(-np.inf, -delta), (-delta, delta), (delta, np.inf)]
    total = sum(scipy.integrate.quad(density, *piece)[0] for piece in pieces)
    square = sum(scipy.integrate.quad(lambda r: min(abs(r), delta) ** 2 * density(r), *piece)[0] for piece in pieces)
    assert_close(loss.information(jnp.zeros(1))[0], square / total, condition=1e4)
    draws = np.asarray(loss.sample(jnp.full((20000, 1), 2.0), jax.random.key(0)))[:, 0] - 2

    def distribution(r):
        return sum(scipy.integrate.quad(density, low, min(high, r))[0] for low, high in pieces if low < r) / total

    grid = np.linspace(-6, 6, 25)
    expected = np.array([distribution(r) for r in grid])
    found = (draws[:, None] <= grid[None]).mean(axis=0)
    assert (np.abs(found - expected) <= 5 * np.sqrt(expected * (1 - expected) / 20000) + 1e-9).all()
    assert_mean_close(draws[:, None], [0.0])


@pytest.mark.parametrize("delta", [0.0, -1.0, np.inf, np.nan])
def test_huber_needs_a_positive_delta(delta):
    with pytest.raises(ValueError, match="huber needs a finite delta > 0"):
        losses.huber(delta)


def test_an_outlier_moves_the_gradient_of_the_huber_loss_by_delta_at_most():
    net = lr_nn.Network((1, 1), (), losses.huber(2.0))
    params = (Layer(jnp.zeros((1, 1)), jnp.zeros(1)),)
    rows = Batch(np.ones((1, 1)), np.array([-1e6]))
    assert float(lr_nn.value_and_gradient(net, params, rows)[1][0].b[0]) == 2.0


class Attribute(Separable):
    """A quantile loss whose quantile is no field, so that equality would not see it."""

    def __init__(self, tau):
        self.tau = tau

    def term(self, eta, y):
        return jnp.where(y > eta, self.tau * (y - eta), (1 - self.tau) * (eta - y))

    def slope(self, eta, y):
        return jnp.where(y > eta, -self.tau, 1 - self.tau)


def test_parameters_that_are_no_fields_are_refused():
    """Two such losses are equal, so that one would run the compiled program of the other."""
    assert Attribute(0.1) == Attribute(0.9)
    for loss in (Attribute(0.1), losses.through(activations.tanh, Attribute(0.1))):
        with pytest.raises(TypeError, match=r"Attribute has attributes that are no fields \(tau\).*dataclass"):
            lr_nn.Network((1, 1), (), loss)


def scaled(factor):
    """A loss whose factor is in its code alone."""

    class Mine(Squared):
        def value(self, eta, y):
            return factor * super().value(eta, y)

        def residual(self, eta, y):
            return factor * super().residual(eta, y)

    return Mine()


def test_a_checkpoint_of_an_own_loss_is_not_continued_by_another_of_its_name(tmp_path):
    options = {"optimizer": optax.sgd(0.01), "epochs": 1, "checkpoints": Checkpoints(tmp_path)}
    lr_nn.train(*setting(scaled(1.0)), **options)
    lr_nn.train(*setting(scaled(1.0)), **options, resume=True)
    with pytest.raises(ValueError, match="its loss or activation is another one"):
        lr_nn.train(*setting(scaled(5.0)), **options, resume=True)


class Constant(Squared):
    """Has a task that there is not."""

    task = "regression"


class Method(Squared):
    """States a flag as a method, which is true as an object."""

    def canonical(self):
        return False


class Unknown(Squared):
    """Its concordance is no number."""

    concordance = float("nan")


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (Constant(), ValueError, "task of the loss Constant must be values, labels or classes; got 'regression'"),
        (Method(), TypeError, "canonical of the loss Method must be True or False"),
        (Unknown(), ValueError, "concordance of the loss Unknown must be at least 0; got nan"),
    ],
)
def test_statements_of_another_kind_are_refused(loss, error, message):
    with pytest.raises(error, match=message):
        lr_nn.Network((1, 1), (), loss)


class Short(Separable):
    """The squared error with the constant parts that come to mind."""

    def term(self, eta, y):
        return (eta - y) ** 2 / 2

    def slope(self, eta, y):
        return eta - y

    def information(self, eta):
        return jnp.ones(eta.shape[1:])

    def curvature(self, eta, y):
        return 1.0


def test_constant_parts_of_a_loss_hold_for_every_row(float64):
    net, plain = lr_nn.Network((3, 2), (), Short()), lr_nn.Network((3, 2), (), losses.squared_error)
    params, rows = lr_nn.init(net, jax.random.key(0), jnp.float64), table(k=2)
    for make in (curvature.ggn, curvature.hessian, curvature.kfac):
        found, expected = make(net, params, rows), make(plain, params, rows)
        assert_trees_close(found.diagonal(), expected.diagonal(), 40)
        assert_close(found.dense(), expected.dense(), 40)
        assert_close(found.trace(), expected.trace(), 40)


class Rows(Squared):
    """Its mean and its products have shapes of their own."""

    def mean(self, eta):
        return eta[:, 0]

    def fisher_multiply(self, eta, v):
        return v.sum(axis=-1)

    def hessian_multiply(self, eta, y, v):
        return None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, params, rows: lr_nn.predict(net, params, rows.x), r"mean of the loss Rows .*\(40, 2\); got shape"),
        (lambda *at: curvature.ggn(*at) @ at[1], r"fisher_multiply of the loss Rows .*\(40, 2\); got shape \(40,\)"),
        (lambda *at: curvature.hessian(*at) @ at[1], "hessian_multiply of the loss Rows .*got a NoneType"),
    ],
)
def test_optional_parts_of_another_shape_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*setting(Rows(), activations.tanh, k=2))


class Number(Bump):
    """Its derivative is a number."""

    def derivative(self, z):
        return 2.0


class Sum(Bump):
    """Its value is a sum over the layer."""

    def value(self, z):
        return z.sum(axis=1, keepdims=True)


def test_an_activation_of_another_shape_is_refused_and_its_audit_says_so():
    for hidden, message in (
        (Number(), "derivative of Number .*got a float"),
        (Sum(), r"value of Sum .*got shape \(40, 1"),
    ):
        with pytest.raises(ValueError, match=message):
            lr_nn.value_and_gradient(*setting(LogCosh(), hidden))
        assert not lr_nn.audit_activation(hidden).ok


class Logistic(Separable):
    """The logistic loss with all that a certificate needs but its directions of recession."""

    task = "labels"
    canonical = True
    concordance = 1.0
    term = losses.bernoulli.__class__.term
    slope = losses.bernoulli.__class__.slope
    information = losses.bernoulli.__class__.information
    constant = losses.bernoulli.__class__.constant


def test_a_loss_without_directions_of_recession_has_no_certificate():
    """On separated data nothing says that there is no optimum, and nothing may say that there is one."""
    rows = Batch(np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 1, 1]))
    own = lr_nn.fit(lr_nn.Network((1, 1), (), Logistic()), rows)
    assert own.certificate == np.inf and own.status == lr_nn.Status.max_steps
    assert lr_nn.fit(lr_nn.logistic_regression(1), rows).status == lr_nn.Status.separated
