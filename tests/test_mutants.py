"""The mutation score is worth what its mutants and its right gradients are worth."""

import itertools
import json

import jax
import numpy as np
import pytest

from benchmarks import audit, correct, referees
from benchmarks.mutants import KINDS, MUTANTS, SETTINGS
from benchmarks.mutants.backward import Pass, gradient
from benchmarks.referees import Suspect, placed
from tests.tolerances import tolerance


@pytest.fixture(autouse=True)
def as_users_write():
    """Peers are written as their users write them, not in our strict style."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def error(setting, function, dtype, far=1.0):
    """Largest error of a leaf over what rounding allows, against `jax.grad` in float64 at the same point."""
    batch = setting.batch._replace(x=far * setting.batch.x)
    with jax.enable_x64(True):
        params, batch = placed((setting.params, batch), dtype)
        found, exact = function(params, batch), jax.grad(setting.value)(*placed((params, batch), "float64"))
        pairs = [[np.asarray(a, np.float64) for a in pair] for pair in zip(*map(jax.tree.leaves, (found, exact)))]
    assert all(np.isfinite(b).all() for _, b in pairs) and any(b.any() for _, b in pairs)
    allowed = tolerance(dtype, len(batch.x))
    largest = (np.abs(a - b).max() / (allowed * np.abs(b).max(initial=1e-30)) for a, b in pairs)
    return max(np.nan_to_num(ratio, nan=np.inf) for ratio in largest)


def test_there_are_enough_mutants_of_every_kind():
    assert len(MUTANTS) == sum(map(len, KINDS.values())) >= 60, "two mutants have one name"
    assert all(len(kind) >= 10 for kind in KINDS.values())
    assert len({mutant.setting for mutant in MUTANTS.values()}) >= 10


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_wrong_beyond_rounding(name):
    mutant = MUTANTS[name]
    setting = SETTINGS[mutant.setting]
    assert error(setting, mutant.gradient(setting), mutant.dtype, mutant.far) > 10
    if mutant.far != 1:
        assert error(setting, mutant.gradient(setting), mutant.dtype) < 1, "it shows at the given point: far is idle"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_pass_that_mutants_break_is_right(name, dtype):
    setting = SETTINGS[name]
    assert error(setting, lambda *at: gradient(Pass, setting.net, setting.penalty, *at), dtype) < 1


def test_no_two_mutants_of_a_setting_are_alike():
    for _, of in itertools.groupby(sorted(MUTANTS.values(), key=lambda m: m.setting), key=lambda m: m.setting):
        seen = set()
        for mutant in of:
            setting = SETTINGS[mutant.setting]
            batch = setting.batch._replace(x=30 * setting.batch.x)
            with jax.enable_x64(True):
                outputs = [
                    mutant.gradient(setting)(*placed((setting.params, b), "float64")) for b in (setting.batch, batch)
                ]
                leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(outputs)]
            seen.add(b"".join(leaf.tobytes() for leaf in leaves))
        assert len(seen) == sum(m.setting == mutant.setting for m in MUTANTS.values())


def test_random_right_gradients_are_right_and_of_every_sort():
    found = list(correct.suspects(36))
    for suspect in found:
        assert error(suspect.setting, suspect.gradient, suspect.dtype) < 1, suspect.name
    assert {suspect.dtype for suspect in found} == {"float32", "float64"}
    assert {suspect.name.split(":")[0] for suspect in found} == set(correct.FORMULATIONS)
    nets = [suspect.setting.net for suspect in found]
    assert {net.loss for net in nets} == set(correct.LOSSES) and {len(net.hidden) for net in nets} == {0, 1, 2, 3}
    assert {hidden for net in nets for hidden in net.hidden} == set(correct.HIDDEN)


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


def test_the_audit_kills_and_spares():
    names = ("one entry of 10,000", "float32 in float64", "probabilities clipped")
    assert all(referees.trial(audit.planted()[name], "lr_nn.audit")[0] for name in names)
    assert not any(referees.trial(suspect, "lr_nn.audit")[0] for suspect in correct.suspects(2))


def test_a_small_run_leaves_a_record_and_a_picture(tmp_path, capsys):
    audit.main(small=True, referees=("chex.assert_numerical_grads",), out=tmp_path)
    record = json.loads((tmp_path / "audit.json").read_text())
    ((score,), wrong, right) = (record[section]["rows"] for section in ("scores", "mutants", "right"))
    assert score["mutants"] == len(wrong) and score["right"] == len(right) == audit.FEW
    assert score["killed"] == sum("chex.assert_numerical_grads" in row["objections"] for row in wrong)
    assert {row["kind"] for row in wrong} == set(KINDS) and all(row["wrong"] for row in wrong)
    assert (tmp_path / "audit.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert f"{score['killed']} of {score['mutants']}" in out and "misses" in out


def test_a_small_run_does_not_replace_the_record():
    with pytest.raises(SystemExit, match="--out"):
        audit.main(small=True)
