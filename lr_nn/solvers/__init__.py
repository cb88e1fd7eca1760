"""Directions, steps and certificates: what `fit` is assembled from."""
