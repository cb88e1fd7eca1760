"""Networks to and from flax, linen and nnx: `kernel` is w, `bias` is b, and outputs agree bit for bit.

`tapped` makes a function with taps of any nnx module, for `lr_nn.taps`.

Needs the extra `flax`: pip install "lr-nn[flax]".
"""

from lr_nn.interop.flax.linen import LinenNetwork, from_linen, to_linen
from lr_nn.interop.flax.nnx import from_nnx, to_nnx
from lr_nn.interop.flax.taps import tapped

__all__ = ["LinenNetwork", "from_linen", "from_nnx", "tapped", "to_linen", "to_nnx"]
