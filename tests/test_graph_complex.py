"""Complex numbers inside a graph: pairs of real ones, with the adjoints that autodiff gives the real arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tolerances import assert_close

from lr_nn import graph
from lr_nn.graph.rules import TABLE
from lr_nn.graph.rules.complex_numbers import OWN, SAME

LENGTH = 100
X, Y = np.random.default_rng(0).normal(size=(2, 4, 5))


def weighted(v):
    """A sum with a weight of its own for every entry."""
    return (v * jnp.cos(jnp.arange(v.size, dtype=v.dtype)).reshape(v.shape)).sum()


def pairs(x, y):
    return lax.complex(x, y)


FUNCTIONS = {
    "spectrum": lambda x, y: weighted(jnp.abs(jnp.fft.fft(x + y))),
    "convolution": lambda x, y: weighted(jnp.fft.irfft(jnp.fft.rfft(x, 8) * jnp.fft.rfft(y, 8), 8)),
    "odd lengths": lambda x, y: weighted(jnp.fft.irfft(jnp.fft.rfft(x) * 2j - jnp.fft.rfft(y), 5)),
    "two axes": lambda x, y: weighted(jnp.fft.irfft2(jnp.fft.rfft2(x) / (jnp.fft.rfft2(y) + 7))),
    "inverse": lambda x, y: weighted(jnp.fft.ifft2(pairs(x, y)).imag) + weighted(jnp.fft.ifft(pairs(y, x)).real),
    "products": lambda x, y: weighted(jnp.real(pairs(x, y) @ jnp.conj(pairs(y, x)).T)),
    "functions": lambda x, y: weighted((jnp.exp(pairs(x, y)) * jnp.sin(pairs(y, x)) + jnp.sqrt(pairs(x, y))).imag),
    "powers": lambda x, y: weighted((pairs(x, y) ** 3 / pairs(y, x)).real) + weighted(jnp.angle(pairs(x, y))),
    "choice": lambda x, y: weighted(jnp.where(x > 0, pairs(x, y), 1j).imag[::2, 1:]),
    "linear system": lambda x, y: weighted(jnp.linalg.solve(pairs(x, y)[:, :4] + 3 * jnp.eye(4), pairs(y, x)).imag),
    "loop": lambda x, y: (
        weighted(jnp.abs(lax.scan(lambda c, t: (c * t + 1, c), x[0] + 0j, pairs(x, y))[1])) + weighted(y)
    ),
}


@pytest.mark.parametrize("opened", [(), ("jit", "scan")], ids=["kept", "opened"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_real_arguments_have_the_adjoints_of_autodiff_through_complex_numbers(float64, name, opened):
    with jax.numpy_dtype_promotion("standard"):  # as users write
        function = FUNCTIONS[name]
        expected = jax.jit(jax.grad(function, argnums=(0, 1)))(X, Y)
        traced = graph.trace(function, X, Y, opened=opened)
        assert_close(traced.nodes[traced.outputs[0]].value, function(X, Y), LENGTH)
    for got, wanted in zip(traced.backward(), expected, strict=True):
        assert_close(got, wanted, LENGTH)


def test_a_complex_node_is_a_pair_and_its_adjoint_the_gradient_by_both_parts():
    with jax.numpy_dtype_promotion("standard"):
        traced = graph.trace(lambda x: jnp.abs(jnp.fft.rfft(x)).sum(), X[0].astype(np.float32))
    traced.backward()
    [spectrum] = [node for node in traced.nodes if node.op == "fft"]
    assert spectrum.shape == spectrum.adjoint.shape == (3, 2) and spectrum.dtype == np.float32
    assert spectrum.equation == "v1 = F x"
    wanted = spectrum.value / np.linalg.norm(spectrum.value, axis=1, keepdims=True)
    assert_close(spectrum.adjoint, wanted, LENGTH)
    assert "F x" in str(traced) and traced.html()


def test_the_rules_that_hold_for_complex_numbers_too_exist():
    assert set(TABLE) >= SAME and not set(OWN) & SAME
