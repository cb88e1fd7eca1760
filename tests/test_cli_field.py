"""The command line in the field: texts as spreadsheets write them, outputs that are closed or full, words that help."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from test_cli import call, names, told

import lr_nn
from lr_nn.cli import check, fit, main
from lr_nn.cli.wording import ARGUMENTS, in_options

# Programs that share no cache, which a limit of files would damage.
ALONE = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
ROWS = [
    (round(0.37 * i % 3 - 1, 2), round(1000 + 37.5 * (i % 11), 2), "yes" if i * i % 7 < 3 else "no") for i in range(60)
]


def text(delimiter=",", decimal=".", header=("size", "area", "sold")):
    lines = [header, *((f"{a:.2f}".replace(".", decimal), f"{b:.2f}".replace(".", decimal), y) for a, b, y in ROWS)]
    return "".join(delimiter.join(line) + "\r\n" for line in lines)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_text_of_a_spreadsheet_is_that_of_a_program(here, capsys):
    Path("program.csv").write_text(text())
    Path("spreadsheet.csv").write_text("\ufeff" + text(";", ","), encoding="utf-8")
    plain = told(capsys, "fit", "program.csv", "--target", "sold")[1]
    written = told(capsys, "fit", "spreadsheet.csv", "--target", "sold", "--delimiter", ";", "--decimal", ",")[1]
    assert written["coefficients"] == plain["coefficients"] and len(plain["coefficients"]) == 3


def test_a_text_of_any_name_is_read_as_csv_where_asked(here, capsys):
    Path("sold.data").write_text(text())
    code, _, err = call(capsys, "fit", "sold.data", "--target", "sold")
    assert code == 2 and "--csv" in err
    assert call(capsys, "fit", "sold.data", "--csv", "--target", "sold", "--out", "model")[0] == 0
    assert call(capsys, "predict", "model", "sold.data", "--csv", "--out", "p.csv")[0] == 0
    assert call(capsys, "check", "sold.data", "--csv", "--target", "sold")[0] == 0


def test_marks_between_and_in_numbers_are_pointed_out(here, capsys):
    Path("marks.csv").write_text(text(";", ","))
    code, _, err = call(capsys, "fit", "marks.csv", "--target", "sold")
    assert code == 2 and "--delimiter ';'" in err
    code, out, _ = call(capsys, "check", "marks.csv", "--target", "sold", "--delimiter", ";")
    assert code == 1 and "area: 11 levels are text, such as '1000,00'" in out and "--decimal ','" in out


def test_the_library_says_what_the_options_are_called_by():
    code = "".join(path.read_text() for path in Path(lr_nn.__file__).parent.glob("[dst]*/*.py"))
    code = re.sub(r'"\s*f?"', "", code)  # texts that are cut into lines
    for argument in ARGUMENTS:
        assert re.search(argument.replace("'[^']'", r"(?:'[^']'|\{[^}]*\})"), code), argument
    assert in_options("one 'x'; unknown='ignore' treats it so") == "one 'x'; --unknown ignore treats it so"
    assert in_options("batch_size must be a multiple of the 8 shards; got 9").startswith("--batch-size must be")
    assert in_options("(pass delimiter=';')") == "(pass --delimiter ';')"


def test_columns_that_hold_no_values_are_named(here, capsys):
    nested = pa.table(
        {"pair": pa.array([{"a": 1}] * 60), "list": pa.array([[1.0]] * 60), "raw": pa.array([b"\0"] * 60)}
    )
    pyarrow.parquet.write_table(nested.append_column("y", pa.array(["a", "b"] * 30)), "nested.parquet")
    code, out, _ = call(capsys, "check", "nested.parquet")
    assert code == 1
    for name in ("pair", "list", "raw"):
        assert f"column '{name}' holds" in out


def test_columns_kept_are_not_lost_beneath_the_predictions(here, capsys):
    Path("data.csv").write_text(text(header=("prediction", "area", "sold")))
    assert call(capsys, "fit", "data.csv", "--target", "sold", "--out", "model")[0] == 0
    code, _, err = call(capsys, "predict", "model", "data.csv", "--keep", "prediction", "--out", "p.csv")
    assert code == 2 and "--keep prediction" in err and "p.csv" not in names(here)


def test_a_likelihood_without_a_maximum_names_the_columns(here, capsys):
    lines = [f"{i},{i % 3},{'yes' if i < 30 else 'no'}\n" for i in range(60)]
    Path("data.csv").write_text("dose,room,died\n" + "".join(lines))
    code, found = told(capsys, "fit", "data.csv", "--target", "died")
    assert code == 1 and found["status"] == "separated"
    assert "coefficients of dose" in found["message"] and "--l2" in found["message"]


def test_what_is_compiled_anew_is_fitted_by_what_compiles_fast():
    census = lr_nn.logistic_regression(96)  # the Hessian of 26,000 rows is more than `fit` would pay
    assert fit.solver_for(census, 26_000, 0.0) == "newton"
    assert fit.solver_for(census, 26_000, 0.1) == fit.solver_for(census, 10**8, 0.0) == "auto"
    assert fit.solver_for(lr_nn.linear_regression(3), 100, 0.0) == "auto"


class Full(io.StringIO):
    """A file on a disk that has no room."""

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["check", "data.csv"], ["check", "data.csv", "--json"], ["none", "--json"]]
)
def test_an_output_that_is_full_is_one_message(here, monkeypatch, capsys, arguments):
    Path("data.csv").write_text(text())
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("error: ") == 1 and "Traceback" not in err


def test_closed_outputs_are_told_or_done_without(here, monkeypatch, capsys):
    Path("data.csv").write_text(text())
    assert call(capsys, "fit", "data.csv", "--target", "sold", "--out", "model")[0] == 0
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["predict", "model", "data.csv"]) == 2
    assert "name a file by --out" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["predict", "model", "data.csv", "--out", "p.csv"]) == 0


def test_a_reader_of_the_help_may_go_away():
    shell = ["bash", "-c", f"({sys.executable} -m lr_nn --help; echo $? >&2) | true"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.strip() in ("0", "141")


def test_a_checkpoint_that_finds_no_room_is_one_message(here):
    Path("data.csv").write_text(text())
    words = "-m lr_nn train data.csv --target sold --epochs 1 --checkpoints kept --out model"
    shell = ["bash", "-c", f"ulimit -f 1; trap '' XFSZ; {sys.executable} {words} 2>&1 | cat; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=300, check=False, env=ALONE)
    assert done.returncode == 2 and done.stdout.count("\nerror: ") == 1, done.stdout
    assert (
        "--resume" in done.stdout
        and "Traceback" not in done.stdout
        and "ERROR:" not in done.stdout
        and not Path("model").exists()
    )


def test_numbers_of_a_table_do_not_touch():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 2))
    y = 1e5 * (x @ [1.0, -2.0] + rng.normal(size=50))
    net = lr_nn.linear_regression(2)
    found = lr_nn.inference.summary(net, lr_nn.fit(net, lr_nn.Batch(x, y)), lr_nn.Batch(x, y), names=("a", "b"))
    (line,) = (line for line in str(found).splitlines() if line.startswith("b "))
    assert len(line.split()) == 7


class Deaf:
    """Where an exception cannot be raised: what a signal raises in here is lost."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        os.kill(os.getpid(), self.number)
        time.sleep(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["lost", "another"])
def test_a_signal_is_heard_where_its_exception_is_lost(here, capsys, monkeypatch, number, kind):
    def work():
        for _ in range(300):
            time.sleep(0.1)

    def run(options, terminal):
        if kind == "lost":
            Deaf(number)
            work()
        try:
            os.kill(os.getpid(), number)
            work()
        except BaseException as error:
            raise ImportError("a library could not be loaded") from error

    monkeypatch.setattr(check, "run", run)
    code, found = told(capsys, "check", "data.csv")
    assert code == 128 + number and "nothing is half written" in found["error"]


@pytest.mark.parametrize(
    ("weight", "target", "message"),
    [
        ("heavy", "yes", "column 'weight' holds string; expected numbers"),
        ("", "yes", "column 'weight' has no value at row 60; fill it, or leave out the row\n"),
        ("1", "", "column 'sold' has no value at row 60; fill it, or leave out the row\n"),
    ],
)
def test_what_nothing_is_put_in_place_of_is_named_without_imputation(here, capsys, weight, target, message):
    rest = "".join(f"{a},{y},1\n" for a, _, y in ROWS)
    Path("data.csv").write_text(f"size,sold,weight\n{rest}1,{target},{weight}\n")
    code, _, err = call(capsys, "fit", "data.csv", "--target", "sold", "--weight", "weight")
    assert code == 2 and message in err
