"""An experiment is a record: complete, reproducible from its config.json, never overwritten silently."""

import gzip
import json
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lr_nn
from experiments import compare, data, runner
from experiments.__main__ import EXPERIMENTS, main, question
from experiments.ladder.rungs import Protocol, load
from lr_nn import Batch
from tests.tolerances import tolerance

ROOT = Path(__file__).resolve().parents[1]
PARAMETERS = {3: 10 * 65, 4: 11, 5: 4 * 65 + 5, 6: 20 * 65 + 7 * 21 + 5 * 8 + 6}


def ladder(*arguments):
    """Run the ladder in few steps. Adam of optax fails strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        return main(["ladder", "--steps", "20", "--repeats", "1", *map(str, arguments)])


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def summaries(folder):
    return {line["rung"]: line for line in lines(folder) if line["kind"] == "rung"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a ladder on the default data, with every kind of target and of depth (rung 2 has its own test)."""
    folder = tmp_path_factory.mktemp("ladder") / "run"
    assert ladder("--rungs", *PARAMETERS, "--out", folder) == 0
    return folder


def test_a_run_leaves_its_record_its_figures_and_its_report(folder):
    written = {"config.json", "metrics.jsonl", "report.html", "summary.json", "figures"}
    assert {path.name for path in folder.iterdir()} == written
    figures = {path.name for path in (folder / "figures").iterdir()}
    kinds = ("cost", "predictions", "weights")
    assert figures == {"depths.png", *(f"rung{number}_{kind}.png" for number in PARAMETERS for kind in kinds)}
    config = json.loads((folder / "config.json").read_text())
    assert config["experiment"] == "ladder" and config["options"]["seed"] == 0
    assert config["versions"]["jax"] == jax.__version__ and config["device"]["platform"] == "cpu"


def test_every_rung_is_in_the_record_with_its_parameters_scores_and_times(folder):
    found = summaries(folder)
    assert {number: rung["parameters"] for number, rung in found.items()} == PARAMETERS
    for rung in found.values():
        assert rung["cost"]["end"] < rung["cost"]["start"] and rung["status"] == "completed"
        assert all(seconds > 0 for seconds in rung["step_seconds"].values())
        curve = [line for line in lines(folder) if line["kind"] == "cost" and line["rung"] == rung["rung"]]
        assert curve[0]["cost"] == pytest.approx(rung["cost"]["start"])
        assert {line["part"] for line in curve} == {"training", "test"}
    scores = found[4]["scores"]["test"]
    assert scores["r2"] <= 1 and scores["rmse"] > 0
    assert all(0 <= found[number]["scores"]["test"]["accuracy"] <= 1 for number in (3, 5, 6))


def test_the_gradient_written_by_hand_differs_from_autodiff_by_rounding(folder):
    for rung in summaries(folder).values():
        assert 0 < rung["gradient"]["relative"] < tolerance(np.float32, 1438)


class Page(HTMLParser):
    """What a page refers to, its headings, and its pictures."""

    def __init__(self, text):
        super().__init__()
        self.references, self.headings, self.alts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.references += [values[name] for name in ("src", "href", "action", "data", "poster") if name in values]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.alts.append(values.get("alt", ""))


def test_the_report_needs_no_other_file(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert page.headings[0] == 1 and set(page.headings[1:]) == {2}
    assert len(page.alts) == len(list((folder / "figures").iterdir())) and all(map(str.strip, page.alts))


def test_a_run_can_be_repeated_from_its_config(folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert ladder("--rungs", 2, 4, "--seed", 3, "--out", first) == 0
    with jax.numpy_dtype_promotion("standard"):
        assert main(["ladder", "--config", str(first / "config.json"), "--out", str(second)]) == 0

    def without_times(folder):
        return [{key: value for key, value in line.items() if key != "step_seconds"} for line in lines(folder)]

    assert without_times(first) == without_times(second)
    assert summaries(first)[4]["cost"] != summaries(folder)[4]["cost"], "the seed had no effect"


def test_a_folder_that_holds_a_run_is_refused_and_left_alone(folder, capsys):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert ladder("--out", folder) == 2
    message = capsys.readouterr().err
    assert "already holds a run" in message and "--out" in message and "--overwrite" in message
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_overwriting_replaces_the_run_and_nothing_else(tmp_path):
    (tmp_path / "figures").mkdir()
    for name in ("metrics.jsonl", "figures/old.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    run = runner.Run("ladder", runner.Options(out=tmp_path, overwrite=True))
    run.record(value=np.float32("nan"), path=Path("x"), array=np.arange(2))
    assert lines(tmp_path) == [{"value": None, "path": "x", "array": [0, 1]}]
    assert not (tmp_path / "figures/old.png").exists() and (tmp_path / "notes.txt").read_text() == "old"


def test_a_pipe_gets_the_tables_and_nothing_else(tmp_path, capsys):
    assert ladder("--rungs", 4, "--out", tmp_path / "run") == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    assert out.startswith("The ladder on handwritten digits") and out.count("4 regression") == 3
    assert max(map(len, out.splitlines())) <= 80


def test_unknown_names_and_values_are_answered_with_the_known_ones(tmp_path, capsys):
    assert main(["laddr"]) == 2
    message = capsys.readouterr().err
    assert "laddr" in message and all(question(module) in message for module in EXPERIMENTS.values())
    with pytest.raises(SystemExit) as stop:
        ladder("--data", "dogs", "--out", tmp_path / "run")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and all(word in message for word in ("dogs", "digits", "cat", "mnist"))
    assert ladder("--steps", 0, "--out", tmp_path / "run") == 2 and "--steps must be" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_missing_data_say_how_to_set_their_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LR_NN_DATA", raising=False)
    for arguments in (("--data", "cat"), ("--data", "mnist", "--data-dir", tmp_path / "nowhere")):
        assert ladder(*arguments, "--out", tmp_path / "run") == 2
        message = capsys.readouterr().err
        assert all(word in message for word in ("--data-dir", "LR_NN_DATA", "--data digits"))
    assert ladder("--data", "cat", "--data-dir", tmp_path, "--out", tmp_path / "run") == 2
    assert "no file train_catvnoncat.h5" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "a run that cannot start leaves nothing behind"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not the config.json of a run"),
        ('{"experiment": "other", "options": {}}', "is of another experiment"),
        ('{"experiment": "ladder", "options": {"speed": 1}}', "does not know: speed"),
        ('{"experiment": "ladder", "options": {"overwrite": true}}', "does not know: overwrite"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(tmp_path, capsys, content, message):
    (tmp_path / "config.json").write_text(content)
    assert ladder("--config", tmp_path / "config.json", "--out", tmp_path / "run") == 2
    assert message in capsys.readouterr().err


def test_options_given_beside_a_config_win_and_its_own_are_kept(tmp_path):
    kind = import_module(EXPERIMENTS["ladder"]).Options
    path = tmp_path / "config.json"
    stored = {"data": "mnist", "seed": 7, "rungs": [2, 3], "steps": None, "data_dir": "somewhere"}
    path.write_text(json.dumps({"experiment": "ladder", "options": stored}))
    options = runner.parse("ladder", kind, ["--config", str(path), "--seed", "8"], "")
    assert (options.data, options.seed, options.rungs, options.steps) == ("mnist", 8, (2, 3), None)
    assert options.data_dir == Path("somewhere") and options.out == Path("runs/ladder") and not options.overwrite


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_help_imports_nothing_heavy(name):
    program = (
        "import sys\nfrom experiments.__main__ import main\n"
        f"try: main([{name!r}, '--help'])\nexcept SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'jax', 'matplotlib', 'numpy', 'sklearn', 'lr_nn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--seed" in done.stdout and "LR_NN_DATA" in done.stdout


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_what_the_runner_asks_for(name):
    experiment = import_module(EXPERIMENTS[name])
    assert issubclass(experiment.Options, runner.Options) and is_dataclass(experiment.Options)
    assert all(field.default is not None or "None" in str(field.type) for field in fields(experiment.Options))
    assert callable(experiment.main) and 0 < len(question(EXPERIMENTS[name])) <= 78


def test_distances_between_gradients_are_those_that_were_put_there(monkeypatch):
    net = lr_nn.softmax_regression(4, 3)
    rng = np.random.default_rng(0)
    batch = Batch(jnp.asarray(rng.normal(size=(9, 4)), jnp.float32), jnp.asarray(rng.integers(0, 3, 9)))
    params = compare.random_point(net, seed=0)
    honest = compare.gradient_difference(net, params, batch)
    assert honest.relative < tolerance(np.float32, 9) and honest.hand_ulp < 20 and honest.autodiff_ulp < 20

    def wrong(net, params, batch):
        value, gradient = compare.by_autodiff(net, params, batch)
        return value, jax.tree.map(lambda leaf: leaf * jnp.float32(1 + 2**-10), gradient)

    monkeypatch.setattr(compare, "by_hand", wrong)
    found = compare.gradient_difference(net, params, batch)
    assert found.relative == pytest.approx(2**-10, rel=1e-3)
    # 2⁻¹⁰ of a float32 is between 2¹³ and 2¹⁴ of its units in the last place.
    assert 2**13 * 0.99 < found.hand_ulp < 2**14 * 1.01 and found.autodiff_ulp == honest.autodiff_ulp


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(length).to_bytes(4, "big") for length in array.shape)
    content = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_part(folder, part, n, suffix, seed):
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)
    write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
    write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return images.reshape(n, -1), labels


@pytest.mark.parametrize(("part", "suffix"), [("t10k", ".gz"), ("train", "")])
def test_one_part_of_idx_images_is_split_without_losing_or_mixing_rows(tmp_path, part, suffix):
    images, labels = write_part(tmp_path, part, 20, suffix, seed=0)
    found = data.mnist(tmp_path, seed=1)
    assert (len(found.train.x), len(found.test.x)) == (16, 4)
    x, y = (np.concatenate(pair) for pair in zip(found.train, found.test))
    rows = {row.tobytes(): label for row, label in zip(np.rint(x * 255).astype(int), y)}
    assert rows == {row.tobytes(): label for row, label in zip(images, labels)}
    again, other = data.mnist(tmp_path, seed=1), data.mnist(tmp_path, seed=2)
    assert (again.test.y == found.test.y).all() and not np.array_equal(other.test.x, found.test.x)


def test_both_parts_of_idx_images_keep_the_published_split(tmp_path):
    _, train = write_part(tmp_path, "train", 6, "", seed=0)
    _, test = write_part(tmp_path, "t10k", 4, ".gz", seed=1)
    found = data.mnist(tmp_path, seed=0)
    assert (found.train.y == train).all() and (found.test.y == test).all()


def test_a_broken_idx_file_is_refused_by_name(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    write_idx(path, np.zeros((2, 3, 3)))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(runner.UserError, match=r"states the shape \(2, 3, 3\) but holds 17 bytes"):
        data.idx(path)
    path.write_bytes(b"PNG not IDX")
    with pytest.raises(runner.UserError, match="not an IDX file"):
        data.idx(path)


def test_the_three_labels_of_a_digit_are_even_prime_and_loop():
    tasks = load("digits", None, seed=0)
    digit, labels = tasks[3].train.y, tasks[2].train.y
    even, prime, loop = {0, 2, 4, 6, 8}, {2, 3, 5, 7}, {0, 6, 8, 9}
    expected = [[d in even, d in prime, d in loop] for d in range(10)]
    assert set(digit) == set(range(10)) and (labels == np.array(expected)[digit]).all()
    assert (tasks[1].train.y == labels[:, 0]).all() and tasks[1].names[1] == "even"


def test_training_data_alone_set_the_scale_of_the_regression():
    patients = data.diabetes(seed=0)
    np.testing.assert_allclose(patients.train.x.mean(axis=0), 0, atol=tolerance(np.float32, len(patients.train.x)))
    np.testing.assert_allclose(patients.train.x.std(axis=0), 1, rtol=tolerance(np.float32, len(patients.train.x)))
    assert abs(patients.test.x.mean(axis=0)).max() > 0.01
    y = patients.test.y * patients.scale + patients.mean
    assert len(patients.features) == 10 and np.abs(y - np.rint(y)).max() < 0.01 and y.min() >= 25


def test_a_shortened_protocol_keeps_whole_epochs():
    assert Protocol("sgd", 0.1, 100).shortened(7, n=50).epochs == 7
    assert Protocol("sgd", 0.1, 100, 8).shortened(8, n=50).epochs == 2
    assert Protocol("sgd", 0.1, 3).shortened(7, n=50).epochs == 3
