"""Equations with the names of nodes put in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lr_nn.graph.node import Node
from lr_nn.graph.rules.base import Rule

MACRON = "\u0304"
PREACTIVATION = re.compile(r"z(\d+′*)")
LAST_LETTER = re.compile(r"([^\W\d_])(?=[\W\d_]*$)")


@lru_cache
def bar(name: str) -> str:
    """The name of an adjoint: v4 and v̄4, params[0].w and params[0].w̄; that of a pre-activation z1 is δ1.

    >>> bar("v4") == "v\\u03044", bar("z1")
    (True, 'δ1')
    """
    preactivation = PREACTIVATION.fullmatch(name)
    if preactivation:
        return f"δ{preactivation[1]}"
    marked, found = LAST_LETTER.subn(rf"\1{MACRON}", name, count=1)
    return marked if found else name + MACRON


def equation(rule: Rule, name: str, operands: Sequence[Node], params: Mapping[str, Any], part: str) -> str:
    """How a node is made: its name, and the rule's text with the names of the operands. part: "[1]" of several."""
    text = rule.equation_text([node.shape for node in operands], params)
    return f"{name} = {_fill(rule, text, name, operands, params)}{part}"


def adjoint_equations(
    rule: Rule, result: Node, operands: Sequence[Node], params: Mapping[str, Any], carries: Sequence[bool]
) -> tuple[str, ...]:
    """What each operand gains from a result, "" where it gains nothing."""
    texts = rule.adjoint_texts([node.shape for node in operands], params)
    return tuple(
        _gain(rule, text, result, operand, operands, params) if carried else ""
        for text, operand, carried in zip(texts, operands, carries)
    )


def _gain(
    rule: Rule, text: str, result: Node, operand: Node, operands: Sequence[Node], params: Mapping[str, Any]
) -> str:
    filled = _fill(rule, text, result.name, operands, params, operand.name)
    if rule.elementwise and operand.shape != result.shape:
        filled = f"Σ({filled})"
    return f"{bar(operand.name)} += {filled}"


def _fill(
    rule: Rule, text: str, out: str, operands: Sequence[Node], params: Mapping[str, Any], self_name: str = ""
) -> str:
    names = [node.name for node in operands]
    words = {
        **{name: _plain(value) for name, value in params.items()},
        "out": out,
        "bar": bar(out),
        "self": self_name,
        "operands": ", ".join(names),
        "rest": ", ".join(names[1:]),
    }
    try:
        return text.format(*names, **words)
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"an equation of the rule for {rule.operation!r}, {text!r}, names {error}, which is neither one of its "
            f"{len(names)} operands nor one of its parameters {sorted(params)}"
        ) from error


def _plain(value: Any) -> Any:
    """Whole numbers of NumPy as Python writes them."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value)) if type(value) is tuple else value
    return int(value) if isinstance(value, np.integer) else value
