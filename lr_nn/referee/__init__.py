"""The referee: is this gradient right? For any function and any hand-written gradient over pytrees.

`audit` asks it of a function, `audit_loss` and `audit_activation` of every part of a loss and of an activation.
"""

from lr_nn.referee.activation_audit import audit_activation
from lr_nn.referee.entry import audit
from lr_nn.referee.loss_audit import audit_loss
from lr_nn.referee.part_report import PartCheck, PartReport
from lr_nn.referee.report import Check, Errors, Finding, Leaf, Report, Undecided, Verdict

__all__ = [
    "Check",
    "Errors",
    "Finding",
    "Leaf",
    "PartCheck",
    "PartReport",
    "Report",
    "Undecided",
    "Verdict",
    "audit",
    "audit_activation",
    "audit_loss",
]
