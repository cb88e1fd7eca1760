"""The table of the README, written from the committed record, so that no number there stands alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import cold, first_fits
from benchmarks.harness import read

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- begin: python -m benchmarks readme -->", "<!-- end -->"
AUTODIFF = ("jax.value_and_grad", "jax.value_and_grad of our cost", "jax.value_and_grad in blocks")
FLAX = ("flax + optax, autodiff, one scan",)
SKLEARN = ("scikit-learn, 1 thread", "scikit-learn, 2 threads")

OPACUS = tuple(f"clipped gradient by Opacus, ghost clipping, {threads}" for threads in ("1 thread", "2 threads"))
PRIVATE = (*OPACUS, "clipped by jax-privacy", "clipped by jax-privacy, 8 at a time", "clipped by vmap(grad)")
TRANSFORMER = "transformer, 4 layers of width 256, T = 64, 32 examples"
POSTERIOR = "posterior, 784-100-10, 4096 rows"
GLMAX = ("glmax, NewtonFitter", "glmax, IRLSFitter", "Newton unrolled, jax.grad")
CLIPPED = ("clipped by vmap(grad)", "clipped by optax's private aggregate")
GGN = ("GGN product by linearize", "GGN product by jvp and vjp")
NORMS, MOMENT = "gradient + all norms", "gradient + second moment"
DIAGONAL, KFAC = "GGN diagonal, exact", "K-FAC factors, 1 sample"
NET, GELU = "784-512-512-10, 512 rows", "gelu, 784-512-512-10, {} rows"
HVP = ("Hessian product by jvp of grad",)


def _backpack(what: str) -> tuple[str, ...]:
    return tuple(f"{what} by BackPACK, {threads}" for threads in ("1 thread", "2 threads"))


ADULT, MNIST = "adult 32,561 x 108, λ = ", "MNIST 10,000 x 784, 10 classes, λ = 1e-3"
SHAPES = ("100,000 x 100", "1,000,000 x 30", "200,000 x 300", "20,000 x 1,000")
TALL, SHARES = ("adult", "200,000 x 300"), ("10%", "1%")


def _fit(what: str, section: str, case: str) -> tuple[str, str, str, str, tuple[str, ...]]:
    """Against all that reached the gap."""
    return (f"{what}, {case.replace(' x ', ' × ')}", section, case, "lr_nn.fit, from NumPy", ())


JOBLIB = ("scikit-learn newton-cholesky, joblib",)
FROM_NUMPY = "lr_nn.fit_many, from NumPy"
FITS, BOOTSTRAP = "2,000 fits of 500 x 20", "1,000 bootstrap fits of 569 x 30"
PATH, FOLDS = "lr_nn.regularization_path", "adult 32,560 x 108, 5 folds x 100 penalties"

# By record: what is measured, its section and case there, ours, and the peers, all others if none is named (the best
# of them counts).
CLAIMS: dict[str, tuple[tuple[str, str, str, str, tuple[str, ...]], ...]] = {
    "gradient": (
        ("gradient, MLP 784-100-10, batch 1,024", "mlp", "784-100-10, 1,024 rows", "by hand", AUTODIFF),
        ("gradient, MLP 784-512-512-10", "mlp", "784-512-512-10, 1,024 rows", "by hand", AUTODIFF),
        ("gradient, MLP 784-1024-1024-1024-10", "mlp", "784-1024-1024-1024-10, 1,024 rows", "by hand", AUTODIFF),
        ("gradient, MLP 784-512-512-10, 16,384 rows", "mlp", "784-512-512-10, 16,384 rows", "by hand", AUTODIFF),
        ("gradient, MLP 100-50-10, 262,144 rows", "mlp", "100-50-10, 262,144 rows", "by hand", AUTODIFF),
        ("gradient, GELU, MLP 784-512-512-10", "activations", GELU.format("1,024"), "by hand", AUTODIFF[:1]),
        ("Hessian product, GELU", "activations", GELU.format("512"), "Hessian product", HVP),
        ("gradient, logistic, 1,048,576 × 128", "thin", "1,048,576 x 128", "by hand", AUTODIFF),
        ("gradient, logistic, 262,144 × 512", "thin", "262,144 x 512", "by hand", AUTODIFF),
        ("gradient, logistic, 65,536 × 2,048", "thin", "65,536 x 2,048", "by hand", AUTODIFF),
        ("gradient, logistic, 262,139 × 512 (a prime)", "thin", "262,139 x 512", "by hand", AUTODIFF),
        ("epoch, 784-100-10", "epoch", "784-100-10", "lr_nn.train", FLAX),
        ("epoch, 784-100-10", "epoch", "784-100-10", "lr_nn.train", SKLEARN),
        ("epoch, 784-512-512-10", "epoch", "784-512-512-10", "lr_nn.train", FLAX),
        ("epoch, 784-512-512-10", "epoch", "784-512-512-10", "lr_nn.train", SKLEARN),
    ),
    "per_example": (
        ("gradient and norms of all examples, " + NET, "per_example", NET, NORMS, ("norms by grad + vmap(grad)",)),
        ("the same, against the trick", "per_example", NET, NORMS, ("norms by zero perturbations",)),
        ("the same, against BackPACK", "torch", NET, NORMS, _backpack(NORMS)),
        ("clipped gradient", "per_example", NET, "clipped gradient", CLIPPED),
        ("the same, against Opacus", "torch", NET, "clipped gradient", OPACUS),
        ("gradient and second moment", "torch", NET, MOMENT, _backpack(MOMENT)),
    ),
    "curvature": (
        ("Hessian product", "curvature", NET, "Hessian product", HVP),
        ("GGN system, 20 steps of conjugate gradients", "system", NET, "GGN system", ("GGN system by jax.scipy's cg",)),
        ("GGN product", "curvature", NET, "GGN product", GGN),
        (
            "exact Hessian diagonal, 784-100-10",
            "diagonal",
            "784-100-10, 512 rows",
            "Hessian diagonal, exact",
            _backpack("Hessian diagonal, exact"),
        ),
        ("exact GGN diagonal", "torch", NET, DIAGONAL, _backpack(DIAGONAL)),
        ("K-FAC factors", "torch", NET, KFAC, _backpack(KFAC)),
    ),
    "taps": (("clipped gradient, transformer, 4 layers", "transformer", TRANSFORMER, "clipped gradient", PRIVATE),),
    "uncertainty": (("Laplace posterior, K-FAC, 784-100-10", "torch", POSTERIOR, "lr_nn", ()),),
    "implicit": (("gradient of a logistic fit by its data", "gradient", "logistic, 1,000 x 20", "lr_nn", GLMAX),),
    "fit": (
        *(_fit("logistic fit", "adult", ADULT + strength) for strength in ("1e-04", "1e-07")),
        *(_fit("logistic fit", "dense", shape) for shape in SHAPES),
        *(_fit("logistic fit", "correlated", f"{shape}, correlated") for shape in SHAPES),
        *(_fit("logistic fit, L1", "sparse", f"{data}, {share} of λ max") for data in TALL for share in SHARES),
        *(_fit("logistic fit, L1", "wide", f"2,000 x 5,000, {share} of λ max") for share in SHARES),
        _fit("softmax fit", "softmax", MNIST),
    ),
    "many": (
        ("2,000 logistic fits, 500 × 20", "independent", FITS, FROM_NUMPY, JOBLIB),
        ("the same, of mixed difficulty", "mixed", f"{FITS}, of mixed difficulty", FROM_NUMPY, JOBLIB),
        ("1,000 bootstrap fits, 569 × 30", "bootstrap", BOOTSTRAP, FROM_NUMPY, JOBLIB),
        ("5 folds × 100 penalties, adult", "folds", FOLDS, "lr_nn.cross_validate", ()),
        ("L1 path of 50, adult 32,561 × 108", "paths", "adult 32,561 x 108", PATH, ()),
    ),
}


def table() -> str:
    """The claims as a Markdown table: how many times faster than the best of the peers."""
    lines = ["| what | best peer | times faster |", "|---|---|---:|"]
    for name, claims in CLAIMS.items():
        record = read(name)
        for what, section, case, ours, peers in claims:
            rows = {row["competitor"]: row for row in record[section]["rows"] if row["case"] == case}
            others = peers or tuple(name for name in rows if not name.startswith("lr_nn"))
            best = min(others, key=lambda peer: rows[peer]["relative_time"])
            faster = np.median(np.divide(rows[best]["ratios"], rows[ours]["ratios"]))
            lines.append(f"| {what} | `{best}` | {faster:.2f} |")
    where = _where(read("gradient")["thin"]["environment"])
    return "\n".join([*lines, "", where, "", *_first_fits(), "", *_cold(), "", *_referees(), "", *_scale()])


def _first_fits() -> list[str]:
    """The first fit of a process, warm ones, and what another shape compiles, as a Markdown table."""
    rows = read("fit")["first"]["rows"]
    lines = [
        "| first fit in a fresh process | seconds | warm | programs | of one row less | of one column less | "
        f"seconds at commit {cold.BEFORE} | seconds of scikit-learn |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for ours in (row for row in rows if row["competitor"] == first_fits.OURS and "warm_seconds" in row):
        others = {row["competitor"]: row["first_seconds"] for row in rows if row["case"] == ours["case"]}
        numbers = [
            f"{ours['first_seconds']:.2f}",
            f"{ours['warm_seconds']:.3f}",
            *(str(ours[f"{what}_programs"]) for what in ("first", "one_row_less", "one_column_less")),
            *(f"{others[name]:.2f}" if name in others else "-" for name in (first_fits.EARLIER, first_fits.SKLEARN)),
        ]
        lines.append(f"| {ours['case'].replace(' x ', ' × ')} | {' | '.join(numbers)} |")
    return lines


def _cold() -> list[str]:
    """The programs that first calls compile, and their time relative to `jax.jit`, as a Markdown table."""
    rows = read("cold")["cold"]["rows"]
    batch, _ = rows[0]["case"].split(": ")
    lines = [
        f"| first call in a fresh process, {batch} | programs | of a second call | of another batch size | "
        f"times faster than `{cold.PEER}` |",
        "|---|---:|---:|---:|---:|",
    ]
    for ours in (row for row in rows if row["competitor"] == cold.OURS):
        peer = [row for row in rows if (row["case"], row["competitor"]) == (ours["case"], cold.PEER)]
        faster = f"{np.median(np.divide(peer[0]['ratios'], ours['ratios'])):.2f}" if peer else "-"
        counts = (ours[f"programs{kind}"] for kind in ("", "_of_the_second_call", "_of_another_batch_size"))
        lines.append(f"| {ours['case'].split(': ')[1]} | {' | '.join(map(str, counts))} | {faster} |")
    return lines


def _scale() -> list[str]:
    """What was broken, lost or too large, and what came of it, as a Markdown table."""
    record = {section: found["rows"] for section, found in read("scale").items()}
    disk = next(row for row in record["fit"] if row["competitor"] == "cold cache")
    kills, damage, fuzz = (record[name] for name in ("kill", "damage", "fuzz"))
    lost = [row for row in record["sharded"] if "exit_codes" in row]
    spread = [row["largest_difference"] for row in record["sharded"] if "largest_difference" in row]

    def total(rows: list[dict[str, Any]], name: str) -> int:
        return sum(row[name] for row in rows)

    lines = {
        f"logistic fit of {disk['case']}, from the disk": (
            f"{disk['passes']} passes, {disk['times_reading']:.2f} times reading it as often, "
            f"{disk['resident_megabytes']:.0f} MB of memory"
        ),
        f"trainings ended by kill -9 and resumed, {total(kills, 'kills')}": (
            f"{total(kills, 'equal_to_the_last_bit')} equal to the last bit"
        ),
        f"damages to the files of checkpoints and models, {total(damage, 'damages'):,}": (
            f"{total(damage, 'refused'):,} refused"
        ),
        f"damaged files given to readers and the command line, {total(fuzz, 'damaged'):,}": (
            f"{total(fuzz, 'refused'):,} refused, {total(fuzz, 'read'):,} read, {total(fuzz, 'faults')} faults"
        ),
        "8 devices in 1, 2 and 4 processes, against one device": f"results differ by {max(spread):.0e} at most",
        "a process of two is killed, heartbeat of 5 s": (
            f"the other ends and says so in {max(second for row in lost for second in row['seconds']):.1f} s at most"
        ),
    }
    return ["| larger, or broken | |", "|---|---|", *(f"| {what} | {found} |" for what, found in lines.items())]


def _referees() -> list[str]:
    """The mutation score as a Markdown table."""
    rows = read("audit")["scores"]["rows"]
    lines = [f"| {row['referee']} | {row['killed']} | {row['false_alarms']} | {row['seconds']:.1f} |" for row in rows]
    wrong, right = rows[0]["mutants"], rows[0]["right"]
    head = f"| referee of a gradient | kills, of {wrong} wrong | accuses, of {right} right | seconds |"
    return [head, "|---|---:|---:|---:|", *lines]


def _where(environment: dict[str, Any]) -> str:
    return (
        f"Medians of interleaved runs on {environment['cores']} cores of {environment['device']}, "
        f"JAX {environment['jax']}, float32, fits in float64 to "
        "a gap of 1e-10 (paths 1e-8, folds to gradients of 1e-6); all rows, with their spread, in `benchmarks/results`."
    )


def main() -> None:
    """Write the table into the README, between its two marks."""
    text = README.read_text()
    before, rest = text.split(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END, 1)[1]}")
