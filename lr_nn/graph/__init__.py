"""The computation graph of a JAX function, opened."""
