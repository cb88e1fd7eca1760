"""What per-example gradients buy, at reduced size: each experiment finds what it is there to find."""

import numpy as np
import pytest
from records import run

from experiments import noise_scale
from experiments.__main__ import main

SMALL = {
    "noise_scale": ("--epochs", 0, 10, "--batch-sizes", 16, 64, 512, 4096, "--draws", 16),
    "private_training": ("--noise-multipliers", 1, 4, 16, "--repeats", 3, "--steps", 100),
    "hard_examples": ("--epochs", 8),
}
FIGURES = {"noise_scale": "noise", "private_training": "accuracy", "hard_examples": "images"}


@pytest.fixture(scope="module", params=SMALL)
def done(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return request.param, folder, run(request.param, folder, *SMALL[request.param])


def noise_falls_as_one_over_the_root_of_the_batch_and_its_scale_is_the_useful_batch(record):
    early, late = record["point"]
    for point in (early, late):
        assert -0.56 < point["slope"] < -0.44
        predicted = np.sqrt(point["noise_scale"] / np.array([16, 64, 512, 4096]))
        np.testing.assert_allclose(point["errors"], predicted, rtol=0.3)
        assert 0.5 < point["estimate"] / point["noise_scale"] < 2
        assert 1 / 2 < point["half_size"] / point["noise_scale"] < 8
        assert 1 / 2 < point["half_size"] / point["curved_noise_scale"] < 2
        assert point["progress"] == sorted(point["progress"]) and point["progress"][0] < 0.5 < point["progress"][-1] < 1
    assert late["noise_scale"] > 3 * early["noise_scale"] and late["cost"] < early["cost"] / 3


def accuracy_falls_with_epsilon(record):
    clipped, *noisy = record["level"]
    assert clipped["noise_multiplier"] == 0 and clipped["epsilon"] is None
    epsilons, accuracies = ([level[name] for level in noisy] for name in ("epsilon", "accuracy"))
    assert epsilons == sorted(epsilons, reverse=True) and 0.1 < epsilons[-1] < 1 and epsilons[0] > 4
    # Three trainings of 359 test images: a mean moves by about a point.
    assert accuracies[0] > accuracies[1] > accuracies[2] + 0.05
    assert abs(accuracies[0] - clipped["accuracy"]) < 0.03 and record["reference"][0]["accuracy"] > 0.9
    (sampling,) = record["sampling"]
    assert 128 < sampling["most_drawn"] <= sampling["capacity"], "rows were left out of a batch"


def errors_are_among_the_images_of_the_largest_gradients(record):
    for part in record["part"]:
        others = part["errors"] - part["hardest_errors"]
        assert part["errors"] >= 5 and part["hardest_errors"] >= 0.5 * part["errors"]
        rates = part["hardest_errors"] / part["hardest"], others / (part["images"] - part["hardest"])
        assert rates[0] > 10 * rates[1] and part["error_rank"] > 0.95
        assert part["hardest_share_of_norms"] > 0.2
    for kind, sign in (("hardest", -1), ("easiest", 1)):
        for name in ("training", "test"):
            norms = [row["norm"] for row in record[kind] if row["part"] == name]
            assert norms == sorted(norms, key=lambda norm: sign * norm)
    assert all(row["says"] == row["truth"] for row in record["easiest"])
    assert sum(row["says"] != row["truth"] for row in record["hardest"]) >= len(record["hardest"]) / 2


FINDINGS = {
    "noise_scale": noise_falls_as_one_over_the_root_of_the_batch_and_its_scale_is_the_useful_batch,
    "private_training": accuracy_falls_with_epsilon,
    "hard_examples": errors_are_among_the_images_of_the_largest_gradients,
}


def test_an_experiment_finds_what_it_is_there_to_find(done):
    name, _, record = done
    FINDINGS[name](record)


def test_a_figure_a_page_and_three_sentences_tell_it(done):
    name, folder, record = done
    assert [path.name for path in (folder / "figures").iterdir()] == [f"{FIGURES[name]}.png"]
    ((finding,),) = (line.values() for line in record["finding"])
    assert finding.count(". ") == 2 and finding.endswith(".")
    page = (folder / "report.html").read_text()
    assert page.count("<img") == page.count("<h1") == 1 and 'alt=""' not in page
    assert finding.split(". ")[0].replace("‖", "")[:30] in page


@pytest.mark.parametrize("done", SMALL, indirect=True)
def test_config_json_gives_the_same_numbers_and_another_seed_others(done, tmp_path):
    name, folder, record = done
    assert run(name, tmp_path / "again", "--config", folder / "config.json") == record
    other = run(name, tmp_path / "other", "--config", folder / "config.json", "--seed", 1)
    assert other["finding"] != record["finding"]


def test_the_best_step_of_a_parabola_is_at_its_top():
    lengths = np.array(noise_scale.STEP_LENGTHS)
    assert noise_scale.best(0.7 * lengths - 0.5 * lengths**2) == pytest.approx(0.245)
    assert noise_scale.best(-lengths) == pytest.approx(-lengths[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise_scale", "--epochs", 3, 1), "--epochs must be"),
        (("noise_scale", "--draws", 1), "--draws"),
        (("private_training", "--noise-multipliers", 1), "--noise-multipliers must be"),
        (("private_training", "--delta", 2), "--delta must lie"),
        (("private_training", "--batch-size", 5000), "--batch-size must be at most"),
        (("hard_examples", "--hardest", 1), "--hardest between"),
    ],
)
def test_impossible_options_say_why(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
