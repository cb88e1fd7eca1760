"""To and from other libraries: `lr_nn.interop.flax` and `sklearn`, each with the extra of its name, and `conventions`."""
