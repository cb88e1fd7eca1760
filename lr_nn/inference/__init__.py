"""Inference after a fit: standard errors, intervals, tests, influence, and Firth's fit of separated data.

For one-layer networks with a likelihood, fitted without a penalty or with an L2 one.
"""

from lr_nn.inference.summary import Summary, summary

__all__ = ["Summary", "summary"]
