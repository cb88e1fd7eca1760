"""flax.nnx modules as functions with taps: the same outputs, and the per-example gradients of `vmap(grad)`."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from tolerances import assert_close, assert_trees_close

from lr_nn import per_example, taps
from lr_nn.interop.flax import tapped

pytestmark = pytest.mark.usefixtures("promotion")


@pytest.fixture
def promotion():
    """flax relies on the promotion of ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


class Transformer(nnx.Module):
    """Attention of flax's own, two normalisations, a table that is also the output layer."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.before, self.between = nnx.LayerNorm(8, rngs=rngs), nnx.RMSNorm(8, rngs=rngs)
        self.up, self.down = nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 8, use_bias=False, rngs=rngs)

    def __call__(self, ids):
        h = self.embed(ids)
        h = h + self.attention(self.before(h))
        h = h + self.down(jax.nn.gelu(self.up(self.between(h))))
        return self.embed.attend(h)


class Convolutional(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.second = nnx.Conv(4, 4, (3, 3), strides=2, padding=1, rngs=rngs)
        self.out = nnx.LinearGeneral((3, 3, 4), (3,), axis=(-3, -2, -1), rngs=rngs)

    def __call__(self, x):
        return self.out(self.second(jax.nn.relu(self.norm(self.first(x)))))


class Layer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.linear(x))


class Stacked(nnx.Module):
    """Layers stacked by `nnx.vmap`, one a step of `nnx.scan`, then one that is rematerialised."""

    def __init__(self, rngs):
        self.layers = nnx.vmap(Layer, in_axes=0, out_axes=0)(rngs.split(3))
        self.last = Layer(rngs)

    def __call__(self, x):
        scan = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return nnx.remat(Layer.__call__)(self.last, scan(x, self.layers))


class Recurrent(nnx.Module):
    """A cell that draws from its random stream, an adapter, and axes that are contracted out of order."""

    def __init__(self, rngs):
        self.cell = nnx.RNN(nnx.GRUCell(4, 3, rngs=rngs))
        self.adapter = nnx.LoRALinear(3, 3, lora_rank=2, rngs=rngs)
        self.out = nnx.LinearGeneral((3, 3), 2, axis=(-1, -2), rngs=rngs)

    def __call__(self, x):
        return self.out(self.adapter(self.cell(x)))


CASES = {
    Recurrent: jax.random.normal(jax.random.key(0), (3, 3, 4)),
    Transformer: jax.random.randint(jax.random.key(0), (3, 5), 0, 11),
    Convolutional: jax.random.normal(jax.random.key(0), (3, 6, 6, 2)),
    Stacked: jax.random.normal(jax.random.key(0), (3, 4)),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_module_with_taps_has_its_outputs_and_the_gradients_of_each_example(kind):
    module, x = kind(nnx.Rngs(0)), CASES[kind]
    apply, params = tapped(module)

    def losses(tap, params, x):
        return jnp.square(apply(tap, params, x)).reshape(len(x), -1).sum(axis=1)

    @jax.jit
    def expected(params):
        gradient = jax.grad(lambda params, row: losses(taps.plain, params, row[None])[0])
        return jax.vmap(gradient, (None, 0))(params, x)

    assert_close(
        jax.jit(lambda p: apply(taps.plain, p, x))(params), nnx.jit(lambda module, x: module(x))(module, x), 10
    )
    bp = taps.backprop(losses, params, x)
    assert_trees_close(per_example.gradients(bp), expected(params), 100_000)


def module_of(layer):
    return nnx.Sequential(nnx.Linear(4, 4, rngs=nnx.Rngs(0)), layer)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nnx.BatchNorm(4, rngs=nnx.Rngs(0)), "layers.1 is a BatchNorm in training mode"),
        (nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "layers.1 is a Dropout of rate 0.5 that is on"),
        (nnx.Conv(4, 4, 3, feature_group_count=2, rngs=nnx.Rngs(0)), "feature_group_count=2, which has no tap"),
        (nnx.Linear(4, 4, precision="highest", rngs=nnx.Rngs(0)), "precision=highest, which has no tap"),
        (nnx.Linear(4, 4, dot_general=lambda *at, **kw: None, rngs=nnx.Rngs(0)), "dot_general=.*, which has no tap"),
        (nnx.Conv(4, 4, 3, preferred_element_type=jnp.float32, rngs=nnx.Rngs(0)), "preferred_element_type=.* no tap"),
    ],
    ids=["batch norm", "dropout", "groups", "precision", "product", "accumulator"],
)
def test_a_layer_that_has_no_tap_is_refused_by_its_place(layer, message):
    with pytest.raises(ValueError, match=message):
        tapped(module_of(layer))


def test_a_parameter_of_a_module_of_ones_own_is_refused_by_its_path():
    class Scaled(nnx.Module):
        def __init__(self):
            self.linear, self.factor = nnx.Linear(4, 1, rngs=nnx.Rngs(0)), nnx.Param(jnp.ones(()))

        def __call__(self, x):
            return self.factor * self.linear(x)

    apply, params = tapped(Scaled())
    with pytest.raises(ValueError, match=r"factor.* is used without a tap"):
        taps.backprop(lambda tap, params, x: apply(tap, params, x)[:, 0], params, jnp.ones((3, 4)))
    with pytest.raises(TypeError, match=r"expects a flax\.nnx module"):
        tapped(jnp.tanh)
