"""What many fits show, at reduced size: each experiment finds what it is there to find."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from records import run

from experiments import data, judging, runner
from experiments.__main__ import main

needs_data = pytest.mark.skipif(not os.environ.get("LR_NN_DATA"), reason="LR_NN_DATA is not set; CI sets it")


@needs_data
def test_the_census_separates_ranks_people_rightly_and_the_bootstrap_agrees_with_wald_where_many_decide(tmp_path):
    record = run("census", tmp_path / "run", "--rows", 4000, "--resampled-rows", 1000, "--resamples", 100)
    (free,), (test,), (errors,) = (record[kind] for kind in ("unpenalised", "test", "bootstrap"))
    assert free["status"] == "separated" and free["along"]
    found = {line["name"]: line for line in record["coefficient"]}
    assert found["capital gain"]["z"] > 8 and found["years of education"]["z"] > 8 and found["sex: Female"]["z"] < -2
    assert found["marital status: Never-married"]["coefficient"] < -1
    assert test["auc"] > 0.89 and test["accuracy"] > test["majority"] + 0.06
    assert test["measured"] == sorted(test["measured"]) and test["largest_gap"] < 0.05
    ratio, people = np.divide(errors["bootstrap"], errors["wald"]), np.array(errors["people"])
    assert 0.85 < np.median(ratio[people >= 10]) < 1.25
    assert np.median(ratio[people == 0]) < 0.75 * np.median(ratio[people >= 10])


@needs_data
def test_the_census_has_its_rows_its_levels_and_no_trap_in_them():
    source = data.census(Path(os.environ["LR_NN_DATA"]))
    (x, y), test = source.train, source.test
    # Dua & Graff, UCI machine learning repository: adult.names.
    assert (len(x), len(test.x)) == (32_561, 16_281)
    assert (round(100 * (1 - y.mean()), 2), round(100 * (1 - test.y.mean()), 2)) == (75.92, 76.38)
    missing = {name: int(x[:, i].sum()) for i, name in enumerate(source.features) if "unknown" in name}
    assert missing == {"workclass: unknown": 1836, "occupation: unknown": 1843, "country: unknown": 583}
    assert x.shape[1] == len(source.features) == 5 + sum((9, 7, 15, 6, 5, 2, 42)) - 7
    assert np.abs(x[:, :5].mean(axis=0)).max() < 1e-4 and set(np.unique(x[:, 5:])) == {0, 1}
    assert "sex: Male" in source.references and "sex: Female" in source.features


def test_a_census_file_is_read_past_comments_full_stops_and_empty_lines(tmp_path):
    person = "39, ?, 7, Bachelors, 13, Divorced, Sales, Wife, White, {}, 0, 0, {}, Cuba, {}"
    rows = [person.format("Male", 40, "<=50K"), person.format("Female", 20, ">50K")]
    (tmp_path / "adult.data").write_text("\n".join([*rows, rows[0], ""]))
    stopped = "\n".join(["|1x3 Cross validator", *(f"{row}." for row in rows), "", ""])
    (tmp_path / "adult.test.gz").write_bytes(gzip.compress(stopped.encode()))
    with np.errstate(invalid="ignore"):  # columns that do not vary
        source = data.census(tmp_path)
    assert source.train.y.tolist() == [0, 1, 0] and source.test.y.tolist() == [0, 1]
    assert source.features[5:] == ("sex: Female",) and "workclass: unknown" in source.references
    assert source.test.x[:, 5].tolist() == [0, 1]
    np.testing.assert_allclose(source.test.x[:, 4], [2**-0.5, -(2**0.5)], rtol=1e-6)
    (tmp_path / "adult.data").write_text("39, Private\n")
    with pytest.raises(runner.UserError, match="15 fields"):
        data.census(tmp_path)


def test_l1_keeps_fewer_weights_the_stronger_it_is_and_the_rule_takes_the_strongest_within_its_band(tmp_path):
    record = run("paths", tmp_path / "run", "--data", "diabetes", "--strengths", 12, "--folds", 5)
    paths = {line["penalty"]: np.array(line["coefficients"])[:, :-1] for line in record["path"]}
    kept = (paths["L1"] != 0).sum(axis=1)
    assert kept[0] == 0 and kept[-1] >= 8 and (paths["L2"] != 0).all()
    lengths = np.linalg.norm(paths["L2"], axis=1)
    assert (np.diff(lengths) > 0).all()
    choices = {(line["penalty"], line["choice"]): line for line in record["choice"]}
    for path, folds in zip(record["path"], record["folds"]):
        low, strong = (choices[path["penalty"], choice] for choice in ("lowest", "strongest"))
        assert low["held_out"] == min(folds["mean"]) and strong["held_out"] <= low["held_out"] + low["error"]
        above = np.array(path["strengths"]) > strong["strength"]
        assert (np.array(folds["mean"])[above] > low["held_out"] + low["error"]).all()
        assert strong["strength"] > 3 * low["strength"] and strong["length"] < 0.9 * low["length"]
    assert choices["L1", "strongest"]["kept"] < choices["L1", "lowest"]["kept"]


def test_a_network_that_is_wide_enough_is_chosen_and_errs_no_more_than_the_largest(tmp_path):
    options = ("--depths", 1, 2, "--widths", 3, 24, "--folds", 3, "--seeds", 1, "--epochs", 30)
    record = run("architecture_search", tmp_path / "run", *options)
    found = {(line["depth"], line["width"]): line for line in record["architecture"]}
    for depth, other in ((1, 1), (2, 2), (2, 1)):  # depth does not make up for width
        assert found[depth, 3]["error"] > 3 * found[other, 24]["error"]
    final = {line["name"]: line for line in record["final"]}
    best = min(record["architecture"], key=lambda line: line["error"])
    assert final["chosen"]["error"] <= best["error"] + best["standard_error"] and final["chosen"]["width"] == 24
    error = {name: np.mean(line["test_errors"]) for name, line in final.items()}
    assert error["smallest"] > 3 * error["chosen"] and error["chosen"] < error["largest"] + 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("census", "--prior", 0), "--prior positive"),
        (("census", "--resamples", 1), "--resamples 2"),
        (("paths", "--folds", 1), "--folds between 2 and 100"),
        (("paths", "--strengths", 1), "--strengths must be at least 3"),
        (("architecture_search", "--widths", 0), "--widths"),
        (("architecture_search", "--folds", 1), "--folds between 2 and 100"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_sentence(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_calibration_of_true_probabilities_has_no_gap_and_of_doubled_odds_has_one():
    rng = np.random.default_rng(0)
    eta = 2 * rng.standard_normal(40_000)
    y = (rng.random(40_000) < 1 / (1 + np.exp(-eta))).astype(int)
    true, bold = (judging.held_out(1 / (1 + np.exp(-factor * eta)), y) for factor in (1, 2))
    # A tenth of the rows: a standard deviation of at most 1/2 / √4000 = 0.8 points.
    assert true["largest_gap"] < 0.025 and bold["largest_gap"] > 0.08
    assert true["auc"] == pytest.approx(bold["auc"]) and true["accuracy"] == bold["accuracy"]
    assert np.mean(true["roc"]) == pytest.approx(true["auc"], abs=5e-3)
    inside = [low <= p <= high for p, (low, high) in zip(true["predicted"], true["intervals"])]
    assert sum(inside) >= 8
