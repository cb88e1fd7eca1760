"""Models come back bit for bit or not at all, and an export predicts what the model does."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from cases import ACTIVATIONS, LOSSES, network, on_device, parameters
from tolerances import assert_close

import lr_nn
from lr_nn import activations, data, losses
from lr_nn.activations import Activation
from lr_nn.cli import options
from lr_nn.losses.separable import SquaredError
from lr_nn.model_files import architecture, arrays, record
from lr_nn.model_files.architecture import describe

SHAPES = [*itertools.product(ACTIVATIONS, LOSSES, [True]), ("relu", "bernoulli", False), ("step", "categorical", False)]
every_network = pytest.mark.parametrize(("activation", "loss", "bias"), SHAPES)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
CONTAINERS = ["safetensors", "npz"]


def bits(params):
    """The dtype, shape and bytes of every leaf."""
    return [(leaf.dtype, leaf.shape, np.asarray(leaf).tobytes()) for leaf in jax.tree.leaves(params)]


@pytest.fixture(params=CONTAINERS)
def container(request, monkeypatch):
    if request.param == "npz":
        monkeypatch.setattr(arrays, "find_spec", lambda name: None)
    return request.param


@pytest.fixture
def saved(tmp_path, container):
    """A model on disk, with what was saved."""
    net = lr_nn.mlp((4, 5, 3), activations.leaky_relu(0.125), losses.categorical)
    params = parameters(net, np.float32)
    lr_nn.save_model(tmp_path / "model", net, params, facts={"rows": 7})
    return tmp_path / "model", net, params


@every_network
def test_every_architecture_comes_back(tmp_path, activation, loss, bias):
    net = network(loss, activation, 3, bias).net
    params = parameters(net, np.float32)
    lr_nn.save_model(tmp_path / "model", net, params)
    model = lr_nn.load_model(tmp_path / "model")
    assert model.net == net and bits(model.params) == bits(params)
    assert jax.tree.structure(model.params) == jax.tree.structure(params)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_come_back_bit_for_bit(tmp_path, container, dtype):
    net = lr_nn.mlp((4, 5, 1))
    params = parameters(net, jnp.dtype(dtype))
    params[0].w[:3, 0] = [np.nan, -0.0, np.inf]
    lr_nn.save_model(tmp_path / "model", net, params)
    model = lr_nn.load_model(tmp_path / "model")
    assert bits(model.params) == bits(params)
    assert [path.suffix[1:] for path in (tmp_path / "model").glob("parameters-*")] == [container]
    assert all(leaf.flags.writeable for leaf in jax.tree.leaves(model.params))


def test_a_model_on_devices_is_saved_as_it_is_on_the_host(tmp_path):
    net = lr_nn.mlp((4, 5, 1))
    params = parameters(net, np.float32)
    lr_nn.save_model(tmp_path / "host", net, params)
    lr_nn.save_model(tmp_path / "device", net, on_device(params))
    assert contents(tmp_path / "host") == contents(tmp_path / "device")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loaded_model_predicts_what_the_saved_one_does_in_the_dtype_of_its_parameters(tmp_path, dtype):
    net = lr_nn.mlp((4, 5, 3), activations.tanh, losses.poisson)
    params = parameters(net, dtype)
    lr_nn.save_model(tmp_path / "model", net, params)
    x, offset = np.random.default_rng(1).normal(size=(2, 7, 4))
    got = lr_nn.load_model(tmp_path / "model").predict(x, offset[:, :3])
    assert isinstance(got, np.ndarray) and got.dtype == dtype
    with jax.enable_x64(True):
        expected = np.exp(np.asarray(lr_nn.forward(net, on_device(params), x).eta) + offset[:, :3].astype(dtype))
    assert_close(got, expected, 5)


def test_inputs_that_do_not_fit_are_refused(saved):
    folder, _, _ = saved
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4\); got \(7, 5\)"):
        lr_nn.load_model(folder).predict(np.zeros((7, 5)))
    with pytest.raises(ValueError, match="offset must have the shape of eta"):
        lr_nn.load_model(folder).predict(np.zeros((7, 4)), np.zeros(7))


def test_facts_come_back_as_json_has_them(tmp_path):
    facts = {"rows": 3, 10: "ten", 9: ("a", 0.1, None), "größe": "γ"}
    net = lr_nn.linear_regression(2)
    lr_nn.save_model(tmp_path / "model", net, parameters(net), facts=facts)
    assert lr_nn.load_model(tmp_path / "model").facts == {"rows": 3, "10": "ten", "9": ["a", 0.1, None], "größe": "γ"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), np.float32(1), "\ud800"])
def test_facts_that_json_does_not_know_are_refused(tmp_path, value):
    net = lr_nn.linear_regression(2)
    with pytest.raises(ValueError, match="facts must be of JSON"):
        lr_nn.save_model(tmp_path / "model", net, parameters(net), facts={"cost": value})
    assert not any(tmp_path.iterdir())


class Cube(Activation):
    """Not of the library."""

    name = "cube"

    def value(self, z):
        return z**3

    def derivative(self, a):
        return a

    def second_derivative(self, a):
        return a


class Relu(Cube):
    """Another function under a name of the library."""

    name = "relu"


@dataclass(frozen=True)
class TwistedError(SquaredError):
    """A subclass of a loss of the library."""


@pytest.mark.parametrize(
    "net",
    [
        lr_nn.mlp((2, 3, 1), Cube()),
        lr_nn.mlp((2, 3, 1), Relu()),
        lr_nn.mlp((2, 3, 1), loss=TwistedError()),
        lr_nn.mlp((2, 3, 1), loss=losses.through(Cube(), losses.bernoulli)),
        lr_nn.mlp((2, 3, 1), loss=losses.through(activations.tanh, TwistedError())),
    ],
)
@pytest.mark.parametrize("save", [lr_nn.save_model, lr_nn.export_onnx])
def test_code_of_the_users_own_is_refused_with_what_to_do(tmp_path, net, save):
    with pytest.raises(TypeError, match="of your own: save the parameters alone"):
        save(tmp_path / "model", net, parameters(net))
    assert not any(tmp_path.iterdir())


def test_parameters_of_another_network_are_refused(tmp_path):
    with pytest.raises(ValueError, match="params do not fit the network"):
        lr_nn.save_model(tmp_path / "model", lr_nn.linear_regression(2), parameters(lr_nn.linear_regression(3)))
    assert not any(tmp_path.iterdir())


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_the_same_model_gives_the_same_bytes(saved):
    folder, net, params = saved
    lr_nn.save_model(folder.with_name("again"), net, params, facts={"rows": 7})
    assert contents(folder) == contents(folder.with_name("again"))


def test_a_model_is_replaced_only_when_asked(saved):
    folder, net, _ = saved
    before = contents(folder)
    (folder / "notes.txt").write_text("mine")
    other = parameters(net, np.float32, seed=1)
    with pytest.raises(FileExistsError, match="ask to overwrite"):
        lr_nn.save_model(folder, net, other)
    assert contents(folder) == before | {"notes.txt": b"mine"}
    lr_nn.save_model(folder, net, other, overwrite=True)
    assert bits(lr_nn.load_model(folder).params) == bits(other)
    assert len(contents(folder)) == 3 and (folder / "notes.txt").read_text() == "mine"


def test_a_folder_that_is_no_model_is_never_written_to(tmp_path):
    net = lr_nn.linear_regression(2)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("work", "file"):
        with pytest.raises(FileExistsError, match="is no model"):
            lr_nn.save_model(tmp_path / name, net, parameters(net), overwrite=True)
    with pytest.raises(FileNotFoundError, match="make it first"):
        lr_nn.save_model(tmp_path / "a" / "b", net, parameters(net))
    assert contents(tmp_path / "work") == {"thesis.tex": b"mine"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=repr)
@pytest.mark.parametrize(("moves", "old"), [*((n, False) for n in range(4)), *((n, True) for n in range(3))])
def test_what_stops_a_save_leaves_the_old_model_or_none(tmp_path, monkeypatch, moves, old, error):
    """Stopped after so many moves of a file to its name: parameters, report, record, folder."""
    net = lr_nn.linear_regression(2)
    folder = tmp_path / "model"
    if old:
        lr_nn.save_model(folder, net, parameters(net))
        before = contents(folder)
    replace, left = os.replace, iter(range(moves))

    def stopped(source, target):
        if next(left, None) is None:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", stopped)
    with pytest.raises(type(error)):
        lr_nn.save_model(folder, net, parameters(net, seed=1), beside={"report.html": b"new"}, overwrite=old)
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if old else [])
    assert not old or contents(folder) == before


@pytest.mark.parametrize("settled", range(1, 9))
@pytest.mark.parametrize("old", [False, True])
def test_an_interruption_at_any_moment_leaves_one_of_two_models(tmp_path, monkeypatch, settled, old):
    """Stopped when so many files and folders were on the disk, also between the last file and the end."""
    net, folder = lr_nn.linear_regression(2), tmp_path / "model"
    first, second = parameters(net), parameters(net, seed=1)
    if old:
        lr_nn.save_model(folder, net, first)
    fsync, left = os.fsync, iter(range(settled))

    def stopped(handle):
        fsync(handle)
        if next(left, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", stopped)
        with suppress(KeyboardInterrupt):
            lr_nn.save_model(folder, net, second, overwrite=old)
    if folder.exists():
        assert bits(lr_nn.load_model(folder).params) in ([bits(first)] if old else []) + [bits(second)]
    else:
        assert not old
    assert [path.name for path in tmp_path.iterdir()] == (["model"] if folder.exists() else [])


def test_files_beside_a_model_belong_to_it(tmp_path):
    net = lr_nn.linear_regression(2)
    lr_nn.save_model(tmp_path / "model", net, parameters(net), beside={"report.html": b"old"})
    assert (tmp_path / "model" / "report.html").read_bytes() == b"old"
    (tmp_path / "model" / "parameters-of-mine.npz").write_bytes(b"mine")
    lr_nn.save_model(tmp_path / "model", net, parameters(net, seed=1), beside={"report.html": b"new"}, overwrite=True)
    found = contents(tmp_path / "model")
    assert found["report.html"] == b"new" and found["parameters-of-mine.npz"] == b"mine" and len(found) == 4
    for name in ("../thesis.tex", "model.json", "a/b", "parameters-000000000000.npz"):
        with pytest.raises(ValueError, match="plain name"):
            lr_nn.save_model(tmp_path / "another", net, parameters(net), beside={name: b""})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_named_with_the_file_that_did_not_fit(tmp_path):
    code = (
        "import resource, signal, sys, numpy as np, lr_nn\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "net = lr_nn.linear_regression(10_000)\n"
        "try:\n"
        "    lr_nn.save_model(sys.argv[1], net, (lr_nn.types.Layer(np.zeros((10_000, 1)), np.zeros(1)),))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model")], capture_output=True, text=True, timeout=300, check=True
    )
    assert "File too large" in done.stdout and f"{tmp_path / 'model'}/parameters-" in done.stdout
    assert not any(tmp_path.iterdir())


def test_a_flipped_bit_of_any_file_is_refused(saved):
    folder, _, _ = saved
    rng = np.random.default_rng(0)
    for path in folder.iterdir():
        whole = path.read_bytes()
        for place in rng.permutation(len(whole))[:200]:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with pytest.raises((ValueError, OSError), match=folder.name):
                lr_nn.load_model(folder)
        path.write_bytes(whole)
    lr_nn.load_model(folder)


def test_a_file_that_is_cut_off_or_grown_or_gone_is_refused_by_name(saved):
    folder, _, _ = saved
    for path in folder.iterdir():
        whole = path.read_bytes()
        for damaged in (b"", whole[:1], whole[: len(whole) // 2], whole[:-1], whole + b"\n"):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{path.name} is damaged"):
                lr_nn.load_model(folder)
        path.unlink()
        with pytest.raises(FileNotFoundError, match=f"{path.name} is missing"):
            lr_nn.load_model(folder)
        path.mkdir()
        with pytest.raises(OSError, match=f"{path.name} cannot be read"):
            lr_nn.load_model(folder)
        path.rmdir()
        path.write_bytes(whole)


def test_files_of_two_models_are_not_one(saved):
    folder, net, _ = saved
    other = folder.with_name("other")
    lr_nn.save_model(other, net, parameters(net, np.float32, seed=1), facts={"rows": 7})
    shutil.copy(other / "model.json", folder.with_name("record"))
    (mine,), (theirs,) = folder.glob("parameters-*"), other.glob("parameters-*")
    shutil.copy(theirs, mine)
    with pytest.raises(ValueError, match=f"{mine.name} is damaged, or of another model"):
        lr_nn.load_model(folder)
    shutil.copy(folder.with_name("record"), folder / "model.json")
    with pytest.raises(FileNotFoundError, match=f"{theirs.name} is missing"):
        lr_nn.load_model(folder)


def forge(folder, **changes):
    """Change a record, and sign it anew."""
    content = json.loads((folder / "model.json").read_text(encoding="utf-8")) | changes
    del content["sha256"]
    (folder / "model.json").write_bytes(record.render(content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has format 2, and lr_nn .* reads format 1: update lr_nn"),
        ({"format": None}, "has format None"),
        ({"kind": "pytorch"}, "of another program"),
        ({"network": None}, "describes no model: expected the entries sizes"),
        ({"network": {"sizes": [4, 5, 3], "hidden": [], "loss": {"name": "bernoulli"}, "bias": True}}, "2|1 hidden"),
        ({"network": {"sizes": [4, 3], "hidden": [], "loss": {"name": "os.system"}, "bias": True}}, "expected one of"),
        ({"network": {"sizes": [4, 3], "hidden": [], "loss": {"name": "poisson"}, "bias": True}}, "not hold the param"),
        ({"network": {"sizes": [4, 3], "hidden": [], "loss": {"name": "poisson"}, "bias": 1}}, "true or false"),
        ({"network": {"sizes": [4, 10**12], "hidden": [], "loss": {"name": "poisson"}, "bias": False}}, "not hold"),
        ({"network": {"sizes": ["4", 3], "hidden": [], "loss": {"name": "poisson"}, "bias": False}}, "integer"),
        ({"parameters": {"file": "pickle", "sha256": "0" * 64, "dtypes": {}}}, "expected a file of safetensors or npz"),
        ({"parameters": {"file": "npz", "sha256": "/../../../etc", "dtypes": {}}}, "expected a file of safetensors"),
        ({"parameters": {"file": "npz", "dtypes": {}}}, "sha256"),
        ({"facts": 3}, "describes no model"),
    ],
)
def test_a_record_that_is_signed_and_wrong_is_refused(saved, change, reason):
    folder, _, _ = saved
    forge(folder, **change)
    with pytest.raises(ValueError, match=reason) as refusal:
        lr_nn.load_model(folder)
    assert folder.name in str(refusal.value)


@pytest.mark.parametrize("slope", ["0.1", True, None, -1.0, [0.1]])
def test_a_slope_that_is_none_is_refused(saved, slope):
    folder, _, _ = saved
    hidden = {"name": "leaky_relu", "slope": slope}
    forge(folder, network=describe(lr_nn.mlp((4, 5, 3), loss=losses.categorical)) | {"hidden": [hidden]})
    with pytest.raises(ValueError, match="describes no model"):
        lr_nn.load_model(folder)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "NaN", "1", "[]", '{"kind": "lr_nn model", "format": NaN}', "\ufeff{}"]
)
def test_json_that_is_no_record_is_refused(saved, text):
    folder, _, _ = saved
    (folder / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"model\.json (is damaged|is of another program|has format nan)"):
        lr_nn.load_model(folder)


def test_arrays_of_python_objects_are_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "it went off",)

    np.savez(tmp_path / "a.npz", w_1=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.unpack("npz", (tmp_path / "a.npz").read_bytes(), {"w_1": "float64"})
    assert not (tmp_path / "it went off").exists()


def test_without_safetensors_its_files_are_refused_with_what_to_install(tmp_path, monkeypatch):
    net = lr_nn.linear_regression(2)
    lr_nn.save_model(tmp_path / "model", net, parameters(net))
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[files\]"'):
        lr_nn.load_model(tmp_path / "model")


def served_inputs(n):
    return np.random.default_rng(2).normal(size=(n, 4)).astype(np.float32)


def run_onnx(path):
    session = onnxruntime.InferenceSession(path)
    return lambda x: session.run(["mean"], {"x": x})[0]


def run_stablehlo(path):
    return jax.export.deserialize(bytearray(path.read_bytes())).call


EXPORTS = {"onnx": (lr_nn.export_onnx, run_onnx), "stablehlo": (lr_nn.export_stablehlo, run_stablehlo)}
every_export = pytest.mark.parametrize("export", EXPORTS)


@every_export
@pytest.mark.parametrize(
    ("activation", "loss", "bias"),
    [*((activation, "bernoulli", True) for activation in ACTIVATIONS), *(("elu", loss, False) for loss in LOSSES)],
)
def test_an_export_predicts_what_the_model_does_for_any_number_of_rows(tmp_path, export, activation, loss, bias):
    net = network(loss, activation, 3, bias).net
    params = parameters(net, np.float32)
    save, run = EXPORTS[export]
    save(tmp_path / "served", net, params)
    served = run(tmp_path / "served")
    for n in (1, 2, 7):
        x = served_inputs(n)
        assert_close(served(x), lr_nn.predict(net, on_device(params), x), length=16)


@every_export
@pytest.mark.parametrize("depth", [1, 6])
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_parameters_of_any_dtype_are_served_in_float32(tmp_path, export, depth, dtype):
    net = lr_nn.Network((4, *[5] * (depth - 1), 3), activations.elu, losses.through(activations.tanh, losses.bernoulli))
    params = parameters(net, jnp.dtype(dtype))
    save, run = EXPORTS[export]
    save(tmp_path / "served", net, params)
    x = served_inputs(3)
    served = run(tmp_path / "served")(x)
    assert served.dtype == np.float32
    assert_close(served, lr_nn.predict(net, on_device(params, jnp.float32), x), length=16 * depth)


@every_export
def test_an_export_replaces_a_file_only_when_asked_and_leaves_nothing_else(tmp_path, export):
    save, run = EXPORTS[export]
    net = lr_nn.softmax_regression(4, 3)
    save(tmp_path / "served", net, parameters(net))
    first = contents(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite"):
        save(tmp_path / "served", net, parameters(net, seed=1))
    assert contents(tmp_path) == first
    save(tmp_path / "served", net, parameters(net, seed=1), overwrite=True)
    assert set(contents(tmp_path)) == set(first)
    x = served_inputs(2)
    assert_close(run(tmp_path / "served")(x), lr_nn.predict(net, on_device(parameters(net, np.float32, 1)), x), 16)
    for wrong, error in ((tmp_path, IsADirectoryError), (tmp_path / "a" / "b", FileNotFoundError)):
        with pytest.raises(error):
            save(wrong, net, parameters(net))


def test_stablehlo_takes_code_of_the_users_own(tmp_path):
    net = lr_nn.mlp((4, 5, 3), Cube(), losses.categorical)
    lr_nn.export_stablehlo(tmp_path / "served", net, parameters(net))
    x = served_inputs(2)
    expected = lr_nn.predict(net, on_device(parameters(net, np.float32)), x)
    assert_close(run_stablehlo(tmp_path / "served")(x), expected, 16)


@every_export
def test_parameters_beyond_float32_are_refused(tmp_path, export):
    net = lr_nn.linear_regression(1)
    with pytest.raises(ValueError, match="w_1, in float32, must be finite"):
        EXPORTS[export][0](tmp_path / "served", net, (lr_nn.types.Layer(np.full((1, 1), 1e39), np.zeros(1)),))
    assert not any(tmp_path.iterdir())


def test_an_export_runs_on_every_platform_and_says_what_it_takes(tmp_path):
    net = lr_nn.softmax_regression(4, 3)
    lr_nn.export_stablehlo(tmp_path / "served", net, parameters(net))
    assert run_stablehlo(tmp_path / "served").__self__.platforms == ("cpu", "cuda", "tpu")
    said = json.loads((tmp_path / "served.json").read_text(encoding="utf-8"))
    assert (said["input"], said["output"], said["dtype"]) == (["n", 4], ["n", 3], "float32")


def test_onnx_names_its_operations_and_its_network(tmp_path):
    import onnx

    net = lr_nn.mlp((4, 5, 3), activations.leaky_relu(0.125), losses.categorical)
    lr_nn.export_onnx(tmp_path / "served", net, parameters(net))
    model = onnx.load(tmp_path / "served")
    assert [node.op_type for node in model.graph.node] == ["Gemm", "LeakyRelu", "Gemm", "Softmax"]
    assert json.loads(model.metadata_props[0].value)["sizes"] == [4, 5, 3]


def test_without_onnx_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    net = lr_nn.linear_regression(2)
    with pytest.raises(ImportError, match=r'pip install "lr-nn\[onnx\]"'):
        lr_nn.export_onnx(tmp_path / "served", net, parameters(net))


@pytest.fixture(scope="module")
def schema():
    """That of a small table, with numbers that end nowhere."""
    rng = np.random.default_rng(0)
    colours = rng.choice(["red", "größer", "blue"], 30)
    columns = {"size": rng.normal(size=30), "colour": colours, "sold": rng.random(30) < 0.5}
    return data.learn(data.frame(columns), "sold")


def test_the_schema_comes_back_to_the_last_bit(tmp_path, schema):
    net = lr_nn.logistic_regression(3)
    lr_nn.save_model(tmp_path / "model", net, parameters(net), schema=schema)
    assert lr_nn.load_model(tmp_path / "model").schema == schema
    forge(tmp_path / "model", schema=json.loads(schema.to_json()) | {"dtype": "int8"})
    with pytest.raises(ValueError, match="holds a schema that cannot be read"):
        lr_nn.load_model(tmp_path / "model")


def test_a_schema_of_other_features_is_refused(tmp_path, schema):
    net = lr_nn.logistic_regression(4)
    with pytest.raises(ValueError, match="the schema has 3 features, and the network 4 inputs"):
        lr_nn.save_model(tmp_path / "model", net, parameters(net), schema=schema)
    lr_nn.save_model(tmp_path / "model", net, parameters(net))
    forge(tmp_path / "model", schema=json.loads(schema.to_json()))
    with pytest.raises(ValueError, match="the schema has 3 features, and the network 4"):
        lr_nn.load_model(tmp_path / "model")


def test_the_schema_travels_with_an_export(tmp_path, schema):
    import onnx

    net = lr_nn.logistic_regression(3)
    for name, (save, _) in EXPORTS.items():
        save(tmp_path / name, net, parameters(net), schema=schema)
    kept = {entry.key: entry.value for entry in onnx.load(tmp_path / "onnx").metadata_props}["schema"]
    beside = json.loads((tmp_path / "stablehlo.json").read_text(encoding="utf-8"))["schema"]
    assert data.Schema.from_json(kept) == data.Schema.from_json(json.dumps(beside)) == schema


def test_the_command_line_offers_every_activation_that_a_file_names():
    assert get_args(get_type_hints(options.Train)["activation"]) == tuple(architecture.ACTIVATIONS)
