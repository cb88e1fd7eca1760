"""A training that was cut anywhere and resumed is the training that nobody disturbed, to the last bit."""

import json
import os
import shutil
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lr_nn
from benchmarks import scale_kill
from lr_nn import Batch, losses, penalties
from lr_nn.data import Arrays
from lr_nn.training import Checkpoints, DamagedError, ForeignError, NotSavedError, checkpoints, loop

NET = lr_nn.mlp((5, 4, 3), loss=losses.categorical)
N, SIZE = 23, 4
PER_EPOCH = 6
SGD = optax.sgd(0.3, momentum=0.9)
NEVER = 1e9


@pytest.fixture(autouse=True)
def single_steps(monkeypatch):
    """One step in a call, so that a training can be cut after any."""
    monkeypatch.setattr(loop.Run, "chunk_seconds", 0.0)


def batch(seed=0, weighted=False):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(N, 5)).astype(np.float32), rng.integers(0, 3, N)
    return Batch(x, y, rng.uniform(0.5, 2, N) if weighted else None)


def train(folder=None, *, net=NET, data=None, dtype=np.float32, cut=None, kept=None, **changed):
    """Three epochs of mini-batches, cut by Ctrl-C after step `cut`."""

    def progress(told):
        if told.step == cut:
            raise KeyboardInterrupt

    options = {
        "optimizer": SGD,
        "epochs": 3,
        "batch_size": SIZE,
        "key": jax.random.key(1),
        "penalty": penalties.l2(0.01),
        "checkpoints": None if folder is None else Checkpoints(folder, **({"every": NEVER} | (kept or {}))),
        "progress": progress,
    }
    params = lr_nn.init(net, jax.random.key(0), dtype)
    with jax.numpy_dtype_promotion("standard"):  # Adam and some schedules fail the strict rules
        return lr_nn.train(net, params, batch() if data is None else data, **(options | changed))


def numbers(tree):
    leaves = (
        jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        for leaf in jax.tree.leaves(tree)
    )
    return [np.asarray(leaf) for leaf in leaves]


def assert_equal(found, expected):
    """Equal to the last bit in all that a training leaves."""
    assert (found.status, found.message, found.steps) == (expected.status, expected.message, expected.steps)
    assert found.history.keys() == expected.history.keys()
    for part in ("params", "opt_state", "history"):
        mine, theirs = getattr(found, part), getattr(expected, part)
        assert jax.tree.structure(mine) == jax.tree.structure(theirs)
        for a, b in zip(numbers(mine), numbers(theirs), strict=True):
            assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def cut_and_resumed(folder, cut, **changed):
    interrupted = train(folder, cut=cut, **changed)
    assert interrupted.status == "interrupted" and interrupted.signal == "SIGINT"
    (left,) = checkpoints.steps(folder)
    assert left.name == f"step_{cut - 1:012d}", "the last step whose cost is known to be finite"
    return train(folder, resume=True, **changed)


SCHEDULE = optax.sgd(optax.cosine_decay_schedule(0.3, 20))
INJECTED = optax.inject_hyperparams(optax.sgd)(learning_rate=optax.linear_schedule(0.3, 0.1, 10))
NOISY = optax.noisy_sgd(0.1, key=jax.random.key(3))
# Its state has the types of Python numbers, which take that of what they meet: a rate, and a factor made anew.
WEAK = optax.GradientTransformation(
    lambda params: (jnp.asarray(0.3), jnp.asarray(0.7)),
    lambda gradient, state, params=None: (
        jax.tree.map(lambda g: -state[0] * (state[1] * g), gradient),
        (state[0] * 0.9, jnp.asarray(0.7)),
    ),
)
WAYS = {
    "momentum, at the end of an epoch": {"cut": 7},
    "a schedule": {"optimizer": SCHEDULE, "cut": 9},
    "injected rates": {"optimizer": INJECTED, "cut": 4},
    "a key in the state": {"optimizer": NOISY, "cut": 5},
    "all rows at once": {"batch_size": None, "key": None, "cut": 2},
    "an old-style key": {"key": jax.random.PRNGKey(7), "cut": 14},
    "weights": {"data": batch(weighted=True), "cut": 8},
    "a weak type in the state": {"optimizer": WEAK, "dtype": jnp.bfloat16, "cut": 6},
    "bfloat16": {"dtype": jnp.bfloat16, "cut": 10},
    "early stopping": {"validation": batch(5), "patience": 1, "epochs": 9, "optimizer": optax.sgd(3.0), "cut": 10},
}


@pytest.mark.parametrize("rows", [False, True], ids=["arrays", "rows"])
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_cut_and_resumed_it_is_the_uninterrupted_training(tmp_path, way, rows):
    data = way.get("data", batch())
    way = way | {"data": Arrays(*data) if rows else data}
    way["batch_size"] = N if rows and way.get("batch_size", 1) is None else way.get("batch_size", SIZE)
    expected = train(**(way | {"cut": None}))
    assert_equal(cut_and_resumed(tmp_path, **way), expected)
    assert_equal(train(tmp_path, resume=True, **(way | {"cut": None})), expected)


@pytest.mark.parametrize("rows", [False, True], ids=["arrays", "rows"])
def test_so_it_is_in_float64_and_under_adam(tmp_path, rows):
    data = Arrays(*batch()) if rows else batch()
    with jax.enable_x64(True):
        way = {"dtype": np.float64, "optimizer": optax.adam(0.05), "data": data}
        expected = train(**way)
        assert_equal(cut_and_resumed(tmp_path, 11, **way), expected)


def test_it_may_be_cut_at_every_step_one_after_the_other(tmp_path):
    expected = train(epochs=2)
    train(tmp_path, epochs=2, cut=2)
    for step in range(3, 13):
        train(tmp_path, epochs=2, cut=step, resume=True)
    assert_equal(train(tmp_path, epochs=2, resume=True), expected)


def test_more_epochs_than_before_go_on(tmp_path):
    train(tmp_path, epochs=2)
    assert_equal(train(tmp_path, epochs=4, resume=True), train(epochs=4))
    with pytest.raises(ValueError, match=r"at step 24, beyond 3 epochs of 6 steps"):
        train(tmp_path, epochs=3, resume=True)


@pytest.mark.parametrize("cut", [2, None])
def test_a_training_that_fails_fails_the_same_way_after_it(tmp_path, cut):
    """No checkpoint is of parameters whose cost is not finite, wherever the cut is."""
    way = {"net": lr_nn.linear_regression(5), "data": Batch(batch().x, batch().x.sum(axis=1)), "penalty": None}
    way |= {"optimizer": optax.sgd(50.0), "epochs": 200}
    expected = train(**way)
    assert expected.status == "non_finite" and expected.steps > 4
    for end in (expected.steps - 1, expected.steps, expected.steps + 1) if cut is None else (cut,):
        shutil.rmtree(tmp_path)
        found = train(tmp_path, cut=end, **way)
        assert found.status == ("interrupted" if end <= expected.steps + 1 else "non_finite")
        assert_equal(train(tmp_path, resume=True, **way), expected)
        assert_equal(train(tmp_path, resume=True, **way), expected)


def test_the_end_of_a_training_that_would_fail_next_can_be_gone_on_from(tmp_path):
    way = {"net": lr_nn.linear_regression(5), "data": Batch(batch().x, batch().x.sum(axis=1)), "penalty": None}
    way |= {"optimizer": optax.sgd(50.0), "batch_size": None, "key": None}
    expected = train(epochs=200, **way)
    ended = train(tmp_path, epochs=expected.steps + 1, **way)
    assert ended.status == "completed"
    assert_equal(train(tmp_path, epochs=200, resume=True, **way), expected)


def test_the_newest_are_kept_and_hold_the_best_so_far(tmp_path):
    way = {"validation": batch(5), "optimizer": optax.sgd(3.0), "epochs": 3}
    found = train(tmp_path, kept={"every": 0, "keep": 2}, **way)
    costs = found.history["validation_cost"]
    assert [path.name for path in checkpoints.steps(tmp_path)] == ["step_000000000018", "step_000000000017"]
    saved = checkpoints.newest(tmp_path)
    best = tuple(lr_nn.Layer(saved.arrays[f"best/params[{i}].w"], saved.arrays[f"best/params[{i}].b"]) for i in (0, 1))
    assert float(lr_nn.cost(NET, best, batch(5))) == pytest.approx(costs.min(), rel=1e-6)
    assert saved.record["epoch"] == 3 and saved.record["position"] == 0
    assert saved.record["versions"]["jax"] == jax.__version__


def test_resuming_from_nothing_starts(tmp_path):
    assert_equal(train(tmp_path / "new", resume=True), train())


def test_the_start_is_not_written_over(tmp_path):
    train(tmp_path, cut=5)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="step_000000000004: go on from it with resume=True"):
        train(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


FOREIGN = {
    "network": {"net": lr_nn.mlp((5, 4, 3), lr_nn.activations.tanh, losses.categorical)},
    "width": {"net": lr_nn.mlp((5, 6, 3), loss=losses.categorical)},
    "data": {"data": batch(1)},
    "rows": {"data": Arrays(*batch())},
    "validation data": {"validation": batch(1)},
    "batch size": {"batch_size": 5},
    "key": {"key": jax.random.key(2)},
    "penalty": {"penalty": None},
    "optimiser": {"optimizer": optax.sgd(0.2, momentum=0.9)},
    "kind of optimiser": {"optimizer": optax.sgd(0.3)},
    "schema": {"kept": {"schema": {"columns": ["a"]}}},
    "dtype": {"dtype": jnp.bfloat16},
}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A folder with one checkpoint: to be copied."""
    folder = tmp_path_factory.mktemp("one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "chunk_seconds", 0.0)
        train(folder, cut=5)
    return folder


@pytest.mark.parametrize("change", FOREIGN.values(), ids=list(FOREIGN))
def test_a_checkpoint_of_another_training_is_refused(tmp_path, one, change):
    folder = shutil.copytree(one, tmp_path / "copy")
    with pytest.raises(ForeignError, match="another"):
        train(folder, resume=True, **change)
    with pytest.raises(ForeignError, match="another"):
        train(folder, resume=True, **(change | {"kept": change.get("kept", {}) | {"fall_back": True}}))


def test_a_schema_goes_along(tmp_path):
    schema = {"columns": ("age", "town"), "reference": {"town": "Ulm"}}
    train(tmp_path, cut=3, kept={"schema": schema})
    assert checkpoints.newest(tmp_path).record["config"]["schema"] == json.loads(json.dumps(schema))
    assert train(tmp_path, resume=True, kept={"schema": schema}).status == "completed"


@pytest.mark.parametrize(("number", "message"), [(0, "an older format, 0"), (2, "a newer format, 2.*update lr_nn")])
def test_another_format_is_refused(tmp_path, one, number, message):
    folder = shutil.copytree(one, tmp_path / "copy")
    (path,) = checkpoints.steps(folder)
    _, _, body = (path / "record.json").read_bytes().partition(b"\n")
    body = json.dumps(json.loads(body) | {"format": number}).encode()
    (path / "record.json").write_bytes(checkpoints._digest(body).encode() + b"\n" + body)
    with pytest.raises(ForeignError, match=message):
        train(folder, resume=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two checkpoints, of steps 3 and 4: to be copied."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Run, "chunk_seconds", 0.0)
        train(folder, cut=4)
        train(folder, cut=5, resume=True)
    return folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _flipped(path, at=0.5, bit=0):
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)


def test_every_file_that_is_changed_is_named_and_refused(tmp_path, two):
    folder = shutil.copytree(two, tmp_path / "copy")
    newest, older = checkpoints.steps(folder)
    whole = {name: (newest / name).read_bytes() for name in files(newest)}
    assert len(whole) > 5

    def refused(name):
        with pytest.raises(DamagedError, match="is damaged") as raised:
            checkpoints.read(newest)
        assert name in str(raised.value) and newest.name in str(raised.value)

    for name, content in whole.items():
        path = newest / name
        harm = [content[:-1], content[: len(content) // 2], b"", content + b"\0"]
        harm += [other for other in whole.values() if other != content]
        twin = [old for old in files(older) if Path(old).name == path.name]
        harm += [(older / old).read_bytes() for old in twin if (older / old).read_bytes() != content]
        for changed in harm:
            path.write_bytes(changed)
            refused(name)
        for at in (0, 0.3, 0.6, 1):
            path.write_bytes(content)
            _flipped(path, at, bit=int(10 * at) % 8)
            refused(name)
        path.unlink()
        refused(name)
        path.write_bytes(content)
    (newest / "arrays" / "more").write_bytes(b"1")
    refused("more")
    (newest / "arrays" / "more").unlink()
    assert checkpoints.read(newest).record["step"] == 4


@given(at=st.floats(0, 1), bit=st.integers(0, 7), which=st.integers(0, 100))
def test_any_flipped_bit_is_seen(two, at, bit, which):
    (newest, _) = checkpoints.steps(two)
    names = files(newest)
    path = newest / names[which % len(names)]
    content = path.read_bytes()
    try:
        _flipped(path, at, bit)
        with pytest.raises(DamagedError, match=path.name):
            checkpoints.read(newest)
    finally:
        path.write_bytes(content)


def test_arrays_that_come_back_as_others_are_refused(two, monkeypatch):
    """Whatever orbax, or the memory of this machine, makes of files that are whole."""
    (newest, _), restore = checkpoints.steps(two), checkpoints._restore
    monkeypatch.setattr(
        checkpoints, "_restore", lambda *args: {n: a + (n == "costs") for n, a in restore(*args).items()}
    )
    with pytest.raises(DamagedError, match="costs is not what was written"):
        checkpoints.read(newest)


def test_two_checkpoints_that_change_places_are_refused(tmp_path, two):
    folder = shutil.copytree(two, tmp_path / "copy")
    newest, older = checkpoints.steps(folder)
    newest.rename(folder / "away")
    older.rename(newest)
    with pytest.raises(DamagedError, match=r"record.json is of step 3"):
        train(folder, resume=True)


def test_a_damaged_one_is_named_and_the_last_good_one_used_when_asked(tmp_path, two):
    folder = shutil.copytree(two, tmp_path / "copy")
    newest, older = checkpoints.steps(folder)
    _flipped(newest / "record.json")
    with pytest.raises(DamagedError, match=rf"{newest.name}.*{older.name}.*fall_back=True"):
        train(folder, resume=True)
    assert_equal(train(folder, resume=True, kept={"fall_back": True, "every": 0, "keep": 99}), train())
    names = {path.name for path in folder.iterdir()}
    assert {f"damaged_{newest.name}", newest.name, older.name} < names, "kept for inspection, and written anew"


def test_where_none_is_whole_nothing_is_used(tmp_path, two):
    folder = shutil.copytree(two, tmp_path / "copy")
    for path in checkpoints.steps(folder):
        (path / "record.json").unlink()
    with pytest.raises(DamagedError, match="no checkpoint is left whole"):
        train(folder, resume=True, kept={"fall_back": True})


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, one):
    folder = shutil.copytree(one, tmp_path / "copy")
    shutil.copytree(checkpoints.steps(folder)[0], folder / ".writing_000000000009")
    (folder / ".old_step_000000000001").mkdir()
    assert_equal(train(folder, resume=True), train())
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".lock"}


def test_a_folder_that_cannot_be_written_to_is_told_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    seen = []
    with pytest.raises(OSError, match=r"checkpoints cannot be written to .*file"):
        train(tmp_path / "file" / "folder", progress=seen.append)
    assert not seen


def test_a_full_disk_is_told_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1000, 999, 1))
    with pytest.raises(OSError, match="need more room than there is"):
        train(tmp_path)


def test_a_folder_is_of_one_training_at_a_time(tmp_path):
    with checkpoints.claim(tmp_path), pytest.raises(OSError, match="another training writes"):
        train(tmp_path)
    assert train(tmp_path).status == "completed"


def test_a_disk_that_fills_up_ends_the_training_with_all_that_there_is(tmp_path):
    import resource  # of Unix

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills(told):
        if told.step == 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))

    try:
        with pytest.raises(NotSavedError, match="the checkpoint of step 7 could not be written") as raised:
            train(tmp_path, kept={"every": 0}, progress=fills)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    error = raised.value
    assert isinstance(error, OSError) and "resume=True goes on from step 6" in str(error)
    assert error.training.status == "interrupted" and error.training.steps == 8
    assert [path.name for path in tmp_path.glob("*")] != [] and not list(tmp_path.glob(".writing*"))
    for path in checkpoints.steps(tmp_path):
        checkpoints.read(path)
    assert_equal(train(tmp_path, resume=True), train())


def test_an_error_in_reading_leaves_a_checkpoint(tmp_path):
    class Torn(Arrays):
        def __init__(self, data):
            super().__init__(*data)
            object.__setattr__(self, "reads", [])

        def read(self, start, stop):
            self.reads.append(start)
            if len(self.reads) == 20:
                raise OSError("the disk is gone for a moment")
            return super().read(start, stop)

    with pytest.raises(OSError, match="for a moment"):
        train(tmp_path, data=Torn(batch()))
    assert len(checkpoints.steps(tmp_path)) == 1
    assert_equal(train(tmp_path, data=Arrays(*batch()), resume=True), train(data=Arrays(*batch())))


@pytest.fixture
def heard():
    """Ctrl-C as a terminal has it: what runs in the background is often started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_a_checkpoint_and_an_end(tmp_path, heard, name):
    number, before = signal.Signals[name], signal.getsignal(signal.Signals[name])

    def send(told):
        if told.step == 5:
            os.kill(os.getpid(), number)

    found = train(tmp_path, progress=send)
    assert (found.status, found.signal, found.steps) == ("interrupted", name, 5)
    assert name in found.message and "resume=True goes on from step 4" in found.message
    assert signal.getsignal(number) is before
    assert_equal(train(tmp_path, resume=True), train())


def test_a_second_signal_ends_at_once(tmp_path, heard):
    def send(told):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("still there")

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, progress=send)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_train_with_checkpoints_too(tmp_path):
    found = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path)))
    thread.start()
    thread.join(60)
    assert_equal(found[0], train())


def test_without_orbax_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[checkpoints\]"'):
        train(tmp_path)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"every": -1}, {"every": "day"}, {"schema": {1, 2}}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="must be"):
        replace(Checkpoints("folder"), **wrong)


@pytest.mark.parametrize("kind", scale_kill.KINDS)
def test_killed_while_it_trains_and_writes_it_goes_on_to_the_same_end(tmp_path, kind):
    for delay in (0.15, 0.4) if kind == scale_kill.KINDS[0] else (0.3,):
        scale_kill.killed(tmp_path, kind, delay)
    resumed, undisturbed = scale_kill.ended(tmp_path, kind)
    assert resumed == undisturbed
