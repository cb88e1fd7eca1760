"""The referee: is this gradient right? For any function and any hand-written gradient over pytrees."""

from lr_nn.audit.report import Check, Errors, Finding, Leaf, Report, Verdict
from lr_nn.audit.run import audit

__all__ = ["Check", "Errors", "Finding", "Leaf", "Report", "Verdict", "audit"]
