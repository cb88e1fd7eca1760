"""Parameters to and from other libraries: `lr_nn.interop.flax`. Each needs its own extra."""
