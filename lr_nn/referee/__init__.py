"""The referee: is this gradient right? For any function and any hand-written gradient over pytrees."""

from lr_nn.referee.entry import audit
from lr_nn.referee.report import Check, Errors, Finding, Leaf, Report, Undecided, Verdict

__all__ = ["Check", "Errors", "Finding", "Leaf", "Report", "Undecided", "Verdict", "audit"]
