"""Chances, likelihoods, entropies and errors that fade, at reduced size: each experiment finds what it is there for."""

import os

import numpy as np
import pytest
from records import run

from experiments import odds
from experiments.__main__ import main
from tests.tolerances import tolerance

SMALL = {
    "coin_toss": ("--tosses", 1500),
    "entropy": ("--steps", 30),
    "odds": ("--data", "simulated", "--rows", 1500),
    "saturation": ("--starts", 2, 4, 6, "--steps", 400, "--hidden", 5, "--width", 16),
}
FIGURES = {
    "coin_toss": {"product", "maximum"},
    "entropy": {"every_q", "descent"},
    "odds": {"scales", "lines"},
    "saturation": {"neuron", "layers"},
}
EXACT = tolerance(np.float64)


@pytest.fixture(scope="module", params=SMALL)
def done(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, run(request.param, folder, *SMALL[request.param])


def products_vanish_logarithms_do_not_and_the_maximum_is_heads_over_tosses(record):
    lost = {(row["arithmetic"], row["bits"]): row for row in record["underflow"]}
    # The smallest numbers of IEEE 754 are 2⁻¹⁴⁹ and 2⁻¹⁰⁷⁴; XLA may keep only those to 2⁻¹²⁶ and 2⁻¹⁰²².
    for bits, normal, least in ((32, 126, 149), (64, 1022, 1074)):
        assert lost["NumPy", bits]["fair"] == least + 1 and lost["NumPy", bits]["least"] == 2.0**-least
        assert normal < lost["XLA", bits]["fair"] <= least + 1
    (logs,), (best,) = record["logarithms"], record["maximum"]
    share = best["heads"] / best["tosses"]
    # A toss takes as many bits as its entropy.
    assert lost["NumPy", 64]["this"] == pytest.approx(1075 / logs["bits"], rel=0.05)
    assert logs["log_likelihood"] == pytest.approx(-logs["bits"] * np.log(2) * best["tosses"], rel=1e-12)
    assert logs["positive_products"] == 0 and abs(logs["best_by_sum"] - share) <= 1 / logs["grid"]
    assert best["formula"] == share and 0.25 < share < 0.35
    assert [best["fit"], best["descent"]] == pytest.approx([share] * 2, rel=EXACT) and 0 < best["steps"] < 100
    assert best["odds"] == pytest.approx(share / (1 - share)) and best["logit"] == pytest.approx(np.log(best["odds"]))
    of_maximum, of_odds = best["log_likelihoods"]
    assert of_odds < of_maximum - 0.02


def the_gap_is_the_entropy_and_both_descents_are_one(record):
    (way,), (agreement,), (minima,) = record["descent"], record["agreement"], record["minima"]
    assert way["bits"] == pytest.approx(1.75, rel=EXACT) and way["entropy"] == pytest.approx(1.75 * np.log(2))
    cross, divergence = np.array(way["cross_entropy"]), np.array(way["divergence"])
    np.testing.assert_allclose(cross - divergence, way["entropy"], rtol=EXACT)
    for falling in (cross, divergence):
        assert (np.diff(falling) < 0).all()
    assert divergence[0] > 0.1 and 0 <= divergence[-1] < 1e-2 * divergence[0] and cross[-1] > way["entropy"] > 1.2
    assert agreement["paths_apart"] < EXACT and agreement["gap_moves_by"] < EXACT
    assert abs(way["reverse"][0] - divergence[0]) > 0.01
    assert minima["cross_entropy_over_q"] == minima["divergence_over_q"] == minima["divergence_over_p"] == 0.3
    assert minima["cross_entropy_over_p"] == 0


def only_the_log_odds_have_room_for_a_line(record):
    lines = {line["scale"]: line for line in record["line"]}
    assert lines["probability"]["impossible"] > 100 and lines["odds"]["impossible"] > 100
    assert lines["log-odds"]["impossible"] == 0
    assert lines["log-odds"]["off"] < 0.6 * min(lines["probability"]["off"], lines["odds"]["off"])
    low, high = record["step"]
    assert low["of_odds"] == pytest.approx(high["of_odds"]) == pytest.approx(np.exp(lines["log-odds"]["slope"]))
    assert low["of_odds"] > low["of_chance"] > 1.3 and 1 < high["of_chance"] < 1.2
    for row in record["chance"]:
        p = row["probability"]
        assert row["odds"] == pytest.approx(p / (1 - p)) and row["log_odds"] == pytest.approx(np.log(p / (1 - p)))


def the_simulated_odds_ratios_are_found(record):
    for row in record["coefficient"]:
        # Wider than a 95 % interval: its half-width is 1.96 standard errors of the logarithm, and four are allowed.
        low, high = np.log(row["interval"])
        assert abs(np.log(row["ratio"] / row["truth"])) < 4 * (high - low) / (2 * 1.96)
        assert row["interval"][0] > 1


def squared_error_waits_and_no_loss_helps_the_layers_below(record):
    cross, squared = record["neuron"]
    a = 1 / (1 + np.exp(-np.array([2.0, 4.0, 6.0])))
    np.testing.assert_allclose(cross["delta"], a, rtol=EXACT)
    np.testing.assert_allclose(squared["delta"], a * a * (1 - a), rtol=1e4 * EXACT)  # 1 - a cancels
    # A step of cross-entropy moves the logit by about the rate, one of the squared error by e^-logit of it.
    assert cross["steps"][2] < 3 * cross["steps"][0] and squared["steps"][2] > 10 * squared["steps"][0]
    assert squared["steps"][2] > 10 * cross["steps"][2]
    sizes = {(line["hidden"], line["loss"]): np.array(line["sizes"]) for line in record["deep"]}
    sigmoid, through = sizes["sigmoid", "cross-entropy"], sizes["sigmoid", "squared error"]
    assert sigmoid[-1] > 0.9 > 100 * through[-1]
    for falling in (sigmoid, through):
        assert (falling[:-1] < 0.5 * falling[1:]).all() and falling[0] < 1e-3 * falling[-1]
    np.testing.assert_allclose(sigmoid[0] / sigmoid[-1], through[0] / through[-1], rtol=0.5)
    for hidden in ("tanh", "relu"):
        assert sizes[hidden, "cross-entropy"][0] > 0.02


FINDINGS = {
    "coin_toss": (products_vanish_logarithms_do_not_and_the_maximum_is_heads_over_tosses,),
    "entropy": (the_gap_is_the_entropy_and_both_descents_are_one,),
    "odds": (only_the_log_odds_have_room_for_a_line, the_simulated_odds_ratios_are_found),
    "saturation": (squared_error_waits_and_no_loss_helps_the_layers_below,),
}


def test_an_experiment_finds_what_it_is_there_to_find(done):
    name, _, record = done
    for holds in FINDINGS[name]:
        holds(record)


def test_figures_a_page_and_three_sentences_tell_it(done):
    name, folder, record = done
    assert {path.stem for path in (folder / "figures").iterdir()} == FIGURES[name]
    ((finding,),) = (line.values() for line in record["finding"])
    assert finding.count(". ") == 2 and finding.endswith(".")
    page = (folder / "report.html").read_text()
    assert page.count("<img") == 2 and page.count("<h1") == 1 and 'alt=""' not in page
    assert finding[:40] in page


@pytest.mark.parametrize("done", SMALL, indirect=True)
def test_config_json_gives_the_same_numbers_and_another_seed_others(done, tmp_path):
    name, folder, record = done
    assert run(name, tmp_path / "again", "--config", folder / "config.json") == record
    other = run(name, tmp_path / "other", "--config", folder / "config.json", "--seed", 1)
    assert other["finding"] != record["finding"]


@pytest.mark.skipif(not os.environ.get("LR_NN_DATA"), reason="LR_NN_DATA is not set; CI sets it")
def test_where_there_are_data_the_odds_are_those_of_the_census(tmp_path):
    record = run("odds", tmp_path / "run")
    only_the_log_odds_have_room_for_a_line(record)
    assert sum(record["levels"][0]["people"]) == 32_561
    ratios = {row["feature"]: row for row in record["coefficient"]}
    assert all(row["truth"] is None for row in ratios.values())
    assert 1.4 < ratios["years of education"]["ratio"] < 1.45 and ratios["man, against woman"]["interval"][0] > 2


def test_where_there_are_none_the_people_are_simulated(monkeypatch):
    monkeypatch.delenv("LR_NN_DATA", raising=False)
    assert odds.gathered(odds.Options(rows=500)).name == "simulated students"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("coin_toss", "--probability", 1), "--probability must lie"),
        (("coin_toss", "--probability", 0.001, "--tosses", 10), "take more --tosses"),
        (("entropy", "--p", 0.5, 0.6), "--p must be"),
        (("entropy", "--share", 0), "--share must lie"),
        (("odds", "--rows", 10), "--rows must be"),
        (("odds", "--data", "census", "--data-dir", "nowhere"), "LR_NN_DATA"),
        (("saturation", "--starts", 4, 2), "--starts must be"),
        (("saturation", "--rate", 2), "--rate in"),
    ],
)
def test_impossible_options_say_why(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
