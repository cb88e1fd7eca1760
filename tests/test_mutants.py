"""The mutation score is worth what its mutants and its right gradients are worth."""

import functools
import json

import jax
import numpy as np
import pytest

from benchmarks import audit, correct, referees, right_cases
from benchmarks.mutants import KINDS, MUTANTS, SETTINGS
from benchmarks.mutants.backward import Pass, gradient
from benchmarks.referees import Suspect, placed
from tests.tolerances import tolerance


@pytest.fixture(autouse=True)
def as_users_write():
    """Peers are written as their users write them, not in our strict style."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def exact(name, far=1.0):
    """The gradient of a setting by `jax.grad` in float64, x multiplied by `far`: NumPy arrays."""
    return by_autodiff(SETTINGS[name], far)


def by_autodiff(setting, far=1.0):
    with jax.enable_x64(True):
        params, batch = placed((setting.params, moved(setting, far)), "float64")
        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.grad(setting.value)(params, batch))]


def moved(setting, far):
    return setting.batch._replace(x=far * setting.batch.x)


def found(setting, function, dtype, far=1.0):
    """The leaves of a gradient as NumPy arrays. Operation by operation, which many mutants share, compiled or not."""
    with jax.enable_x64(True), jax.disable_jit():
        params, batch = placed((setting.params, moved(setting, far)), dtype)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(function(params, batch))]


def error(leaves, desired, dtype, rows):
    """Largest error of a leaf over what rounding allows."""
    assert all(np.isfinite(leaf).all() for leaf in desired) and any(leaf.any() for leaf in desired)
    allowed = tolerance(dtype, rows)
    pairs = [(leaf.astype(np.float64), right) for leaf, right in zip(leaves, desired, strict=True)]
    ratios = [np.abs(leaf - right).max() / (allowed * np.abs(right).max(initial=1e-30)) for leaf, right in pairs]
    return np.nan_to_num(ratios, nan=np.inf).max()


def error_of(mutant, far):
    setting = SETTINGS[mutant.setting]
    leaves = found(setting, mutant.gradient(setting), mutant.dtype, far)
    return error(leaves, exact(mutant.setting, far), mutant.dtype, len(setting.batch.x))


def test_there_are_enough_mutants_of_every_kind():
    assert len(MUTANTS) == sum(map(len, KINDS.values())) >= 60, "two mutants have one name"
    assert all(len(kind) >= 10 for kind in KINDS.values())
    assert len({mutant.setting for mutant in MUTANTS.values()}) >= 10


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_wrong_beyond_rounding(name):
    mutant = MUTANTS[name]
    assert error_of(mutant, mutant.far) > 10
    if mutant.far != 1:
        assert error_of(mutant, 1.0) < 1, "it shows at the given point: far is idle"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_pass_that_mutants_break_is_right(name, dtype):
    setting = SETTINGS[name]
    leaves = found(setting, lambda *at: gradient(Pass, setting.net, setting.penalty, *at), dtype)
    assert error(leaves, exact(name), dtype, len(setting.batch.x)) < 1


@pytest.mark.parametrize("name", SETTINGS)
def test_no_two_mutants_of_a_setting_are_alike(name):
    of, setting = [mutant for mutant in MUTANTS.values() if mutant.setting == name], SETTINGS[name]
    outputs = [
        b"".join(
            leaf.tobytes() for far in (1.0, 30.0) for leaf in found(setting, mutant.gradient(setting), "float64", far)
        )
        for mutant in of
    ]
    assert of and len(set(outputs)) == len(of)


@pytest.mark.parametrize("number", range(2 * len(correct.FORMULATIONS)))
def test_random_right_gradients_are_right(number):
    *_, (_, setting, function, dtype) = correct.suspects(number + 1)
    assert error(found(setting, function, dtype), by_autodiff(setting), dtype, len(setting.batch.x)) < 1


def test_random_right_gradients_are_of_every_sort():
    drawn = list(correct.suspects(60))
    nets, batches = ([getattr(suspect.setting, of) for suspect in drawn] for of in ("net", "batch"))
    assert {(suspect.name.split(":")[0], suspect.dtype) for suspect in drawn} == {
        (formulation, dtype) for formulation in correct.FORMULATIONS for dtype in ("float32", "float64")
    }
    assert {net.loss for net in nets} == set(correct.LOSSES) and {len(net.hidden) for net in nets} == {0, 1, 2, 3}
    assert {hidden for net in nets for hidden in net.hidden} == set(correct.HIDDEN)
    assert {net.bias for net in nets} == {True, False}
    assert {batch.weight is None for batch in batches} == {batch.offset is None for batch in batches} == {True, False}


@pytest.mark.parametrize("referee", [name for name in referees.REFEREES if "check_grads" in name])
def test_check_grads_kills_the_coarse_and_spares_the_right(referee):
    setting = SETTINGS["logistic"]
    for name, expected in (("sign of the residual", True), ("residual clipped at 10", False)):
        mutant = MUTANTS[name]
        at = SETTINGS[mutant.setting]
        assert referees.trial(Suspect(name, at, mutant.gradient(at), "float32"), referee)[0] == expected
    right = Suspect("right", setting, jax.jit(jax.grad(setting.value)), "float32")
    assert not referees.trial(right, referee)[0]


def test_the_wrapped_value_has_the_gradient_that_it_was_given():
    setting = SETTINGS["poisson"]
    params, batch = placed((setting.params, setting.batch), "float32")
    wrong = MUTANTS["offset twice"].gradient(setting)
    function, leaves = referees.as_custom_vjp(setting.value, wrong, params, batch)
    assert function(*leaves) == setting.value(params, batch)
    slopes = jax.grad(function, argnums=tuple(range(len(leaves))))(*leaves)
    assert all((a == b).all() for a, b in zip(slopes, jax.tree.leaves(wrong(params, batch))))


@pytest.mark.parametrize("family", right_cases.FAMILIES)
def test_the_two_forms_of_a_further_right_case_are_one_function(family):
    def both(case, *at):
        return case.value(*at), case.rewritten(*at)

    with jax.enable_x64(True):
        for draw in right_cases.FAMILIES[family].values():
            case = draw(np.random.default_rng(0))
            values = jax.jit(functools.partial(both, case))(*placed((case.params, case.batch), "float64"))
            assert np.isfinite(values).all() and values[0] != 0
            assert abs(values[0] - values[1]) < tolerance("float64", 100) * abs(values[0])


def test_further_right_cases_are_of_every_family_member_formulation_and_dtype():
    drawn = list(right_cases.suspects(audit.RIGHT))
    members = {f"{family}: {member}" for family, of in right_cases.FAMILIES.items() for member in of}
    assert len(members) >= 30 and {suspect.dtype for suspect in drawn} == {"float32", "float64"}
    for member in members:
        assert any(suspect.name.startswith(member) for suspect in drawn), member
    for formulation in right_cases.FORMULATIONS:
        assert sum(suspect.name.endswith(formulation) for suspect in drawn) > audit.RIGHT / 5
    assert len({suspect.name for suspect in drawn}) == audit.RIGHT


def test_the_audit_kills_and_spares():
    names = ("one entry of 10,000", "float32 in float64", "probabilities clipped")
    assert all(referees.trial(audit.planted()[name], "lr_nn.audit")[0] for name in names)
    assert not any(referees.trial(suspect, "lr_nn.audit")[0] for suspect in correct.suspects(2))


def test_a_small_run_leaves_a_record_and_a_picture(tmp_path, capsys):
    audit.main(small=True, referees=("chex.assert_numerical_grads",), out=tmp_path)
    record = json.loads((tmp_path / "audit.json").read_text())
    ((score,), wrong, *right) = (record[section]["rows"] for section in ("scores", *audit.SECTIONS))
    assert score["mutants"] == len(wrong) and [len(rows) for rows in right] == [audit.FEW, audit.FEW]
    assert score["right"] == 2 * audit.FEW
    assert score["killed"] == sum("chex.assert_numerical_grads" in row["objections"] for row in wrong)
    assert {row["kind"] for row in wrong} == set(KINDS) and all(row["wrong"] for row in wrong)
    assert (tmp_path / "audit.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert f"{score['killed']} of {score['mutants']}" in out and "misses" in out


def test_a_small_run_does_not_replace_the_record():
    with pytest.raises(SystemExit, match="--out"):
        audit.main(small=True)
