"""What the experiment of the audit shows, at reduced size."""

import pytest
from records import run

from experiments.__main__ import main


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "run"
    found = run("audit", folder, "--rows", 20, "--width", 4)
    assert [path.name for path in (folder / "figures").iterdir()] == ["slopes.png"]
    return found


def test_the_right_gradient_passes_and_every_wrong_one_is_found_and_its_leaf_named(record):
    right, *wrong = record["audit"]
    assert right["ok"] and right["ratio"] <= 1 and len(wrong) == 5
    assert not any(row["ok"] for row in wrong) and all(row["named"] and row["ratio"] > 1 for row in wrong)


def test_the_remainder_of_a_right_slope_falls_by_its_square_and_of_a_wrong_one_in_proportion(record):
    right, *wrong = record["audit"]
    assert right["slope"] == pytest.approx(2, abs=0.1)
    for row in wrong:
        seen_here = row["given_ratio"] > 1
        assert row["slope"] == pytest.approx(1 if seen_here else 2, abs=0.25), row["gradient"]


def test_one_mistake_shows_in_saturation_alone(record):
    (hidden,) = (row for row in record["audit"] if not row["ok"] and row["given_ratio"] <= 1)
    assert hidden["gradient"] == "σ' left out at 0 and 1" and hidden["point"] != "as given"


def test_three_sentences_tell_it(record):
    ((finding,),) = (line.values() for line in record["finding"])
    assert finding.count(". ") == 2 and finding.endswith(".") and "5 wrong ones 5 are found" in finding


def test_impossible_options_say_why(tmp_path, capsys):
    assert main(["audit", "--rows", "1", "--out", str(tmp_path / "run")]) == 2
    assert "--rows must be at least 2" in capsys.readouterr().err and not (tmp_path / "run").exists()
