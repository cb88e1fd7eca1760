"""Where the values do not resolve a derivative there is no verdict, and points closer in are audited instead."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import right_cases
from benchmarks.referees import trial
from benchmarks.right_cases import attention
from lr_nn import audit
from lr_nn.referee import Verdict
from lr_nn.referee.points import FAR_OUT
from lr_nn.referee.report import Evidence
from lr_nn.referee.taylor import STEPS, taylor
from lr_nn.referee.verdicts import judge


@functools.cache
def attended(seed):
    """A head of attention on normalised rows, whose softmax saturates far out."""
    return attention.normalised_attention(np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(3))
def test_a_right_gradient_of_attention_is_not_accused_where_its_softmax_saturates(seed):
    case = attended(seed)
    report = audit(case.value, jax.grad(case.value), case.params, case.batch)
    assert report.ok, report
    assert {record.point for record in report.undecided} <= set(FAR_OUT) and all(r.reason for r in report.undecided)
    noise = [record for record in report.undecided if "rounding noise" in record.reason]
    assert any(record.decided_at for record in noise), "no point closer in was decided"
    assert all(leaf.findings[0].verdict == Verdict.right for leaf in report.leaves)
    assert sum(line.startswith("undecided at parameters x 1e4") for line in str(report).splitlines()) >= 1
    assert json.loads(report.to_json())["undecided"] == [record._asdict() for record in report.undecided]


def test_a_gradient_of_attention_that_is_wrong_far_out_alone_is_found_at_a_point_closer_in():
    case = attended(0)
    size = float(np.sqrt(np.mean(case.params["k"] ** 2)))

    def gradient(p, batch, factor=1.01):
        right = jax.grad(case.value)(p, batch)
        return right | {"k": jnp.where(jnp.sqrt(jnp.mean(p["k"] ** 2)) > 1.2 * size, factor, 1.0) * right["k"]}

    report = audit(case.value, gradient, case.params, case.batch, dtypes=[np.float64])
    assert not report.ok and report.worst.name == "params['k']"
    found = report.worst.worst
    assert found.verdict == Verdict.wrong and found.instead_of in FAR_OUT and "1.01 times" in found.reason
    assert report.worst.findings[0].verdict == Verdict.right


def test_a_gradient_of_attention_without_the_second_term_of_the_softmax_is_found():
    case = attended(0)

    @jax.custom_vjp
    def softmax(scores):
        return jax.nn.softmax(scores)

    softmax.defvjp(lambda z: (softmax(z), softmax(z)), lambda share, seed: (share * seed,))

    def value(p, batch):
        x = jax.nn.standardize(batch["x"], epsilon=1e-5) * p["s"][None]
        shares = softmax((x @ p["q"]) @ (x @ p["k"]).T / x.shape[1] ** 0.5)
        return 0.5 * jnp.sum((shares @ (x @ p["v"])) ** 2)

    report = audit(case.value, jax.grad(value), case.params, case.batch, dtypes=[np.float64])
    wrong = {leaf.name for leaf in report.leaves if leaf.findings[0].verdict == Verdict.wrong}
    assert not report.ok and wrong == {"params['k']", "params['q']", "params['s']"}


def waves(frequency):
    """Parabolas side by side, `frequency` of them from 0 to 1."""

    def value(w):
        phase = frequency * w
        return jnp.sum((phase - jnp.round(phase)) ** 2)

    return value


def test_a_report_whose_given_point_is_undecided_is_not_ok(float64):
    value = waves(2.0**46)
    report = audit(value, jax.grad(value), np.sqrt([0.3, 0.7, 1.1]))
    assert not report.ok and report.worst.verdict == Verdict.undecided
    assert "as given" in {record.point for record in report.undecided}
    assert "undecided" in str(report).splitlines()[-1]
    assert not any(finding.verdict == Verdict.wrong for finding in report.leaves[0].findings)


@pytest.mark.parametrize(("flat_is_zero", "expected"), [(True, Verdict.right), (False, Verdict.undecided)])
def test_a_gradient_of_rounding_noise_beside_constant_values_is_zero_at_the_given_point_alone(flat_is_zero, expected):
    constant = np.full(len(STEPS), 7.0)
    noise = taylor(constant, 7.0, constant, slope=1e-9, curvature=0.0)
    assert noise.refuted and noise.flat
    evidence = Evidence(7.0, noise, noise, "", 1.0, unresolved="noise")
    leaf = np.full(3, 1e-9)
    verdict, _, _ = judge(leaf, leaf, leaf, lambda whose, goal: 0.0, evidence, False, 0.0, flat_is_zero)
    assert verdict == expected
    proven = evidence._replace(unresolved="")
    assert judge(leaf, leaf, leaf, lambda whose, goal: 0.0, proven, False, 0.0, flat_is_zero)[0] == Verdict.wrong


def test_a_derivative_that_changes_within_the_smallest_step_is_undecided(float64):
    value = waves(2.0**33)
    report = audit(value, jax.grad(value), np.sqrt([0.3, 0.7, 1.1]))
    assert report.ok and report.leaves[0].findings[0].verdict == Verdict.right
    (record,) = (record for record in report.undecided if record.point == "parameters x 1e4")
    assert "changes within the smallest step" in record.reason and record.decided_at


def test_a_value_that_hides_its_derivative_at_saturated_parameters_too_is_found():
    case = attended(0)

    def hiding(p, batch):
        return case.value(p | {"v": jax.lax.stop_gradient(p["v"])}, batch)

    assert not audit(hiding, jax.grad(hiding), case.params, case.batch, dtypes=[np.float64]).ok


def test_an_array_of_whole_numbers_that_the_functions_hold_is_traced_in_two_types():
    rows = np.array([1, 0, 2, 2])

    def value(p):
        return jnp.sum(jnp.tanh(p[rows]) ** 2)

    assert audit(value, jax.jit(jax.grad(value)), np.ones((3, 2), np.float32)).ok


@functools.cache
def drawn():
    return list(right_cases.suspects(72))


@pytest.mark.parametrize("number", [6, 47, 52], ids=lambda number: drawn()[number].name)
def test_further_right_gradients_are_not_accused(number):
    assert not trial(drawn()[number], "lr_nn.audit")[0]
