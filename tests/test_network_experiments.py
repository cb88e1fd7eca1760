"""What networks do, at reduced size: each experiment finds what it is there to find."""

import json

import numpy as np
import pytest
from records import run

from experiments import hidden_layer
from experiments.__main__ import main

SMALL = {
    "activations": ("--depths", 2, 12, "--width", 64, "--draws", 16),
    "batch_size": ("--batch-sizes", 1, 64, "--target", 0.3, "--starts", 4, "--hidden", 16),
    "hidden_layer": ("--widths", 1, 2, 4, "--points", 100, "--starts", 30, "--steps", 500),
    "init_and_symmetry": ("--epochs", 15, "--steps", 400),
}
# In the order of the report: the card of the site shows the first.
FIGURES = {
    "activations": ["errors", "menu"],
    "batch_size": ["counts", "noise"],
    "hidden_layer": ["plane"],
    "init_and_symmetry": ["neurons", "costs"],
}


@pytest.fixture(scope="module", params=SMALL)
def done(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, run(request.param, folder, *SMALL[request.param])


def errors_vanish_or_explode_by_the_factor_that_variances_predict(record):
    at = {(row["name"], row["scale"], row["depth"]): row for row in record["errors"]}
    for (_, _, depth), row in at.items():
        assert len(row["measured"]) == len(row["predicted"]) == depth and row["measured"][-1] == 1
        if depth == 12:
            assert row["measured_factor"] == pytest.approx(row["predicted_factor"], rel=0.03)
    # σ' ≤ 1/4 with weights of norm one; half the weights halve the factor of relu, and twice the weights double it.
    assert 0.2 < at["sigmoid", 1, 12]["measured_factor"] < 0.25
    for scale in (0.5, 1, 2):
        for name in ("relu", "leaky_relu"):
            assert at[name, scale, 12]["predicted_factor"] == pytest.approx(scale, rel=0.02)
    assert at["sigmoid", 1, 12]["measured"][0] < 1e-6 and 0.2 < at["tanh", 1, 12]["measured"][0] < 0.7
    assert at["relu", 0.5, 12]["measured"][0] < 1e-3 and at["relu", 2, 12]["measured"][0] > 1e3


def small_batches_need_fewer_passes_and_more_updates(record):
    one, some, every = record["size"]
    assert [size["rows"] for size in record["size"]] == [1, 64, 1438]
    for few, many in ((one, some), (some, every)):
        assert few["median_passes"] < many["median_passes"] and few["median_updates"] > many["median_updates"]
    for size in record["size"]:
        costs = np.array(size["costs"])
        reached = [int(passes) - 1 for passes in size["passes"]]
        assert all(row[at] <= 0.3 and (row[:at] > 0.3).all() for row, at in zip(costs, reached))
        assert min(size["accuracy"]) > 0.75
    for point in record["noise"]:
        # Of m = 1 the prediction is exact; of 64 it is measured over some hundred batches.
        np.testing.assert_allclose(point["errors"][:2], point["predicted"][:2], rtol=0.15)
        assert point["predicted"][2] == 0 and point["errors"][2] < 1e-9
    assert record["noise"][1]["noise_scale"] > 3 * record["noise"][0]["noise_scale"]
    assert all(timing["seconds_per_pass"] > 0 for timing in record["timing"])


def four_neurons_can_what_one_cannot_and_descent_does_not_always_find_it(record):
    (one,), (hidden,) = record["neuron"], record["hidden"]
    assert one["status"] == "converged" and one["certificate"] <= 1e-12
    assert one["accuracy"] <= one["best_line"] < 0.85
    found = {row["width"]: row for row in record["width"]}
    # A hidden layer of one neuron is a line, too.
    assert max(found[1]["accuracy"]) <= one["best_line"] + 0.01 and found[1]["solved"] == 0
    assert max(found[4]["accuracy"]) == 1 and hidden["status"] == "separated"
    assert 0 < found[2]["solved"] < found[4]["solved"] and found[2]["solved"] < 0.7 * 30


def equal_neurons_stay_equal_and_one_neuron_does_not_mind(record):
    at = {(row["hidden"], row["start"]): row for row in record["network"]}
    zeros, random = at["sigmoid", "zeros"], at["sigmoid", "random weights"]
    assert zeros["different"] == [1, 1] and random["different"] == [8, 8]
    assert zeros["accuracy"] < 0.5 and random["accuracy"] > 0.8
    # Layer l wakes after L - l steps.
    awake = np.array(zeros["first_gradients"]) > 0
    assert awake[:3].tolist() == [[False, False, True], [False, True, True], [True, True, True]]
    assert at["tanh", "zeros"]["largest_weight"] == 0 and at["tanh", "random weights"]["accuracy"] > 0.8
    for neuron in record["neuron"]:
        assert neuron["excess"][0] > 0.1 and abs(neuron["excess"][-1]) < 1e-6


FINDINGS = {
    "activations": errors_vanish_or_explode_by_the_factor_that_variances_predict,
    "batch_size": small_batches_need_fewer_passes_and_more_updates,
    "hidden_layer": four_neurons_can_what_one_cannot_and_descent_does_not_always_find_it,
    "init_and_symmetry": equal_neurons_stay_equal_and_one_neuron_does_not_mind,
}


def test_an_experiment_finds_what_it_is_there_to_find(done):
    name, _, record = done
    FINDINGS[name](record)


def test_figures_a_page_and_three_sentences_tell_it(done):
    name, folder, record = done
    assert {path.stem for path in (folder / "figures").iterdir()} == set(FIGURES[name])
    summary = json.loads((folder / "summary.json").read_text())
    assert [figure["path"] for figure in summary["figures"]] == [f"figures/{of}.png" for of in FIGURES[name]]
    ((finding,),) = (line.values() for line in record["finding"])
    assert finding.count(". ") == 2 and finding.endswith(".")
    page = (folder / "report.html").read_text()
    assert page.count("<img") == len(FIGURES[name]) and page.count("<h1") == 1 and 'alt=""' not in page


def test_config_json_gives_the_same_numbers(done, tmp_path):
    name, folder, record = done
    again = run(name, tmp_path / "again", "--config", folder / "config.json")
    timed = {"timing", "finding"} if "timing" in record else set()
    assert {kind: again[kind] for kind in again if kind not in timed} == {
        kind: record[kind] for kind in record if kind not in timed
    }


def test_the_best_line_is_found():
    x = np.random.default_rng(0).standard_normal((200, 2))
    y = (x @ [1.0, -2.0] > 0.3).astype(int)
    # 720 directions are a quarter of a degree apart: a point or two may lie between the line and the nearest.
    assert hidden_layer.best_line(x, y) >= 0.99 and hidden_layer.best_line(x, 1 - y) >= 0.99
    square = np.array([[0.0, 0.1], [1.0, 0.9], [0.1, 1.0], [0.9, 0.0]])
    assert hidden_layer.best_line(square, np.array([0, 0, 1, 1])) == 0.75


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("activations", "--depths", 5, 2), "--depths must be growing"),
        (("activations", "--depths", 2), "--depths must end at 3"),
        (("activations", "--scales", 2), "--scales must be"),
        (("batch_size", "--batch-sizes", 16, 1), "--batch-sizes must be one to three"),
        (("batch_size", "--batch-sizes", 2000), "below the 1438 training rows"),
        (("batch_size", "--starts", 1), "--starts must be at least 2"),
        (("hidden_layer", "--widths", 2, 3), "with 4 among them"),
        (("hidden_layer", "--points", 3), "--points at least 20"),
        (("init_and_symmetry", "--width", 1), "--width must be at least 2"),
        (("init_and_symmetry", "--strength", 0), "--strength positive"),
    ],
)
def test_impossible_options_say_why(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
