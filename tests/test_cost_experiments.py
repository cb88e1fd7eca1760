"""What gradients cost in time and memory, at reduced size: each experiment finds what it is there to find."""

import numpy as np
import pytest
from records import run
from tolerances import tolerance

from experiments.__main__ import main

SMALL = {
    "vectorization": ("--batch-sizes", 1, 32, "--rounds", 5),
    "reverse_vs_forward": ("--widths", 1, 16, "--inputs", 8, "--outputs", 1, 256, "--rounds", 5),
    "memory": ("--batch-sizes", 32, 512, "--rows", 1024, "--rounds", 3),
}
FIGURES = {"vectorization": ["bias", "speed"], "reverse_vs_forward": ["sweeps"], "memory": ["step", "ways"]}


@pytest.fixture(scope="module", params=SMALL)
def done(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, run(request.param, folder, *SMALL[request.param])


def a_loop_over_examples_is_slow_and_the_bias_goes_in_once_per_neuron(record):
    assert len(record["agreement"]) == 2 * 11
    assert all(row["error"] < tolerance(np.float32, length=32) for row in record["agreement"])
    times = {(row["formulation"], row["way"], row["rows"]): row for row in record["timing"]}

    def slower(way, rows):
        return times["loop", way, rows]["relative_time"] / times["one product", way, rows]["relative_time"]

    # Times only where they are far apart; how they grow is told by the operations that are started, or compiled.
    assert slower("JAX, op by op", 32) > 3
    operations = {(row["formulation"], row["rows"]): row["operations"] for row in record["agreement"]}
    for name in ("one product", "broadcast"):
        assert operations[name, 32] == operations[name, 1]
    assert operations["loop", 32] > 20 * operations["loop", 1], "every turn is a part of the program"
    assert operations["loop", 32] > 30 * operations["one product", 32]
    right, per_feature, per_row = record["bias"]
    assert right["accuracy"] > 0.9 and right["cost"] < 0.5
    assert per_feature["accuracy"] < 0.3 and max(per_feature["answers"]) > 0.9 * sum(per_feature["answers"])
    assert per_feature["cost"] > 10 * right["cost"] and right["cost"] < per_row["cost"] < 2 * right["cost"]


def a_sweep_for_each_input_forward_and_for_each_output_in_reverse(record):
    few, many, one, most = record["count"]
    for row in record["count"]:
        counted = row["counted"]
        assert counted["forward"] / counted["reverse"] == pytest.approx(row["inputs"] / row["outputs"])
        assert row["disagreement"] < tolerance(np.float32, length=2048)
    assert [(row["inputs"], row["outputs"]) for row in (few, many, one, most)] == [(11, 1), (161, 1), (8, 1), (8, 256)]
    times = [
        {name: spread["relative_time"] for name, spread in row["measured"].items()} for row in record["timing"][:4]
    ]
    # 161 sweeps against one, and 8 against 256: apart by an order of magnitude.
    assert times[1]["forward"] > 3 * times[1]["reverse"], "many parameters and one output are for reverse"
    assert times[1]["forward"] > 3 * times[1]["reverse, by hand"]
    assert record["timing"][3]["reverse_over_forward"] > 1, "few inputs and many outputs are for forward"


def the_state_is_counted_exactly_and_activations_lead_where_rows_are_many(record):
    steps = {(row["optimizer"], row["rows"]): row for row in record["step"]}
    for row in steps.values():
        predicted = row["predicted"]
        assert 0 <= row["state"] - predicted["optimiser's state"] <= 8, "Adam counts its steps, in four bytes"
        assert row["arguments"] == predicted["parameters"] + row["state"] + predicted["batch"]
        assert row["compiled"] <= row["sum"]
        assert row["compiled"] >= row["sum"] - predicted["gradient"]
    copies = {name: round(row["state"] / row["predicted"]["parameters"]) for (name, _), row in steps.items()}
    assert copies == {"SGD": 0, "momentum": 1, "Adagrad": 1, "Adam": 2, "AdamW": 2}
    small, large = (steps["Adam", n]["predicted"] for n in (32, 512))
    assert small["activations and a δ"] < small["optimiser's state"] < large["activations and a δ"]


def computing_again_keeps_less_in_a_loop_only_and_blocks_keep_least(record):
    keep, in_a_row, in_a_loop, blocks = record["way"]
    assert all(way["difference"] < tolerance(np.float32, length=1024) for way in record["way"])
    assert keep["compiled"] == pytest.approx(keep["predicted"], rel=0.05)
    assert in_a_row["flops"] < 1.01 * keep["flops"] and in_a_row["compiled"] > 0.9 * keep["compiled"]
    assert in_a_loop["predicted"] < in_a_loop["compiled"] < 0.85 * keep["compiled"]
    assert blocks["predicted"] < blocks["compiled"] < 0.25 * keep["compiled"]
    assert all(time["low"] <= time["relative_time"] <= time["high"] for time in record["timing"])


FINDINGS = {
    "vectorization": [a_loop_over_examples_is_slow_and_the_bias_goes_in_once_per_neuron],
    "reverse_vs_forward": [a_sweep_for_each_input_forward_and_for_each_output_in_reverse],
    "memory": [
        the_state_is_counted_exactly_and_activations_lead_where_rows_are_many,
        computing_again_keeps_less_in_a_loop_only_and_blocks_keep_least,
    ],
}


def test_an_experiment_finds_what_it_is_there_to_find(done):
    name, _, record = done
    for finding in FINDINGS[name]:
        finding(record)


def test_figures_a_page_and_three_sentences_tell_it(done):
    name, folder, record = done
    assert sorted(path.stem for path in (folder / "figures").iterdir()) == FIGURES[name]
    ((finding,),) = (line.values() for line in record["finding"])
    assert finding.count(". ") == 2 and finding.endswith(".")
    page = (folder / "report.html").read_text()
    assert page.count("<img") == len(FIGURES[name]) and page.count("<h1") == 1 and 'alt=""' not in page
    assert finding[:40].replace("'", "&#39;") in page


def test_config_json_gives_the_same_numbers_but_for_times(done, tmp_path):
    name, folder, record = done
    again = run(name, tmp_path / "again", "--config", folder / "config.json")
    measured = {"timing", "finding"}
    assert {kind: again[kind] for kind in again.keys() - measured} == {
        kind: record[kind] for kind in record.keys() - measured
    }
    assert len(again["timing"]) == len(record["timing"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("vectorization", "--batch-sizes", 64, 1), "--batch-sizes must grow"),
        (("vectorization", "--batch-sizes", 1, 2000), "1437 images"),
        (("vectorization", "--rounds", 1), "--rounds must be at least 2"),
        (("reverse_vs_forward", "--widths", 4), "--widths must be at least two"),
        (("reverse_vs_forward", "--outputs", 4, 1), "--outputs must be"),
        (("reverse_vs_forward", "--inputs", 0), "--inputs must be at least 1"),
        (("memory", "--batch-sizes", 64, 64), "--batch-sizes must be a small and a larger"),
        (("memory", "--segments", 1), "--segments"),
    ],
)
def test_impossible_options_say_why(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in " ".join(capsys.readouterr().err.split()) and not (tmp_path / "run").exists()
