"""The README tells the truth: its snippet runs, and its numbers are those of the committed record."""

import re
from pathlib import Path

import pytest

from benchmarks import harness, readme, scale_growth

TEXT = readme.README.read_text()


def test_the_snippet_is_short_and_finds_gradients_that_agree(capsys):
    snippet = re.search(r"```python\n(.*?)```", TEXT, re.S).group(1)
    assert len(snippet.splitlines()) <= 15
    exec(compile(snippet, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        difference, size = map(float, re.search(r"difference (\S+) of (\S+)", line).groups())
        assert difference <= 1e-6 * max(size, 1e-2) and size > 0


def test_the_own_loss_and_activation_of_the_readme_pass_their_audits(capsys):
    [snippet] = [block for block in re.findall(r"```python\n(.*?)```", TEXT, re.S) if "class LogCosh" in block]
    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "LogCosh: ok" in printed and "Snake: ok" in printed


def test_the_examples_of_own_losses_and_activations_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", (readme.README.parent / "docs" / "extending.md").read_text(), re.S)
    classes = re.findall(r"class \w+\(.*?(?:\n\n\n|$)", "\n\n\n".join(blocks), re.S)
    assert len(classes) == 4 and max(len(re.findall(r"^.*\S.*$", block, re.M)) for block in classes) <= 10
    exec(compile("\n".join(blocks), "extending.md", "exec"), {"__name__": "extending"})
    assert "LogCosh: ok" in capsys.readouterr().out


def test_the_table_is_that_of_the_committed_record():
    written = TEXT.split(readme.BEGIN)[1].split(readme.END)[0]
    assert written.strip() == readme.table().strip()


def test_the_exponents_are_those_of_the_committed_record():
    written = (readme.README.parent / "docs" / "scaling.md").read_text()
    assert scale_growth.table(harness.read("scale")["growth"]["rows"]) in written


def test_both_commands_stand_on_one_line():
    commands = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2 and commands[0].endswith("experiments ladder") and commands[1].endswith("pytest -q")


def test_ratios_are_taken_pair_by_pair():
    import numpy as np

    row = harness.relative(np.array([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    assert row == {"relative_time": 2.0, "low": 1.5, "high": 2.5}


def test_competitors_take_turns_in_changing_orders():
    turns = []
    harness.interleave({name: lambda name=name: turns.append(name) for name in "abc"}, 12)
    orders = ["".join(turns[i : i + 3]) for i in range(0, 39, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert {order[1 + order.index("a")] for order in orders if order[-1] != "a"} == {"b", "c"}


@pytest.mark.parametrize("name", [path.stem for path in Path(harness.RESULTS).glob("*.json")])
def test_records_name_their_device(name):
    for section in harness.read(name).values():
        assert {"device", "cores", "jax"} <= set(section["environment"]) and section["rows"]
