"""Per-example quantities of any function of JAX, from one backward pass.

A layer z = a w + b of any model has per-example gradients Σ_t a_t δ_tᵀ, the sum over positions t of its inputs and its
errors δ = ∂ℓ_i/∂z. So norms, clipping, moments, Gram matrices and Kronecker factors need only a and δ of each layer
(Goodfellow, 2015; Li et al., 2022). A function calls a *tap* where its layers meet their parameters:

    def losses(tap, params, x, y):
        hidden = jnp.tanh(tap.dense(x, params["w"], params["b"]))
        ...
        return losses_of_the_examples  # (n,)

    bp = taps.backprop(losses, params, x, y)
    per_example.squared_norms(bp)

`losses(taps.plain, params, x, y)` is the same function without recording, for training and `jax.grad`. JAX computes
the backward pass of the function; the quantities follow from it by hand.
"""

from lr_nn.taps import kronecker, quantities  # they register their functions for a TapPass
from lr_nn.taps.passes import TapPass, backprop
from lr_nn.taps.tap import Tap, plain

__all__ = ["Tap", "TapPass", "backprop", "plain"]

del kronecker, quantities


def __dir__() -> list[str]:
    return __all__
