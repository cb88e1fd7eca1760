"""The shape of the source: imports go down the levels of DESIGN.md, files are short, autodiff is not a player."""

import ast
import graphlib
import re
from pathlib import Path

import pytest
import xla_flags

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "lr_nn").rglob("*.py"))
ALL = [path for folder in ("lr_nn", "benchmarks", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]

# A room on a half level stands on the room of its level that it imports.
LEVELS = {
    **dict.fromkeys(["types", "check", "trees", "graph"], 0),
    **dict.fromkeys(["probability", "row_sums"], 0.5),
    **dict.fromkeys(["activations", "penalties"], 1),
    "losses": 2,
    **dict.fromkeys(["network", "data"], 3),
    "admission": 4,
    "backward": 5,
    "tangents": 5.3,
    "pass_quantities": 5.6,
    **dict.fromkeys(["per_example", "curvature", "objective"], 6),
    **dict.fromkeys(["private", "taps"], 7),
    **dict.fromkeys(["fitting", "training"], 8),
    **dict.fromkeys(["many", "laplace", "influence"], 9),
    **dict.fromkeys(["implicit", "inference", "sharded"], 10),
    **dict.fromkeys(["referee", "interop", "model_files", "__init__"], 11),
    "cli": 12,
    "__main__": 13,
}
AUTODIFF = {
    *("grad", "value_and_grad", "vjp", "jvp", "jacfwd", "jacrev", "jacobian", "hessian", "linearize"),
    *("linear_transpose", "custom_jvp", "custom_vjp", "custom_gradient", "jet"),
}
MAY_DIFFERENTIATE = {"referee", "taps"}


def room(path):
    """lr_nn/losses/base.py is in the room losses, lr_nn/check.py in check."""
    return path.relative_to(ROOT / "lr_nn").with_suffix("").parts[0]


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def walk(node):
    """Every node but those of an `if TYPE_CHECKING:` block."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_type_checking(child):
            yield from walk(child)


def imports(tree, package=("lr_nn",)):
    """The full dotted name of everything imported, with the name that it is bound to."""
    for node in walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{module}.{alias.name}", alias.asname or alias.name


def rooms_imported(tree, package=("lr_nn",)):
    """The rooms of lr_nn that a file imports; a name that is no room is one of the package itself."""
    rooms = {*LEVELS, *(path.stem for path in (ROOT / "lr_nn").iterdir())}
    for name, _ in imports(tree, package):
        root, *rest = name.split(".")
        if root == "lr_nn":
            yield rest[0] if rest and rest[0] in rooms else "__init__"


def module(path):
    """The dotted name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_imported(path):
    """The modules of lr_nn that a file imports: the module of each name, or the name itself where it is a module."""
    modules = {module(source) for source in SOURCES}
    for name, _ in imports(parse(path), ("lr_nn", *path.relative_to(ROOT / "lr_nn").parts[:-1])):
        imported = name if name in modules else name.rpartition(".")[0]
        if imported in modules and imported != module(path):
            yield imported


def autodiff_used(tree):
    """Transformations of JAX that differentiate, by any name they were imported under."""
    roots = {}
    for name, alias in imports(tree):
        roots[alias] = name.split(".")[0]
        if roots[alias] == "jax" and name.split(".")[-1] in AUTODIFF:
            yield name

    def is_jax(node):
        return roots.get(ast.unparse(node).split(".")[0]) == "jax"

    for node in walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in AUTODIFF and is_jax(node.value):
            yield ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and is_jax(node.args[0]):
            yield ast.unparse(node)


def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def label(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_imports_go_down_the_levels(path):
    here = room(path)
    assert here in LEVELS, f"{here} has no level: give it one here and in DESIGN.md"
    package = ("lr_nn", *path.relative_to(ROOT / "lr_nn").parts[:-1])
    for other in rooms_imported(parse(path), package):
        assert other in LEVELS, f"{here} imports {other}, which has no level"
        assert other == here or LEVELS[other] < LEVELS[here], f"{here} imports {other}, which is not below it"


def test_no_file_imports_itself_through_others():
    """Also inside a room imports go one way: the files can be put in an order in which each imports earlier ones."""
    used = {module(path): set(files_imported(path)) for path in SOURCES}
    try:
        order = list(graphlib.TopologicalSorter(used).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))
    assert set(order) == set(used)


@pytest.mark.parametrize("path", SOURCES, ids=label)
def test_the_library_stands_without_its_benchmarks_experiments_and_tests(path):
    roots = {name.split(".")[0] for name, _ in imports(parse(path))}
    assert not roots & {"benchmarks", "experiments", "tests", "pytest", "chex", "hypothesis"}


@pytest.mark.parametrize("path", ALL, ids=label)
def test_no_file_needs_a_table_of_contents(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) not in MAY_DIFFERENTIATE], ids=label)
def test_no_derivative_comes_from_autodiff(path):
    assert list(autodiff_used(parse(path))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import jax\njax.grad(f)",
        "import jax as j\nj.value_and_grad(f)",
        "from jax import vjp",
        "from jax import grad as slope",
        "from jax import numpy, hessian as h",
        "import jax.experimental.jet",
        "from jax.experimental import jet",
        "import jax\n@jax.custom_jvp\ndef f(x): ...",
        "import jax\ndef f():\n    return jax.jacfwd",
        "import jax\ngetattr(jax, 'linearize')",
        "import jax._src.api as api\napi.jvp(f, x, v)",
    ],
)
def test_the_search_for_autodiff_finds(code):
    assert list(autodiff_used(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        "from lr_nn import curvature\ncurvature.hessian(f)",
        "from lr_nn.backward import gradient",
        "import jax.numpy as jnp\njnp.gradient(x)",
        "loss.hessian_multiply(eta, y, v)",
    ],
)
def test_the_search_for_autodiff_passes_over(code):
    assert not list(autodiff_used(ast.parse(code)))


@pytest.mark.parametrize(
    ("code", "package", "rooms"),
    [
        ("from lr_nn import check, losses", ("lr_nn",), ["check", "losses"]),
        ("from lr_nn.losses.base import Loss", ("lr_nn",), ["losses"]),
        ("def f():\n    import lr_nn.network as n", ("lr_nn",), ["network"]),
        ("from . import check", ("lr_nn",), ["check"]),
        ("from .base import Loss", ("lr_nn", "losses"), ["losses"]),
        ("from ..trees import lift", ("lr_nn", "losses"), ["trees"]),
        ("from lr_nn import Network", ("lr_nn",), ["__init__"]),
        ("if TYPE_CHECKING:\n    from lr_nn.losses import Loss\nelse:\n    import jax", ("lr_nn",), []),
    ],
)
def test_the_search_for_imports_finds(code, package, rooms):
    assert list(rooms_imported(ast.parse(code), package)) == rooms


def test_xla_options_that_a_release_may_drop_are_named_only_where_it_is_asked_for_them():
    asking = ("compilation.py", "xla_flags.py", "test_compilation.py", "test_structure.py")
    sources = [path for path in (*ALL, *(ROOT / "tests").glob("*.py")) if path.name not in asking]
    named = {path.name for path in sources if re.search(r"xla_(cpu|gpu|tpu|backend|llvm|force)_\w+", path.read_text())}
    assert not named


def test_an_xla_flag_that_jaxlib_does_not_know_is_left_out_and_the_answer_is_kept(tmp_path):
    flags = ("--xla_backend_optimization_level=2", "--xla_there_is_no_such_flag=1")
    assert xla_flags.known(flags, tmp_path) == [flags[0]]
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(kept.values()) == ["known", "unknown"] and len(kept) == 2
    next(tmp_path.glob("*there_is_no*")).write_text("known")
    assert xla_flags.known(flags, tmp_path) == [*flags], "no process is asked twice"
