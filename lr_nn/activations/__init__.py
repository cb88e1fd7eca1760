"""Hidden activations a = σ(z), each with its derivatives beside it.

Where σ' is a function of the output a (sigmoid, tanh, relu, ...), the backward pass needs no pre-activation z. Where it
is not (SiLU, GELU, sine, softsign), the activation states `keeps = "z"`, and the forward pass keeps z of that layer as
well. Softmax is not here: it belongs to the categorical loss.

An activation of your own is a subclass of `Activation`, checked by `lr_nn.audit_activation`:

>>> import jax.numpy as jnp, lr_nn
>>> class Bump(lr_nn.activations.Activation):
...     keeps = "z"
...
...     def value(self, z):
...         return jnp.exp(-z * z)
...
...     def derivative(self, z):
...         return -2 * z * jnp.exp(-z * z)
>>> net = lr_nn.mlp((4, 8, 1), hidden=Bump())

Kinks: step(0) = 0 and relu'(0) = 0; leaky_relu'(0) = elu'(0) = 1 (as `jax.nn` has them). `jax.grad` of `value`
agrees, in every order: no function here has a derivative of its own (`custom_jvp`).
"""

from lr_nn.activations.base import Activation
from lr_nn.activations.of_output import Elu, Identity, LeakyRelu, Relu, Sigmoid, Softplus, Step, Tanh
from lr_nn.activations.of_preactivation import Gelu, GeluTanh, Silu, Sine, Softsign

__all__ = [
    "Activation",
    "Elu",
    "Gelu",
    "GeluTanh",
    "Identity",
    "LeakyRelu",
    "Relu",
    "Sigmoid",
    "Silu",
    "Sine",
    "Softplus",
    "Softsign",
    "Step",
    "Tanh",
    "elu",
    "gelu",
    "gelu_tanh",
    "identity",
    "leaky_relu",
    "relu",
    "sigmoid",
    "silu",
    "sine",
    "softplus",
    "softsign",
    "step",
    "tanh",
]


def __dir__() -> list[str]:
    return __all__


identity = Identity()
step = Step()
sigmoid = Sigmoid()
tanh = Tanh()
relu = Relu()
elu = Elu()
softplus = Softplus()
silu = Silu()
gelu = Gelu()
gelu_tanh = GeluTanh()
sine = Sine()
softsign = Softsign()


def leaky_relu(slope: float = 0.01) -> LeakyRelu:
    """The leaky rectifier with `slope` > 0 on the negative side."""
    return LeakyRelu(float(slope))
