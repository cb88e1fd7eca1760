"""What stops a run is told before it begins, and what ends it is told once, in every place."""

import json

import pytest

from experiments import runner
from experiments.__main__ import main
from experiments.report import Section, Table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("entropy", "--share", "nan"), "--share must be finite; got nan"),
        (("entropy", "--p", 0.5, "inf"), "--p must be finite"),
        (("entropy", "--rate", 4), "--rate between 0 and 4"),
        (("odds", "--seed", -1), "--seed must lie between 0"),
        (("coin_toss", "--tosses", 10**13), "out of memory"),
        (("ladder", "--rungs"), "--rungs must name some of"),
    ],
)
def test_numbers_that_nothing_can_be_computed_with_are_refused(tmp_path, capsys, arguments, message):
    assert main([*map(str, arguments), "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["coin_toss", "all"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_the_run(tmp_path, capsys, monkeypatch, name):
    (tmp_path / "file").touch()
    assert main([name, "--out", str(tmp_path / "file" / "below")]) == 2
    assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main([name, "--out", str(tmp_path / "run")]) == 2
    assert f"{tmp_path} cannot be written to" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_full_disk_is_a_message(tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert main(["entropy", "--steps", "1", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


def test_a_long_table_is_whole_in_the_report_and_cut_on_the_terminal(tmp_path, capsys):
    run = runner.Run("outliers", runner.Options(out=tmp_path))
    table = Table(
        "Squares", ("number", "its square"), [(f"the number {n}", f"{n * n} in all") for n in range(100)], ("a note",)
    )
    run.conclude("Numbers", "They grow [/fast].", [Section("All", tables=(table,))])
    shown, page = " ".join(capsys.readouterr().out.split()), (tmp_path / "report.html").read_text()
    assert "9801" in page and "9801" not in shown and "1521" in shown and "and 60 rows more, in report.html" in shown
    assert "a note" in shown and "They grow [/fast]." in shown
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"kind": "finding", "text": "They grow [/fast]."}


@pytest.mark.parametrize(
    ("values", "above", "expected"),
    [
        ((1, 2, 5), 0, True),
        ((), 0, False),
        ((0, 1), 0, False),
        ((1, 1), 0, False),
        ((2, 1), 0, False),
        ((0,), -1, True),
    ],
)
def test_growing_numbers_are_told_from_others(values, above, expected):
    assert runner.growing(values, above) is expected
    assert not runner.growing((*values, float("nan")), above)
