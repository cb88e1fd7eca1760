"""What cannot be traced, said by name: with where it was called, and what to do."""

from __future__ import annotations

from jax.extend.core import JaxprEqn

from lr_nn.graph.rules.complex_numbers import is_complex

CALLBACK = "take the callback (jax.debug.print among them) out of the function"


def check(eqn: JaxprEqn, source: str) -> None:
    """Refuse what does more than compute."""
    name = eqn.primitive.name
    if eqn.effects or "callback" in name:
        raise NotImplementedError(f"{name!r}{_at(source)} calls back to Python or has another effect: {CALLBACK}")


def missing(eqn: JaxprEqn, source: str) -> NotImplementedError:
    """The error for an operation without a rule, with the line that would add one."""
    name = eqn.primitive.name
    operands = ", ".join("xyzuvw"[: len(eqn.invars)]) if len(eqn.invars) <= 6 else "*operands"
    params = ", ".join(sorted(eqn.params))
    behind = f" Parameters that it may name behind `*`: {params}." if params else ""
    return NotImplementedError(
        f"the operation {name!r}{_at(source)} has no rule{_numbers(eqn)}; add one:\n"
        f"    rule = graph.rule({name!r}, lambda {operands}: ..., lambda adjoint, value, {operands}: ...)\n"
        "    graph.trace(fn, *args, rules=[rule])\n"
        "The first function gives its value on NumPy arrays; the second, from the adjoint of the value, one adjoint "
        f"an operand, None for none.{behind}"
    )


def _numbers(eqn: JaxprEqn) -> str:
    complex_in = any(is_complex(getattr(atom.aval, "dtype", None)) for atom in eqn.invars)
    return " for complex numbers, which it would get as pairs (..., 2)" if complex_in else ""


def _at(source: str) -> str:
    return f" ({source})" if source else ""
