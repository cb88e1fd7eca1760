"""To and from other libraries: `lr_nn.interop.flax`, `sklearn` (each needs its own extra) and `conventions`."""
