"""A network crosses to flax and back without losing a bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import lr_nn
from lr_nn import Batch, activations, losses
from lr_nn.interop import flax as interop
from tests.tolerances import assert_close

KEEP_Z = ("silu", "gelu", "gelu_tanh", "sine", "softsign")
NETWORKS = [
    lr_nn.softmax_regression(5, 3),
    lr_nn.mlp((5, 4, 3), loss=losses.categorical),
    lr_nn.mlp((5, 6, 4, 3), (activations.relu, activations.tanh), losses.squared_error),
    lr_nn.Network((5, 4, 3), activations.elu, losses.bernoulli, bias=False),
    lr_nn.mlp((5, 6, 4, 4, 4, 3), [getattr(activations, name) for name in KEEP_Z[:4]], losses.huber(1.0)),
    lr_nn.mlp((5, 4, 3), activations.softsign, losses.huber(1.0)),
]


def trained(net):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5)).astype(np.float32)
    y = rng.integers(0, 3, 40) if net.loss is losses.categorical else rng.integers(0, 2, (40, 3)).astype(np.float32)
    params = lr_nn.init(net, jax.random.key(0))
    params = lr_nn.train(net, params, Batch(x, y), optimizer=optax.sgd(0.1), epochs=3).params
    return params, jnp.asarray(x)


def eta_of(net, params, x):
    """η operation by operation, as flax computes outside `jit`: XLA may round a compiled pass otherwise."""
    with jax.disable_jit():
        return lr_nn.forward(net, params, x).eta


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        bool((x == y).all()) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: str(net.sizes))
def test_linen_gives_the_same_bits_and_gives_the_parameters_back(net):
    params, x = trained(net)
    eta = interop.LinenNetwork(net).apply(interop.to_linen(params), x)
    np.testing.assert_array_equal(eta, eta_of(net, params, x))
    assert equal(interop.from_linen(interop.to_linen(params)), params)


@pytest.mark.parametrize("net", NETWORKS, ids=lambda net: str(net.sizes))
def test_nnx_gives_the_same_bits_and_gives_the_parameters_back(net):
    params, x = trained(net)
    model = interop.to_nnx(net, params)
    np.testing.assert_array_equal(model(x), eta_of(net, params, x))
    assert equal(interop.from_nnx(model), params)


def test_a_module_of_the_users_own_brings_its_layers_in_order():
    model = linen.Sequential([linen.Dense(4), linen.sigmoid, linen.Dense(3)])
    x = jnp.ones((2, 5))
    variables = model.init(jax.random.key(0), x)
    net = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
    np.testing.assert_array_equal(eta_of(net, interop.from_linen(variables), x), model.apply(variables, x))
    first, second = nnx.Linear(5, 4, rngs=nnx.Rngs(0)), nnx.Linear(4, 3, rngs=nnx.Rngs(1))
    np.testing.assert_array_equal(eta_of(net, interop.from_nnx((first, second)), x), second(nnx.sigmoid(first(x))))


def test_layers_that_are_not_dense_are_refused_by_name():
    with pytest.raises(ValueError, match="Conv_0"):
        interop.from_linen({"params": {"Conv_0": {"kernel": jnp.ones((3, 3, 1, 1))}}})
    with pytest.raises(ValueError, match="numbered"):
        interop.from_linen({"params": {"head": {"kernel": jnp.ones((3, 1))}}})
    with pytest.raises(ValueError, match="Linear"):
        interop.from_nnx([nnx.relu])


def key(i=0):
    return nnx.Rngs(i)


def linear(d=4, k=4, **settings):
    return nnx.Linear(d, k, rngs=key(d + 7 * k), **settings)


def biased(model):
    """Biases that are not zero, as training leaves them."""
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Linear) and node.bias is not None:
            node.bias[...] = jax.random.normal(jax.random.key(1), node.bias.shape, node.bias.dtype)
    return model


def residual(layer):
    return lambda z: z + layer(z)


class Own(nnx.Module):
    """Two layers; `residual`, `scale` and `activation` are what variables do not show."""

    def __init__(self, activation=nnx.sigmoid, residual=False, scale=1.0, output=lambda eta: eta):
        self.second, self.first = linear(4, 3), linear(5, 4)
        self.activation, self.residual, self.scale, self.output = activation, residual, scale, output

    def __call__(self, x):
        z = self.activation(self.first(x)) * self.scale
        return self.output(self.second(z + x[:, :4] if self.residual else z))


class Ordered(Own):
    def __init__(self, **settings):
        self.first = linear(5, 4)
        super().__init__(**settings)
        second = self.second
        del self.second
        self.second = second


class Twice(nnx.Module):
    def __init__(self):
        self.first = linear(4, 4)

    def __call__(self, x):
        return self.first(nnx.sigmoid(self.first(x)))


class Inside(nnx.Module):
    def __init__(self):
        self.layer, self.scale = linear(4, 4), nnx.Param(jnp.ones(4))

    def __call__(self, x):
        return x + self.scale[...] * self.layer(x)


class Subclass(nnx.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


MLP = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
NNX_EXACT = {
    "dropout at rate 0": (lambda: (linear(5), nnx.sigmoid, nnx.Dropout(0.0, rngs=key()), linear(4, 3)), None),
    "dropout that is off": (
        lambda: (linear(5), nnx.sigmoid, nnx.Dropout(0.5, deterministic=True, rngs=key()), linear(4, 3)),
        None,
    ),
    "a softmax at the end": (lambda: (linear(5), nnx.sigmoid, linear(4, 3), nnx.softmax), None),
    "a softmax at the end, with net": (lambda: (linear(5), nnx.sigmoid, linear(4, 3), jax.nn.softmax), MLP),
    "a Sequential inside": (lambda: (nnx.Sequential(linear(5), nnx.sigmoid), linear(4, 3)), None),
    "a bias in one layer": (lambda: (linear(5, use_bias=False), nnx.sigmoid, linear(4, 3)), None),
    "no bias, with net": (lambda: (linear(5, use_bias=False), nnx.sigmoid, linear(4, 3, use_bias=False)), MLP),
    "bfloat16": (
        lambda: (linear(5, param_dtype=jnp.bfloat16), nnx.sigmoid, linear(4, 3, param_dtype=jnp.bfloat16)),
        None,
    ),
    "bfloat16, computed in it": (
        lambda: tuple(linear(*s, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16) for s in ((5, 4), (4, 3))),
        None,
    ),
    "a module of one's own": (Ordered, MLP),
    "a module that ends in probabilities": (lambda: Ordered(output=nnx.softmax), MLP),
    "in a list": (lambda: nnx.Sequential(*[linear(5), nnx.sigmoid, linear(4, 3)]), MLP),
}


@pytest.mark.parametrize(("make", "net"), NNX_EXACT.values(), ids=NNX_EXACT)
def test_an_nnx_model_that_has_a_counterpart_gives_it(make, net):
    made = make()
    model = biased(made if isinstance(made, nnx.Module) else nnx.Sequential(*made))
    params = interop.from_nnx(model, net)
    lr_nn.network.check_params(MLP if params[0].b is not None else NETWORKS[3], params)
    x = jax.random.normal(jax.random.key(2), (6, 5), params[0].w.dtype)
    eta = eta_of(MLP, params, x) if len(params) == 2 else None
    found = model(x)
    if found.dtype != jnp.float32:  # its hidden layer has no activation, or its outputs are rounded
        assert params[0].w.dtype == params[1].b.dtype == jnp.bfloat16
        return
    probabilities = np.allclose(found.sum(axis=1), 1)
    assert_close(found, MLP.loss.mean(eta) if probabilities else eta, 5)


def test_a_layer_that_is_shared_comes_twice():
    shared = biased(linear(4, 4))
    params = interop.from_nnx((shared, nnx.sigmoid, shared))
    assert len(params) == 2 and equal(params[:1], params[1:])


NNX_REFUSED = {
    "LayerNorm": (
        lambda: (linear(5), nnx.LayerNorm(4, rngs=key()), nnx.relu, linear(4, 3)),
        r"layers\[1\] is a LayerNorm",
    ),
    "LayerNorm without variables": (
        lambda: (linear(5), nnx.LayerNorm(4, use_scale=False, use_bias=False, rngs=key()), linear(4, 3)),
        r"layers\[1\] is a LayerNorm",
    ),
    "BatchNorm": (
        lambda: (linear(5), nnx.BatchNorm(4, use_running_average=True, rngs=key()), linear(4, 3)),
        r"layers\[1\] is a BatchNorm",
    ),
    "Conv": (lambda: (nnx.Conv(1, 1, (3,), rngs=key()), linear(4, 3)), r"layers\[0\] is a Conv"),
    "Embed": (lambda: (nnx.Embed(5, 4, rngs=key()), linear(4, 3)), r"layers\[0\] is a Embed"),
    "LinearGeneral": (
        lambda: (nnx.LinearGeneral(5, (2, 2), rngs=key()), linear(4, 3)),
        r"layers\[0\] is a LinearGeneral",
    ),
    "PReLU": (lambda: (linear(5), nnx.PReLU(), linear(4, 3)), r"layers\[1\] is a PReLU"),
    "dropout that is on": (
        lambda: (linear(5), nnx.relu, nnx.Dropout(0.01, rngs=key()), linear(4, 3)),
        r"layers\[2\] is a Dropout of rate 0.01 that is on",
    ),
    "LayerNorm deep inside": (
        lambda: (nnx.Sequential(linear(5), nnx.LayerNorm(4, rngs=key())), linear(4, 3)),
        r"layers\[0\].layers\[1\] is a LayerNorm",
    ),
    "a function of a row": (
        lambda: (linear(5), lambda z: z - z.mean(axis=1)[:, None], linear(4, 3)),
        r"layers\[1\], <func",
    ),
    "a softmax inside": (lambda: (linear(5), nnx.softmax, linear(4, 3)), r"layers\[1\]"),
    "a residual function": (
        lambda: (linear(5), residual(linear()), linear(4, 3)),
        r"layers\[1\]",
    ),
    "log_softmax": (lambda: (linear(5), nnx.relu, linear(4, 3), nnx.log_softmax), r"layers\[3\]"),
    "scaled inputs": (lambda: (lambda x: x / 255, linear(5, 3)), r"layers\[0\] changes the inputs"),
    "a subclass that scales": (lambda: (Subclass(5, 4, rngs=key()), nnx.relu, linear(4, 3)), "Sequential gives"),
    "a residual module inside": (lambda: (linear(5), Inside(), linear(4, 3)), r"layers\[1\].scale is a Param"),
    "a module of one's own": (Ordered, "Ordered.*pass net="),
    "widths": (lambda: (linear(5, 4), linear(5, 3)), "Linear 1 has 5 inputs, but Linear 0 before it 4 outputs"),
}


@pytest.mark.parametrize(("make", "message"), NNX_REFUSED.values(), ids=NNX_REFUSED)
def test_an_nnx_model_without_a_counterpart_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        interop.from_nnx(make())


DIFFERENT = {
    "another activation": {"activation": nnx.relu},
    "one that differs only far out": {"activation": lambda z: jnp.where(z > 20, 0.5, nnx.sigmoid(z))},
    "a residual connection": {"residual": True},
    "a scale": {"scale": 1.001},
    "a sigmoid at the end": {"output": nnx.sigmoid},
    "two outputs": {"output": lambda eta: (eta, eta)},
    "a squeezed output": {"output": lambda eta: eta[:, 0]},
}


@pytest.mark.parametrize("settings", DIFFERENT.values(), ids=DIFFERENT)
def test_an_nnx_model_of_other_outputs_than_the_network_is_refused(settings):
    with pytest.raises(ValueError, match=r"Ordered (gives|returns|must return)"):
        interop.from_nnx(biased(Ordered(**settings)), MLP)
    with pytest.raises(ValueError, match="Sequential gives"):
        interop.from_nnx((linear(5), nnx.relu, linear(4, 3)), MLP)


def test_layers_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ValueError, match="net has 2 layers, the model 1: Linear 0"):
        interop.from_nnx(Twice(), lr_nn.mlp((4, 4, 4)))
    with pytest.raises(ValueError, match="Linear 0 has a bias, and net has none"):
        interop.from_nnx((linear(5), nnx.elu, linear(4, 3)), NETWORKS[3])
    with pytest.raises(ValueError, match="Linear 1 has 5 inputs"):
        interop.from_nnx(Own(), MLP)


class Compact(linen.Module):
    """A linen model whose `wrong` says what it does beside its dense layers."""

    wrong: str = ""
    dtype: jnp.dtype | None = None

    @linen.compact
    def __call__(self, x, train=False):
        z = linen.Dense(4, name="first", use_bias=self.wrong != "no bias", dtype=self.dtype)(x)
        if self.wrong == "LayerNorm":
            z = linen.LayerNorm(use_scale=False, use_bias=False)(z)
        if self.wrong == "BatchNorm":
            z = linen.BatchNorm(use_running_average=not train)(z)
        if self.wrong == "Dropout":
            z = linen.Dropout(0.5)(z, deterministic=not train)
        if self.wrong == "shared":
            z = linen.sigmoid(z)
            layer = linen.Dense(4, name="again")
            return linen.Dense(3, name="head")(linen.sigmoid(layer(linen.sigmoid(layer(z)))))
        if self.wrong == "a scale":
            z = z * self.param("scale", linen.initializers.constant(1.5), (1, 4))
        a = linen.relu(z) if self.wrong == "relu" else linen.sigmoid(z)
        if self.wrong == "unused":
            linen.Dense(2, name="unused")
        return linen.Dense(3, name="head", dtype=self.dtype)(
            a + x[:, :4].astype(a.dtype) if self.wrong == "residual" else a
        )


def linen_model(wrong="", **settings):
    model = Compact(wrong, **settings)
    variables = model.init(jax.random.key(0), jnp.ones((2, 5)))
    filled = jax.tree.map(lambda a: a + 0.1 if a.ndim == 1 else a, variables["params"])
    return model, {**variables, "params": filled}


@pytest.mark.parametrize("wrong", ["", "no bias", "unused", "Dropout", "shared"])
def test_a_linen_model_that_has_a_counterpart_gives_it(wrong):
    model, variables = linen_model(wrong)
    net = lr_nn.mlp((5, 4, 4, 4, 3), loss=losses.categorical) if wrong == "shared" else MLP
    params = interop.from_linen(variables, model, net)
    x = jax.random.normal(jax.random.key(2), (6, 5))
    assert_close(eta_of(net, params, x), model.apply(variables, x), 5)
    if wrong == "shared":
        assert equal(params[1:2], params[2:3])


def test_half_precision_of_a_linen_model_is_compared_as_coarsely_as_it_computes():
    model, variables = linen_model(dtype=jnp.bfloat16)
    assert interop.from_linen(variables, model, MLP)[0].w.dtype == jnp.float32
    model, variables = linen_model("residual", dtype=jnp.bfloat16)
    with pytest.raises(ValueError, match="the model gives"):
        interop.from_linen(variables, model, MLP)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("LayerNorm", "LayerNorm_0 is a LayerNorm"),
        ("BatchNorm", "variables hold batch_stats"),
        ("a scale", "the model gives"),
        ("relu", "the model gives"),
        ("residual", "the model gives"),
    ],
)
def test_a_linen_model_without_a_counterpart_is_refused(wrong, message):
    model, variables = linen_model(wrong)
    with pytest.raises(ValueError, match=message):
        interop.from_linen(variables, model, MLP)


def test_dropout_that_is_on_is_refused_by_name():
    model, variables = linen_model("Dropout")
    with pytest.raises(ValueError, match=r"Dropout_0 is a Dropout of rate 0.5 that is on"):
        interop.from_linen(variables, lambda variables, x: model.apply(variables, x, train=True), MLP)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"Dense_0": (5, 4), "LayerNorm_0": None}, "LayerNorm_0"),
        ({"Dense_0": (5, 4), "layers_0": (4, 3)}, "Dense_0 and layers_0 have one number"),
        ({"Dense_0": (5, 4), "Dense_1": (5, 3)}, "Dense_1 has 5 inputs, but Dense_0 before it 4 outputs"),
        ({"Dense_0": (3, 5, 4)}, "kernel"),
        ({"Block_0": {"Dense_0": (5, 4)}}, "Block_0"),
    ],
)
def test_variables_that_are_no_chain_of_dense_layers_are_refused(layers, message):
    def filled(shape):
        if isinstance(shape, dict):
            return {name: filled(each) for name, each in shape.items()}
        if shape is None:
            return {"scale": jnp.ones(4), "bias": jnp.ones(4)}
        return {"kernel": jnp.ones(shape), "bias": jnp.ones(shape[-1])}

    with pytest.raises(ValueError, match=message):
        interop.from_linen({"params": filled(layers)})
    with pytest.raises(ValueError, match="batch_stats"):
        interop.from_linen(
            {"params": filled({"Dense_0": (5, 4)}), "batch_stats": {"BatchNorm_0": {"mean": jnp.ones(4)}}}
        )
