"""The command line: what it fits is what the library fits, and a mistake is one message that leaves nothing behind."""

import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.stats
import sklearn.metrics
from tolerances import assert_close

import lr_nn
from benchmarks.fuzz import fuzz
from benchmarks.fuzz_command_line import FORMATS
from lr_nn import Batch, data
from lr_nn.cli import COMMANDS, OVERVIEW, judging, main
from lr_nn.cli.launch import parse
from lr_nn.cli.terminal import Terminal

N = 200


def table(n=N, seed=0):
    """Two numbers and a level, and targets of every kind that depend on them."""
    rng = np.random.default_rng(seed)
    size, age = rng.normal(50, 10, n).round(2), rng.integers(18, 80, n)
    colour = rng.choice(["red", "green", "blue"], n)
    eta = (size - 50) / 10 + (colour == "red") - (age - 50) / 40
    return pa.table(
        {
            "size": size,
            "age": age,
            "colour": colour,
            "bought": np.where(rng.random(n) < 1 / (1 + np.exp(-eta)), "yes", "no"),
            "price": 3 * eta + rng.normal(size=n),
            "visits": rng.poisson(np.exp(eta / 2)),
            "kind": rng.choice(["a", "b", "c"], n),
        }
    )


TARGETS = ("bought", "price", "visits", "kind")


def only(target):
    """Options for one target: the others are left out."""
    return ["--target", target, "--ignore", *(name for name in TARGETS if name != target)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a table and a model fitted to it."""
    folder = tmp_path_factory.mktemp("cli")
    pa.csv.write_csv(table(), folder / "data.csv")
    pa.csv.write_csv(table(60, seed=1).select(["colour", "age", "size"]), folder / "new.csv")
    assert main(["fit", str(folder / "data.csv"), *only("bought"), "--l2", "0.01", "--out", str(folder / "model")]) == 0
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in; what is left in it is looked at."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(capsys, *arguments):
    """The exit code, and what was said on both channels."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def told(capsys, *arguments):
    """The exit code, and the one object on standard output."""
    code, out, _ = call(capsys, *arguments, "--json")
    assert out.count("\n") == 1 and out.endswith("\n")
    found = json.loads(out)
    assert found["exit_code"] == code
    return code, found


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def weights(folder):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(lr_nn.load_model(folder).params)]


def training_rows(folder, target="bought", share=0.2):
    """What the command learns from, by the library."""
    whole = data.open_table(folder / "data.csv")
    seen, _ = data.split(whole, share, key=jax.random.key(0))
    schema = data.learn(seen, target, ignore=[name for name in TARGETS if name != target])
    return schema, data.split(schema.rows(whole), share, key=jax.random.key(0))


def test_help_imports_nothing_heavy():
    code = (
        "import sys, io, contextlib\n"
        "from lr_nn.cli import COMMANDS, main\n"
        "for name in ['', *COMMANDS]:\n"
        "    said = io.StringIO()\n"
        "    with contextlib.redirect_stdout(said):\n"
        "        assert main([name, '--help'] if name else ['--help']) == 0\n"
        "    assert 'usage: lr-nn' in said.getvalue()\n"
        "heavy = {'jax', 'numpy', 'pyarrow', 'optax', 'scipy', 'matplotlib', 'orbax', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_the_commands_and_the_exit_codes_are_listed(capsys):
    code, out, _ = call(capsys)
    assert code == 0 and all(name in out for name in COMMANDS) and all(c in out for c in ("130", "141", "143"))
    code, out, err = call(capsys, "fitt")
    assert code == 2 and not out and "there is no command 'fitt'" in err


def test_the_fit_is_that_of_the_library_on_the_rows_that_are_not_held_out(home, here, capsys):
    code, found = told(capsys, "fit", home / "data.csv", *only("bought"), "--l2", 0.01, "--out", "model")
    schema, (seen, held) = training_rows(home)
    batch = seen.read(0, len(seen))
    net = lr_nn.logistic_regression(len(schema.features))
    solution = lr_nn.fit(net, Batch(batch.x, batch.y), penalty=lr_nn.penalties.l2(0.01))
    summary = lr_nn.inference.summary(net, solution, batch)
    model = lr_nn.load_model("model")
    assert code == 0 and model.net == net and model.schema == schema
    np.testing.assert_array_equal(model.params[0].w, solution.params[0].w)
    rows = found["coefficients"]
    assert [row["name"] for row in rows] == [*schema.features, "bias"]
    assert_close(np.array([row["standard error"] for row in rows]), summary.standard_errors[:, 0])
    judged = found["judged"]
    batch = held.read(0, len(held))
    p = model.predict(batch.x)[:, 0]
    assert judged["held_out"] and judged["rows"] == len(batch.y) == N // 5
    assert_close(judged["auc"], sklearn.metrics.roc_auc_score(batch.y, p))
    assert_close(judged["log_loss"], sklearn.metrics.log_loss(batch.y, p), N)
    assert model.facts["judged"] == judged and model.facts["status"] == found["status"] == "converged"


def test_what_a_fit_says_and_leaves(home, here, capsys):
    code, out, err = call(capsys, "fit", home / "data.csv", *only("bought"), "--l2", 0.01, "--out", "model")
    assert code == 0 and "Logistic regression" in out and "std err" in out and "colour=green" in out
    assert "converged" in out and "on 40 held-out rows" in out and "standardised" in err
    assert names(here) == ["model"] and names(here / "model")[0::2] == ["model.json", "report.html"]
    page = (here / "model" / "report.html").read_text(encoding="utf-8")
    for wanted in ("ROC curve", "Calibration", "standard error", "colour=green", "converged", "lr-nn fit", "--l2 0.01"):
        assert wanted in page
    assert not re.search(r'(src|href)="(?!data:)', page), "the page stands alone"


def test_the_command_in_the_report_gives_the_same_model(home, here, capsys):
    told(capsys, "fit", home / "data.csv", *only("bought"), "--seed", 3, "--no-standardise", "--out", "first")
    first = lr_nn.load_model("first")
    words = first.facts["command"].replace("--out first", "--out again").split()
    assert words[:2] == ["lr-nn", "fit"] and call(capsys, *words[1:])[0] == 0
    again = lr_nn.load_model("again")
    for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(again.params)):
        np.testing.assert_array_equal(a, b)
    assert again.schema == first.schema


@pytest.mark.parametrize(
    ("target", "options", "net", "score"),
    [
        ("price", (), lr_nn.linear_regression(4), "r2"),
        ("kind", ("--l2", 0.1), lr_nn.softmax_regression(4, 3), "accuracy"),
    ],
)
def test_the_target_chooses_the_model(home, here, capsys, target, options, net, score):
    code, found = told(capsys, "fit", home / "data.csv", *only(target), *options, "--out", "model")
    assert code == 0 and lr_nn.load_model("model").net == net and np.isfinite(found["judged"][score])
    assert (here / "model" / "report.html").is_file()


def test_weights_are_repeated_rows_and_an_offset_is_added(here, capsys):
    rows = table(80).select(["age", "colour", "visits"])
    times, days = np.arange(80) % 3, pa.array(np.log(1 + np.arange(80) % 7))
    weighted = rows.append_column("times", pa.array(times)).append_column("days", days)
    pa.parquet.write_table(weighted, "weighted.parquet")
    pa.parquet.write_table(weighted.take(np.repeat(np.arange(80), times)).drop_columns(["times"]), "repeated.parquet")
    options = ["--target", "visits", "--model", "poisson", "--offset", "days", "--held-out", 0]
    assert call(capsys, "fit", "weighted.parquet", *options, "--weight", "times", "--out", "weighted")[0] == 0
    assert call(capsys, "fit", "repeated.parquet", *options, "--out", "repeated")[0] == 0
    for a, b in zip(weights("weighted"), weights("repeated")):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    model = lr_nn.load_model("repeated")
    assert call(capsys, "predict", "repeated", "repeated.parquet", "--out", "p.parquet")[0] == 0
    x, _, _, offset = model.schema.inputs(data.open_table("repeated.parquet")).read(0, times.sum())
    with_offset = pa.parquet.read_table("p.parquet").column("prediction").to_numpy()
    assert_close(with_offset, model.predict(x)[:, 0] * np.exp(offset), 5)


def test_rows_beyond_the_memory_are_streamed_to_the_same_coefficients(here, capsys):
    large = table(20_000)
    pa.parquet.write_table(large, "large.parquet", row_group_size=1000)
    options = ["large.parquet", *only("bought"), "--held-out", 0]
    assert call(capsys, "fit", *options, "--out", "whole")[0] == 0
    assert call(capsys, "fit", *options, "--out", "blocks", "--memory", 1)[0] == 0
    whole, blocks = (lr_nn.load_model(folder).facts for folder in ("whole", "blocks"))
    assert "passes" in blocks["message"] and "passes" not in whole["message"]
    assert_close(whole["cost"], blocks["cost"], 20_000)
    np.testing.assert_allclose(*(weights(folder)[0] for folder in ("whole", "blocks")), rtol=1e-5)


def test_a_fit_that_did_not_converge_is_written_and_says_so(here, capsys):
    x = np.linspace(-1, 1, 40)
    pa.csv.write_csv(pa.table({"x": x, "y": (x > 0).astype(int)}), "separated.csv")
    code, found = told(capsys, "fit", "separated.csv", "--target", "y", "--held-out", 0, "--out", "model")
    assert code == 1 and found["status"] == "separated"
    assert lr_nn.load_model("model").facts["status"] == "separated"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_predictions_are_those_of_the_model_in_blocks_of_any_size(home, here, capsys, suffix):
    model = lr_nn.load_model(home / "model")
    rows = model.schema.inputs(data.open_table(home / "new.csv"))
    p = model.predict(rows.read(0, 60).x)[:, 0]
    out = f"p{suffix}"
    code, found = told(
        capsys, "predict", home / "model", home / "new.csv", "--out", out, "--rows", 7, "--keep", "age", "colour"
    )
    assert (code, found["rows"], names(here)) == (0, 60, [out])
    got = pa.csv.read_csv(out) if suffix == ".csv" else pa.parquet.read_table(out)
    assert got.column_names == ["age", "colour", "prediction", "probability yes"]
    assert_close(got.column("probability yes").to_numpy(), p, 5)
    assert got.column("prediction").to_pylist() == np.where(p > 0.5, "yes", "no").tolist()
    assert got.column("age") == data.open_table(home / "new.csv").read(0, 60).column("age")


def test_predictions_go_to_standard_output_as_csv(home, here, capfdbinary):
    assert main(["predict", str(home / "model"), str(home / "new.csv")]) == 0
    got = pa.csv.read_csv(pa.py_buffer(capfdbinary.readouterr().out))
    assert got.num_rows == 60 and got.column_names == ["prediction", "probability yes"]


def test_a_reader_that_goes_away_is_no_error(home):
    command = f"{sys.executable} -m lr_nn predict {home / 'model'} {home / 'new.csv'} --rows 1; echo $? >&2"
    shell = ["bash", "-c", f"({command}) | true"]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.strip() == "141"


def test_unknown_levels_and_extra_columns_may_be_ignored(home, here, capsys):
    new = table(5).append_column("more", pa.array(["x"] * 5)).drop_columns(["colour"])
    pa.csv.write_csv(new.append_column("colour", pa.array(["violet", *["blue"] * 4])), "new.csv")
    code, _, err = call(capsys, "predict", home / "model", "new.csv", "--out", "p.csv", "--extra", "ignore")
    assert code == 2 and "'violet'" in err and "row 0" in err and "column 'colour'" in err
    options = ["--extra", "ignore", "--unknown", "ignore"]
    assert call(capsys, "predict", home / "model", "new.csv", "--out", "p.csv", *options)[0] == 0
    assert names(here) == ["new.csv", "p.csv"]


def write(folder, name, text):
    (folder / name).write_text(text)
    return name


MISTAKES = {
    "no such command": (["fti", "DATA"], "there is no command 'fti'"),
    "no data": (["fit", "none.csv", "--target", "y"], "none.csv does not exist"),
    "no target": (["fit", "DATA"], "--target must name the column to be predicted, one of size, age"),
    "unknown target": (["fit", "DATA", "--target", "yield"], "no column 'yield'"),
    "unknown column": (["fit", "DATA", "--target", "price", "--ignore", "colr"], "no column 'colr'"),
    "unknown option": (["fit", "DATA", "--targt", "price"], "--targt"),
    "unknown value": (["fit", "DATA", "--target", "price", "--model", "deep"], "deep"),
    "binary as numbers": (["fit", "DATA", *only("bought"), "--model", "linear"], "bought"),
    "numbers as two classes": (["fit", "DATA", *only("kind"), "--model", "logistic"], "--model softmax suits"),
    "share": (["fit", "DATA", *only("price"), "--held-out", "1"], "--held-out must be a share"),
    "memory": (["fit", "DATA", *only("price"), "--memory", "0"], "--memory must be at least 1"),
    "seed": (["fit", "DATA", *only("price"), "--seed", "-1"], "--seed must be at least 0"),
    "steps": (["fit", "DATA", *only("price"), "--max-steps", "0"], "--max-steps must be at least 1"),
    "epochs": (["train", "DATA", *only("price"), "--epochs", "0"], "--epochs must be at least 1"),
    "column of check": (["check", "DATA", "--target", "yield"], "has no column 'yield'"),
    "penalty": (["fit", "DATA", *only("price"), "--l2", "-1"], "l2 must be finite and not negative"),
    "tol": (["fit", "DATA", *only("price"), "--tol", "2"], "--tol must be between 0 and 1"),
    "out is a file": (["fit", "DATA", *only("price"), "--out", "FILE"], "is a file; a model is a folder"),
    "out is other": (["fit", "DATA", *only("price"), "--out", "OTHER"], "holds other files and no model"),
    "out exists": (["fit", "DATA", *only("price"), "--out", "MODEL"], "or pass --overwrite"),
    "out nowhere": (["fit", "DATA", *only("price"), "--out", "a/b"], "make it first"),
    "wrong suffix": (["fit", "FILE.xlsx", "--target", "y"], "a table is known by"),
    "ragged": (["fit", "RAGGED", "--target", "y"], "ragged.csv"),
    "empty": (["fit", "EMPTY", "--target", "y"], "empty.csv"),
    "not numbers": (["check", "BINARY"], "binary.csv"),
    "widths": (["train", "DATA", *only("price"), "--hidden", "64;64"], "--hidden must be widths such as 64,64"),
    "no widths": (["train", "DATA", *only("price"), "--hidden", "0"], "at least 1"),
    "resume": (["train", "DATA", *only("price"), "--resume"], "--resume needs --checkpoints"),
    "patience": (["train", "DATA", *only("price"), "--patience", "2", "--held-out", "0"], "give --held-out a share"),
    "alone": (["fit", "DATA", *only("price"), "--processes", "2"], "are for many processes: add --distributed"),
    "no world": (["fit", "DATA", "--distributed", "--coordinator", "x"], "--coordinator must be host:port"),
    "rate": (["train", "DATA", *only("price"), "--learning-rate", "0"], "--learning-rate must be positive"),
    "no model": (["predict", "OTHER", "NEW"], "model.json is missing"),
    "no such column": (["predict", "MODEL", "NEW", "--keep", "yield"], "--keep names the column 'yield'"),
    "predictions as xlsx": (["predict", "MODEL", "NEW", "--out", "p.xlsx"], "--out must end in .csv or .parquet"),
    "missing column": (["predict", "MODEL", "RAGGED", "--out", "p.csv", "--names", "a", "b"], "ragged.csv"),
    "predictions exist": (["predict", "MODEL", "NEW", "--out", "DATA"], "exists: name another file"),
    "predictions nowhere": (["predict", "MODEL", "NEW", "--out", "a/p.csv"], "make it first"),
    "model of a table": (["predict", "MODEL", "ARRAYS"], "was learned from a table"),
    "target of arrays": (["fit", "ARRAYS", "--target", "y"], "its target is y"),
    "export exists": (["export", "MODEL", "--out", "DATA"], "exists"),
    "export format": (["export", "MODEL", "--out", "m", "--format", "torch"], "torch"),
    "export needs out": (["export", "MODEL"], "--out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_leaves_nothing(home, here, capsys, mistake):
    arguments, message = MISTAKES[mistake]
    (here / "other").mkdir()
    for name in ("file", "file.xlsx", "other/notes.txt", "empty.csv"):
        write(here, name, "" if name.startswith("empty") else "mine")
    write(here, "ragged.csv", "x,y\n1,2\n3\n")
    (here / "binary.csv").write_bytes(bytes(range(256)))
    np.savez(here / "arrays.npz", x=np.zeros((4, 2)), y=np.zeros(4))
    places = {
        "DATA": home / "data.csv",
        "NEW": home / "new.csv",
        "MODEL": home / "model",
        "OTHER": "other",
        "FILE": "file",
        "FILE.xlsx": "file.xlsx",
        "RAGGED": "ragged.csv",
        "EMPTY": "empty.csv",
        "BINARY": "binary.csv",
        "ARRAYS": "arrays.npz",
    }
    before = sorted(here.rglob("*")), sorted(home.rglob("*"))
    words = [places.get(word, word) for word in arguments]
    code, out, err = call(capsys, *words)
    assert code == 2 and not out and message in err, (code, out, err)
    code, found = told(capsys, *words)
    assert code == 2 and set(found) == {"error", "exit_code"}
    assert (sorted(here.rglob("*")), sorted(home.rglob("*"))) == before


def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_runs(home, here, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, err = call(capsys, "fit", home / "data.csv", *only("price"), "--out", "model")
    assert code == 2 and "cannot be written to" in err and not names(here)


@pytest.mark.parametrize(("value", "options"), [(None, ()), (-2, ("--model", "poisson"))])
def test_the_row_that_is_wrong_is_named_by_its_place_in_the_file(here, capsys, value, options):
    lines = table().to_pylist()
    lines[150]["visits"] = value
    pa.csv.write_csv(pa.Table.from_pylist(lines), "data.csv")
    code, _, err = call(capsys, "fit", "data.csv", *only("visits"), *options)
    assert code == 2 and "'visits'" in err and "at row 150" in err
    np.savez("data.npz", x=np.zeros((200, 1)), y=np.where(np.arange(200) == 150, -2 if value else np.nan, 1.0))
    code, _, err = call(capsys, "fit", "data.npz", *options)
    assert code == 2 and "at row 150" in err


def test_a_class_that_is_held_out_whole_is_refused_before_the_fit(here, capsys):
    _, held = data.split(data.frame({"row": np.arange(N)}), 0.2, key=jax.random.key(0))
    rare = held.read(0, 1).column("row")[0].as_py()
    lines = table().to_pylist()
    lines[rare]["kind"] = "rare"
    pa.csv.write_csv(pa.Table.from_pylist(lines), "data.csv")
    code, _, err = call(capsys, "fit", "data.csv", *only("kind"))
    assert code == 2 and "the class 'rare' of 'kind' are all held out" in err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (signal.SIGTERM, 143), (MemoryError(), 2)])
def test_what_stops_a_prediction_leaves_no_file(home, here, capsys, monkeypatch, error, code):
    blocks = iter(range(3))
    handler = signal.getsignal(signal.SIGTERM)
    predict = lr_nn.model_files.Model.predict

    def stopped(model, x, offset=None):
        if next(blocks) == 2:
            assert len(names(here)) == 1, "there is a draft by now"
            if error is not signal.SIGTERM:
                raise error
            os.kill(os.getpid(), error)
        return predict(model, x, offset)

    monkeypatch.setattr(lr_nn.model_files.Model, "predict", stopped)
    got, found = told(capsys, "predict", home / "model", home / "new.csv", "--out", "p.csv", "--rows", 7)
    assert got == code and found["error"] and not names(here)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_disk_that_fills_up_is_named_and_leaves_nothing(home, here, capsys):
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    pa.csv.write_csv(table(3000), "more.csv")
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        extra = ["--extra", "ignore"]
        code, _, err = call(capsys, "predict", home / "model", "more.csv", "--out", "p.csv", "--rows", 100, *extra)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2 and "File too large" in err and str(here / "p.csv") in err and names(here) == ["more.csv"]


def test_a_failure_of_the_program_is_told_from_a_mistake_and_shown_when_asked(home, here, capsys, monkeypatch):
    def broken(*arguments, **options):
        raise AttributeError("a bug")

    monkeypatch.setattr(lr_nn, "fit", broken)
    arguments = ["fit", str(home / "data.csv"), *only("price")]
    code, _, err = call(capsys, *arguments)
    assert code == 3 and "AttributeError: a bug" in err and "--debug" in err
    with pytest.raises(AttributeError, match="a bug"):
        main([*arguments, "--debug"])


TRAIN = ["--hidden", "8", "--optimizer", "sgd", "--learning-rate", "0.1", "--batch-size", "32", "--activation", "tanh"]


def test_a_training_is_that_of_the_library(home, here, capsys):
    import optax

    arguments = ["train", home / "data.csv", *only("bought"), *TRAIN, "--epochs", 3, "--out", "model"]
    code, found = told(capsys, *arguments)
    schema, (seen, held) = training_rows(home)
    net = lr_nn.mlp((len(schema.features), 8, 1), lr_nn.activations.tanh)
    trained = lr_nn.train(
        net,
        lr_nn.init(net, jax.random.key(0)),
        seen.read(0, len(seen)),
        optimizer=optax.sgd(0.1),
        epochs=3,
        batch_size=32,
        key=jax.random.key(1),
        validation=held.read(0, len(held)),
    )
    assert code == 0 and lr_nn.load_model("model").net == net
    for mine, theirs in zip(weights("model"), jax.tree.leaves(trained.params)):
        np.testing.assert_array_equal(mine, theirs)
    assert_close(np.array(found["history"]["validation_cost"]), trained.history["validation_cost"])
    assert (here / "model" / "report.html").is_file()


def test_a_training_that_is_terminated_goes_on_to_the_same_model(home, here, capsys, monkeypatch):
    arguments = ["train", home / "data.csv", *only("bought"), *TRAIN, "--epochs", 40]
    assert call(capsys, *arguments, "--out", "whole")[0] == 0
    bar = Terminal.bar

    def killing(terminal, description, unit="rows"):
        kill = nullcontext(lambda *told: os.kill(os.getpid(), signal.SIGTERM))
        return kill if description == "training" else bar(terminal, description, unit)

    monkeypatch.setattr(Terminal, "bar", killing)
    code, found = told(capsys, *arguments, "--checkpoints", "kept", "--out", "model")
    assert code == 143 and "--resume" in found["error"] and names(here) == ["kept", "whole"]
    monkeypatch.setattr(Terminal, "bar", bar)
    assert call(capsys, *arguments, "--checkpoints", "kept", "--resume", "--out", "model")[0] == 0
    for a, b in zip(weights("whole"), weights("model")):
        np.testing.assert_array_equal(a, b)


def test_check_says_what_is_wrong(here, capsys):
    n = 50
    pa.csv.write_csv(
        pa.table(
            {
                "same": np.ones(n),
                "none": pa.array([None] * n, pa.float64()),
                "few": pa.array([1.5] + [None] * (n - 1)),
                "day": pa.array(np.arange(n, dtype=np.int32)).cast(pa.date32()),
                "x": np.arange(n) * 1.0,
                "y": np.arange(n) % 2,
            }
        ),
        "data.csv",
    )
    code, found = told(capsys, "check", "data.csv")
    said = "\n".join(found["problems"])
    assert code == 1 and found["rows"] == n and found["columns"][0]["name"] == "same"
    for sentence in ("'same' has one value", "'none' has no value", "'few' lacks 98%", "'day' is a date32"):
        assert sentence in said
    code, found = told(capsys, "check", "data.csv", "--target", "y", "--ignore", "same", "none", "few", "day")
    assert (code, found["problems"], found["target"], found["features"]) == (0, [], "binary", ["x"])
    code, out, _ = call(capsys, "check", "data.csv", "--target", "y")
    assert code == 1 and "a time is no number" in out and "to look at" in out


def test_arrays_are_fitted_checked_and_predicted(here, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 3))
    np.savez("data.npz", x=x, y=(x[:, 0] + rng.normal(size=90) > 0).astype(np.int64))
    np.savez("new.npz", x=x[:5])
    np.savez("bad.npz", x=np.where(np.arange(90)[:, None] == 7, np.nan, x), y=np.zeros(90))
    assert told(capsys, "check", "data.npz") == (0, {"rows": 90, "features": 3, "problems": [], "exit_code": 0})
    code, found = told(capsys, "check", "bad.npz")
    assert code == 1 and "row 7" in found["problems"][0]
    assert call(capsys, "fit", "data.npz", "--out", "model")[0] == 0
    model = lr_nn.load_model("model")
    assert model.net == lr_nn.logistic_regression(3) and model.schema is None
    assert call(capsys, "predict", "model", "new.npz", "--out", "p.parquet")[0] == 0
    got = pa.parquet.read_table("p.parquet")
    assert_close(got.column("probability 1").to_numpy(), model.predict(x[:5])[:, 0], 4)


def test_an_export_predicts_what_the_model_does(home, here, capsys):
    model = lr_nn.load_model(home / "model")
    x = model.schema.inputs(data.open_table(home / "new.csv")).read(0, 60).x.astype(np.float32)
    assert told(capsys, "export", home / "model", "--out", "m.onnx")[0] == 0
    assert told(capsys, "export", home / "model", "--out", "m.hlo", "--format", "stablehlo")[0] == 0
    onnx = onnxruntime.InferenceSession("m.onnx").run(None, {"x": x})[0]
    with open("m.hlo", "rb") as file:
        hlo = jax.export.deserialize(bytearray(file.read())).call(x)
    for served in (onnx, hlo):
        assert_close(served, model.predict(x), 5)
    said = json.loads((here / "m.hlo.json").read_text(encoding="utf-8"))
    assert data.Schema.from_json(json.dumps(said["schema"])) == model.schema


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused_in_a_message(tmp_path_factory, kind):
    seen = set()
    for seed in range(int(os.environ.get("LR_NN_FUZZ", "8"))):
        seen.add(fuzz(FORMATS[kind], seed, tmp_path_factory.mktemp("fuzz")).partition(":")[0])
    assert "refused" in seen


def test_bench_measures(capsys):
    code, found = told(capsys, "bench", "--rows", 300, "--features", 4)
    assert code == 0 and len(found["seconds"]) == 3 and all(second > 0 for second in found["seconds"].values())


def test_a_bar_shows_the_rate_on_a_terminal_alone(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    for stream, shown in ((Screen(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Terminal(json=True).bar("reading") as show:
            for done in range(0, 1001, 100):
                show(done, 1000, "good")
                time.sleep(0.01)
        said = stream.getvalue()
        assert ("reading" in said and "rows/s" in said and "/1000" in said) is shown and (said != "") is shown


DOCS = Path(__file__).resolve().parents[1] / "docs" / "command_line.md"


def test_every_command_of_the_documentation_parses_and_its_exit_codes_are_those_of_the_help():
    text = DOCS.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("lr-nn ") and " " in line]
    assert len(lines) >= 9
    for line in lines:
        name, *words = shlex.split(line)[1:]
        assert parse(name, "", words)
    codes = set(re.findall(r"^\| (\d+) \|", text, re.M))
    assert codes == set(re.findall(r"^ +(\d+)  ", OVERVIEW, re.M)) | set(re.findall(r"; +(\d+)  ", OVERVIEW))
    assert all(f"| `{name}` |" in text for name in COMMANDS)


def test_scores_are_those_of_other_libraries():
    rng = np.random.default_rng(0)
    p, weight = rng.integers(0, 20, 500) / 20, rng.uniform(0.5, 2, 500)
    y = (rng.random(500) < p).astype(float)
    false, true = judging.roc(p, y, weight)
    assert_close(np.trapezoid(true, false), sklearn.metrics.roc_auc_score(y, p, sample_weight=weight), 500)
    rows = judging.calibration(p, y, np.ones(500))["calibration"]
    for (mean, share, low, high), tenth in zip(rows, np.array_split(np.argsort(p, kind="stable"), 10)):
        test = scipy.stats.binomtest(int(y[tenth].sum()), len(tenth)).proportion_ci(method="wilson")
        assert_close(np.array([mean, share, low, high]), [p[tenth].mean(), y[tenth].mean(), test.low, test.high], 50)


def test_scores_are_weighted_and_have_no_value_where_there_is_none():
    net = lr_nn.linear_regression(1)
    params = (lr_nn.types.Layer(np.ones((1, 1)), np.zeros(1)),)
    x, y, weight = np.arange(4.0)[:, None], np.array([0.0, 2, 2, 9]), np.array([1.0, 2, 3, 0])
    found = judging.judge(net, params, data.Arrays(x, y, weight))
    expected = sklearn.metrics.r2_score(y, x[:, 0], sample_weight=weight)
    assert_close(found["r2"], expected)
    assert_close(found["rmse"], np.sqrt(2 / 6))
    alone = judging.judge(lr_nn.logistic_regression(1), params, data.Arrays(x, np.ones(4)))
    assert np.isnan(alone["auc"]) and np.isfinite(alone["log_loss"])
