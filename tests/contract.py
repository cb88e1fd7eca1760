"""Every function of the public contract, called once in its documented order on small data.

A row is a name as users write it, below `lr_nn`, and a call. Adding a public function is adding a row here.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lr_nn
from lr_nn import (
    Batch,
    activations,
    curvature,
    graph,
    implicit,
    inference,
    influence,
    laplace,
    losses,
    many,
    objective,
    penalties,
    per_example,
    private,
    probability,
    sharded,
    tangents,
    taps,
    training,
)

N, D, K = 12, 3, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (X @ [1.0, -1.0, 0.5] + RNG.normal(size=N) > 0).astype(np.float32)
WEIGHT = np.array([1.0, 2.0, 1.0] * 4, np.float32)
OFFSET = np.linspace(-0.5, 0.5, N, dtype=np.float32)
LOGISTIC, NET = lr_nn.logistic_regression(D), lr_nn.mlp((D, 4, K), activations.tanh, losses.categorical)
KEY = jax.random.key(0)


def rows() -> Batch:
    """Weighted rows with an offset, of one label."""
    return Batch(X, Y, WEIGHT, OFFSET)


def deep() -> tuple[Any, Any, Batch]:
    """A network, its parameters and its data: what most functions begin with."""
    return NET, lr_nn.init(NET, KEY), Batch(X, Y.astype(int), WEIGHT)


def bp() -> lr_nn.Backprop:
    """A pass of `deep`."""
    return lr_nn.backprop(*deep())


def solution() -> lr_nn.Solution:
    """A fit of `rows`."""
    return lr_nn.fit(LOGISTIC, rows())


def smaller_solution() -> lr_nn.Solution:
    """A fit of `rows` with their first column alone."""
    return lr_nn.fit(lr_nn.logistic_regression(1), rows()._replace(x=X[:, :1]))


def function(tap: taps.Tap, params: Any, x: jax.Array) -> jax.Array:
    """Losses (n,) of a model that is not a Network."""
    h = jnp.tanh(tap.dense(x, params["w"], params["b"]))
    return jnp.square(tap.dense(tap.scale_shift(h, params["scale"]), params["w"].T)).sum(axis=1)


def tapped() -> Any:
    """A pass of `function`, and what takes it."""
    params = {"w": jnp.ones((D, 4)), "b": jnp.ones(4), "scale": jnp.ones(4)}
    found = taps.backprop(function, params, X, weight=WEIGHT)
    factors = curvature.kfac(found)
    return (
        *(found, lr_nn.gradient(found), per_example.clipped_gradient(found, 0.5), per_example.variance(found)),
        *(per_example.gram(found), per_example.noise_scale(found), factors, factors.solve(params, 0.1)),
        *(factors.sample(KEY, 0.1), factors.logdet(0.1), factors @ params),
    )


def direction() -> Any:
    """Some v shaped like the parameters of `deep`."""
    return jax.tree.map(jnp.ones_like, deep()[1])


def operator(name: str) -> Any:
    """A curvature operator times a vector, and what else it offers."""
    op = getattr(curvature, name)(*deep(), penalties.l2(0.1))
    flat = jnp.ones(lr_nn.n_parameters(NET))
    return op @ direction(), op.multiply(flat), op @ flat[:, None], op.dense(), op.diagonal(), op.trace(), op.traces()


def law(structure: str) -> Any:
    """A Laplace approximation, and what it offers."""
    made = laplace.posterior(*deep(), structure, 1.0)
    return (
        *(made.predictive(X), made.covariance(X), made.probabilities(X), made.monte_carlo_mean(X, KEY, samples=2)),
        *(made.sample(KEY), made.log_marginal_likelihood(), made.effective_parameters()),
    )


def combination() -> Any:
    """The GGN of `deep` less a tenth of its Hessian, damped."""
    return (curvature.ggn(*deep()) - 0.1 * curvature.hessian(*deep())).damped(1.0)


def kfac(kind: str) -> Any:
    """Kronecker factors, and what they offer."""
    found = curvature.kfac(*deep(), kind=kind, key=KEY if kind == "sampled" else None)
    return (
        *(found.factors, found.multiply(direction()), found.solve(direction(), 0.1), found.logdet(0.1)),
        *(found.sample(KEY, 0.1), found.eigenbasis()),
    )


def in_folder(function: Callable[[Path], Any]) -> Callable[[], Any]:
    """A call in a folder that exists as long as it runs."""

    def call() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return function(Path(folder))

    return call


CORE: dict[str, Callable[[], Any]] = {
    "linear_regression": lambda: lr_nn.linear_regression(D, 2),
    "logistic_regression": lambda: lr_nn.logistic_regression(D, 2),
    "softmax_regression": lambda: lr_nn.softmax_regression(D, 3),
    "poisson_regression": lambda: lr_nn.poisson_regression(D),
    "Network": lambda: lr_nn.Network((D, 4, 1), activations.relu, losses.bernoulli, False),
    "mlp": lambda: lr_nn.mlp((D, 4, 1)),
    "n_parameters": lambda: lr_nn.n_parameters(NET),
    "init": lambda: lr_nn.init(NET, KEY, jnp.float32),
    "forward": lambda: lr_nn.forward(LOGISTIC, lr_nn.init(LOGISTIC, KEY), X, OFFSET),
    "predict": lambda: lr_nn.predict(LOGISTIC, lr_nn.init(LOGISTIC, KEY), X, OFFSET),
    "backprop": bp,
    "pullback": lambda: lr_nn.pullback(*deep()[:2], lr_nn.forward(*deep()[:2], X), jnp.ones((2, N, K))),
    "gradient": lambda: lr_nn.gradient(bp()),
    "input_gradient": lambda: lr_nn.input_gradient(*deep()[:2], bp()),
    "cost": lambda: lr_nn.cost(*deep(), penalties.l2(0.1)),
    "value_and_gradient": lambda: lr_nn.value_and_gradient(*deep(), penalties.elastic_net(0.1, 0.5), 5),
    "objective.totals": lambda: objective.totals(*deep()),
    "tangents.pushforward": lambda: tangents.pushforward(*deep()[:2], bp().forward, direction()),
    "taps.backprop": tapped,
    "per_example.gradients": lambda: per_example.gradients(bp()),
    "per_example.squared_norms": lambda: per_example.squared_norms(bp()),
    "per_example.layer_squared_norms": lambda: per_example.layer_squared_norms(bp()),
    "per_example.clipped_gradient": lambda: per_example.clipped_gradient(bp(), 0.5),
    "per_example.layer_clipped_gradient": lambda: per_example.layer_clipped_gradient(bp(), 0.5),
    "per_example.second_moment": lambda: per_example.second_moment(bp()),
    "per_example.variance": lambda: per_example.variance(bp()),
    "per_example.gram": lambda: per_example.gram(bp(), bp()),
    "per_example.inner_products": lambda: per_example.inner_products(bp(), direction()),
    "per_example.noise_scale": lambda: per_example.noise_scale(bp()),
    "per_example.noise_scale_of_norms": lambda: per_example.noise_scale_of_norms(2.0, 1, 1.0, 8),
    "per_example.signal_to_noise": lambda: per_example.signal_to_noise(bp()),
    "curvature.ggn": lambda: operator("ggn"),
    "curvature.hessian": lambda: operator("hessian"),
    "curvature.empirical_fisher": lambda: operator("empirical_fisher"),
    "curvature.kfac": lambda: [kfac(kind) for kind in ("exact", "sampled", "empirical")],
    "curvature.lanczos": lambda: curvature.lanczos(combination(), KEY, 3),
    "curvature.largest": lambda: curvature.largest(combination(), KEY),
    "curvature.solve": lambda: curvature.solve(combination(), direction(), 0.1),
    "curvature.hutchinson_trace": lambda: curvature.hutchinson_trace(combination(), KEY, 2),
    "curvature.hutchinson_diagonal": lambda: curvature.hutchinson_diagonal(combination(), KEY, 2),
    "curvature.ntk": lambda: curvature.ntk(*deep()[:2], X, X[:5]),
    "curvature.ntk_trace": lambda: curvature.ntk_trace(*deep()[:2], X),
    "private.private_gradient": lambda: private.private_gradient(
        lr_nn.backprop(*deep()[:2], Batch(X, Y.astype(int))),
        KEY,
        max_norm=0.5,
        noise_multiplier=1.0,
        expected_batch_size=4,
    ),
    "private.epsilon": lambda: private.epsilon(noise_multiplier=1.0, sampling_rate=0.1, steps=2, delta=1e-5),
    "private.poisson_batch": lambda: private.poisson_batch(KEY, N, 0.3, 8),
    "private.poisson_capacity": lambda: private.poisson_capacity(N, 0.3),
    "influence.upweighting": lambda: influence.upweighting(
        *deep(), Batch(X[:1], Y[:1].astype(int)), damping=1.0, curvature="ggn", max_steps=50
    ),
    "influence.deletion": lambda: influence.deletion(*deep(), deep()[2], damping=1.0, penalty=penalties.l2(0.1)),
    "influence.parameter_change": lambda: influence.parameter_change(*deep(), deep()[2], damping=1.0),
    "influence.self_influence": lambda: influence.self_influence(*deep(), damping=1.0),
    "influence.tracin": lambda: influence.tracin(NET, [deep()[1]], [0.1], deep()[2], deep()[2]),
    "penalties.l1": lambda: penalties.l1(0.1),
    "penalties.l2": lambda: penalties.l2(0.1),
    "penalties.elastic_net": lambda: penalties.elastic_net(0.1, 0.5),
    "penalties.Penalty": lambda: lr_nn.Penalty(0.1, 0.2).value(deep()[1]),
    "losses.through": lambda: losses.through(activations.sigmoid, losses.squared_error),
    "activations.leaky_relu": lambda: activations.leaky_relu(0.1),
    "probability.log_expit": lambda: probability.log_expit(X),
    "training.step": lambda: training.step(
        *deep()[:2], optax.sgd(0.1, momentum=0.9).init(deep()[1]), deep()[2], optimizer=optax.sgd(0.1, momentum=0.9)
    ),
}
HOST: dict[str, Callable[[], Any]] = {
    "fit": solution,
    "fit_many": lambda: lr_nn.fit_many(LOGISTIC, rows(), penalty=penalties.l2(np.array([0.1, 1.0]))),
    "cross_validate": lambda: lr_nn.cross_validate(
        LOGISTIC, rows(), penalty=penalties.l2(np.array([1.0, 0.1])), folds=3, key=KEY
    ),
    "bootstrap": lambda: lr_nn.bootstrap(LOGISTIC, rows(), samples=3, key=KEY, penalty=penalties.l2(0.1)),
    "fit_groups": lambda: lr_nn.fit_groups(LOGISTIC, rows(), np.arange(N) % 2, penalty=penalties.l2(0.1)),
    "regularization_path": lambda: lr_nn.regularization_path(
        LOGISTIC, rows(), penalty=penalties.l2(np.array([1.0, 0.1]))
    ),
    "many.largest_strength": lambda: many.largest_strength(LOGISTIC, rows()),
    "many.solve": lambda: many.solve(LOGISTIC, rows(), penalties.l2(0.1)),
    "train": lambda: lr_nn.train(*deep(), optimizer=optax.sgd(0.1, momentum=0.9), epochs=2, batch_size=5, key=KEY),
    "train_many": lambda: lr_nn.train_many(
        NET,
        jax.tree.map(lambda a: jnp.stack([a, a]), deep()[1]),
        deep()[2],
        optimizer=optax.sgd(0.1, momentum=0.9),
        epochs=2,
        batch_size=5,
        key=KEY,
    ),
    "implicit.fit": lambda: jax.grad(lambda l2: implicit.fit(LOGISTIC, rows(), penalties.Penalty(l2=l2))[0].w.sum())(
        0.1
    ),
    "inference.summary": lambda: inference.summary(LOGISTIC, solution(), rows()),
    "inference.firth": lambda: inference.firth(LOGISTIC, rows()),
    "inference.influence": lambda: inference.influence(LOGISTIC, solution(), rows()),
    "inference.leave_one_out": lambda: inference.leave_one_out(LOGISTIC, solution(), rows()),
    "inference.profile_intervals": lambda: inference.profile_intervals(LOGISTIC, solution(), rows()),
    "inference.marginal_effects": lambda: inference.marginal_effects(LOGISTIC, solution(), rows()),
    "inference.wald_test": lambda: inference.wald_test(
        inference.summary(LOGISTIC, solution(), rows()), np.eye(1, D + 1)
    ),
    "inference.likelihood_ratio_test": lambda: inference.likelihood_ratio_test(
        inference.summary(LOGISTIC, solution(), rows()),
        inference.summary(lr_nn.logistic_regression(1), smaller_solution(), rows()._replace(x=X[:, :1])),
    ),
    "inference.score_test": lambda: inference.score_test(LOGISTIC, solution(), rows(), X[:, 0] ** 2),
    "laplace.posterior": lambda: [law(structure) for structure in ("kfac", "full")],
    "laplace.maximize_evidence": lambda: laplace.maximize_evidence(laplace.posterior(*deep())),
    "audit": lambda: lr_nn.audit(lambda w: (w**2).sum(), lambda w: 2 * w, jnp.arange(3.0)).ok,
    "audit_loss": lambda: lr_nn.audit_loss(losses.bernoulli, y=Y, k=1, key=KEY).ok,
    "audit_activation": lambda: lr_nn.audit_activation(activations.tanh, key=KEY).ok,
    "graph.trace": lambda: graph.trace(lambda a, b: a * b, 2.0, 3.0).backward(),
    "save_model": in_folder(lambda folder: lr_nn.save_model(folder / "model", *deep()[:2])),
    "export_stablehlo": in_folder(lambda folder: lr_nn.export_stablehlo(folder / "model.shlo", *deep()[:2])),
    "sharded.data_parallel": lambda: sharded.data_parallel().value_and_gradient(*deep()),
}
