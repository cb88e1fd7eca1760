"""Audits of losses and activations: right ones pass, and every planted mistake is found in the part that it is in."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import ACTIVATIONS, LOSSES
from own_parts import (
    RIGHT_ACTIVATIONS,
    RIGHT_LOSSES,
    WRONG_ACTIVATIONS,
    WRONG_LOSSES,
    Bump,
    Cauchy,
    Correlated,
    LogCosh,
    Probit,
    changed,
)

import lr_nn
from lr_nn import activations, losses
from lr_nn.losses import Loss, Separable
from lr_nn.referee import Verdict
from lr_nn.referee.slopes import STEPS, slopes

MENU = [losses.huber(0.1), losses.through(activations.gelu, losses.huber(1.0))]


def cases(table):
    return pytest.mark.parametrize("case", table.values(), ids=table)


@cache
def audit_loss(loss, **settings):
    """With the two outputs that a correlated loss needs."""
    return lr_nn.audit_loss(loss, **({"k": 2} if isinstance(loss, Correlated) else {}) | settings)


def rows(report):
    return {check.name: check for check in report.checks}


def wrong(report):
    return {check.name for check in report.checks if check.verdict == Verdict.wrong}


def assert_ok(report):
    assert report.ok and not wrong(report), str(report)


@cases(LOSSES)
def test_every_loss_of_the_menu_is_right(case):
    report = lr_nn.audit_loss(case.loss)
    assert_ok(report)
    assert not report.undecided
    assert case.canonical == (rows(report)["canonical"].verdict == Verdict.right)
    overflows = rows(report)["far field in float32"].verdict == Verdict.overflows
    assert overflows == case.overflows


@cases(ACTIVATIONS)
def test_every_activation_of_the_menu_is_right(case):
    report = lr_nn.audit_activation(case.activation)
    assert_ok(report)
    assert not report.undecided


@pytest.mark.parametrize("loss", MENU, ids=lambda loss: loss.name)
def test_further_losses_of_the_menu_are_right_at_other_points(loss):
    assert_ok(lr_nn.audit_loss(loss, key=jax.random.key(7)))


@cases(RIGHT_LOSSES)
def test_a_right_loss_of_the_user_is_right(case):
    assert_ok(audit_loss(case))


@cases(RIGHT_ACTIVATIONS)
def test_a_right_activation_of_the_user_is_right(case):
    assert_ok(lr_nn.audit_activation(case))


@cases(WRONG_LOSSES)
def test_a_mistake_in_a_loss_is_found_in_its_parts_alone(case):
    loss, *parts = case
    report = audit_loss(loss)
    assert not report.ok and wrong(report) == set(parts), str(report)
    assert all(rows(report)[part].reason for part in parts)


@cases(WRONG_ACTIVATIONS)
def test_a_mistake_in_an_activation_is_found_in_its_parts_alone(case):
    activation, *parts = case
    report = lr_nn.audit_activation(activation)
    assert not report.ok and wrong(report) == set(parts), str(report)
    assert all(rows(report)[part].reason for part in parts)


def test_a_reason_says_how_many_times_and_where():
    report = audit_loss(WRONG_LOSSES["residual twice"][0])
    assert rows(report)["residual"].reason.startswith("2 times the derivative of value at eta = ")
    assert rows(report)["residual"].error == pytest.approx(1)
    fisher = rows(audit_loss(WRONG_LOSSES["Fisher twice"][0]))["fisher_multiply"]
    assert fisher.reason.startswith("it is 2 times the second moment of residuals")


def test_parts_that_are_not_stated_are_listed_with_what_needs_them():
    found = rows(audit_loss(LogCosh()))
    for part in ("hessian_multiply", "fisher_multiply", "fisher_factor", "mean", "sample", "constant", "canonical"):
        assert found[part].verdict == Verdict.not_stated
    reason = found["hessian_multiply"].reason
    assert reason == "no curvature(eta, y), the second derivative ∂²ℓ/∂η², which curvature.hessian needs"
    bump = rows(lr_nn.audit_activation(Bump()))
    assert bump["second_derivative"].verdict == Verdict.not_stated


def test_at_a_kink_any_value_between_the_one_sided_slopes_is_right():
    for slope in (-0.3, 0.0, 0.7):
        pinball = changed(
            type(RIGHT_LOSSES["pinball"]),
            slope=lambda self, eta, y, slope=slope: jnp.where(y == eta, slope, jnp.where(y > eta, -0.3, 0.7)),
        )
        assert rows(audit_loss(pinball))["residual"].verdict == Verdict.at_a_kink


def test_what_jax_gets_wrong_in_a_right_loss_is_said_and_is_no_fault_of_the_residual():
    def term(self, eta, y):
        return jnp.sqrt(jnp.square(eta - y))  # jax.grad is NaN at a tie

    loss = changed(LogCosh, term=term, slope=lambda self, eta, y: jnp.sign(eta - y), smooth=False)
    report = audit_loss(loss)
    assert_ok(report)
    assert rows(report)["jax.grad of value"].verdict == Verdict.autodiff_wrong


def test_a_claim_that_fails_at_targets_that_may_not_be_meant_is_undecided():
    silent = changed(Probit, valid=Loss.valid, sample=Loss.sample, task="values")
    report = audit_loss(silent)
    assert report.ok and "convex" in {check.name for check in report.undecided}
    assert "valid" in rows(report)["convex"].reason
    assert rows(lr_nn.audit_loss(silent, y=[0, 1, 1]))["convex"].verdict == Verdict.right


def test_targets_of_the_user_decide_the_outputs():
    assert_ok(lr_nn.audit_loss(losses.bernoulli, y=[0, 1, 1]))
    assert_ok(lr_nn.audit_loss(losses.categorical, y=[0, 4, 2]))
    for part in ("value", "residual"):
        assert "k = 3 outputs" in rows(lr_nn.audit_loss(Correlated()))[part].reason


def test_labels_are_compared_with_rows_where_the_loss_takes_them_as_they_are():
    assert rows(audit_loss(losses.categorical))["labels"].verdict == Verdict.right
    assert "labels" not in rows(audit_loss(RIGHT_LOSSES["one versus rest"]))


def test_a_kink_that_smooth_does_not_exclude_is_named():
    report = audit_loss(losses.through(activations.relu, losses.squared_error))
    assert rows(report)["residual"].verdict == Verdict.at_a_kink
    assert rows(report)["smooth"].verdict == Verdict.right and "kinks elsewhere" in rows(report)["smooth"].reason


def test_a_diagonal_of_the_fisher_that_has_nothing_to_be_compared_with_is_undecided():
    report = audit_loss(changed(Cauchy, fisher_diagonal=lambda self, eta: jnp.ones_like(eta)))
    assert report.ok and [check.name for check in report.undecided] == ["fisher_diagonal"]


class FarOff(Separable):
    """Admits no number that an audit would think of."""

    def valid(self, y):
        return y > 1000

    def term(self, eta, y):
        return jnp.square(eta - y) / 2

    def slope(self, eta, y):
        return eta - y


def test_a_loss_whose_targets_the_audit_cannot_guess_asks_for_them():
    with pytest.raises(ValueError, match=r"admitted by the loss FarOff .* audit_loss\(loss, y=\.\.\.\)"):
        lr_nn.audit_loss(FarOff())
    assert_ok(lr_nn.audit_loss(FarOff(), y=np.arange(2000.0, 2040.0)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lr_nn.audit_loss(Cauchy), TypeError, r"pass an instance, Cauchy\(\)"),
        (lambda: lr_nn.audit_loss(activations.relu), TypeError, "needs a Loss"),
        (lambda: lr_nn.audit_activation(losses.bernoulli), TypeError, "needs an Activation"),
        (lambda: lr_nn.audit_activation(activations.Relu), TypeError, "pass an instance"),
        (lambda: lr_nn.audit_loss(losses.bernoulli, k=0), ValueError, "k must be at least 1"),
        (lambda: lr_nn.audit_loss(losses.bernoulli, key=3), TypeError, "key must be a random key"),
        (lambda: lr_nn.audit_loss(losses.bernoulli, y=[0.5, 2.0]), ValueError, "0 or 1.*got 2 at row 1"),
        (lambda: lr_nn.audit_loss(losses.bernoulli, y=[]), ValueError, "n > 0"),
        (lambda: jax.jit(lambda y: lr_nn.audit_loss(losses.bernoulli, y=y).ok)(np.ones(3)), TypeError, "on the host"),
        (jax.jit(lambda: lr_nn.audit_activation(Bump()).ok), TypeError, "on the host"),
    ],
)
def test_what_cannot_be_audited_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("wide", [False, True])
def test_an_audit_leaves_the_configuration_of_jax_as_it_is(wide):
    with jax.enable_x64(wide):
        assert_ok(lr_nn.audit_loss(losses.squared_error))
        assert_ok(lr_nn.audit_activation(activations.sine))
        assert jnp.zeros(()).dtype == (np.float64 if wide else np.float32)


def test_a_report_is_a_table_with_a_line_for_each_check_and_json():
    report = audit_loss(WRONG_LOSSES["falsely convex"][0])
    lines = str(report).splitlines()
    assert len(lines) == len(report.checks) + 3 and lines[-1] == "WrongCauchy: not ok: convex"
    assert report.worst.name == "convex"
    held = json.loads(report.to_json())
    assert held["ok"] is False and held["worst"] == "convex"
    assert [check["name"] for check in held["checks"]] == [check.name for check in report.checks]
    assert report.leaves == report.checks
    with pytest.raises(AttributeError):
        report.checks = ()


def slopes_at(function, x):
    x, steps = np.asarray(x, float)[:, None], np.asarray(STEPS)[:, None, None]
    return slopes(function(x), function(x + steps), function(x - steps), steps, np.finfo(float).eps, 1.0)


def test_slopes_tell_kinks_and_jumps_from_curvature():
    at = [0.0, 1e-3, -2.0]
    for smooth in (np.sin, np.square, lambda x: np.exp(-((x / 1e-2) ** 2)), lambda x: 1e-9 * np.sin(x)):
        assert not slopes_at(smooth, at).irregular.any()
    kink, jump = slopes_at(np.abs, at), slopes_at(np.sign, at)
    assert kink.kink.ravel().tolist() == [True, False, False] and not kink.jump.any()
    assert jump.jump.ravel().tolist() == [True, False, False]
    assert kink.low[0, 0] == pytest.approx(-1, rel=1e-5) and kink.high[0, 0] == pytest.approx(1, rel=1e-5)
    found = slopes_at(np.sin, at)
    assert (np.abs(found.central - np.cos(np.reshape(at, (-1, 1)))) <= found.error).all()
