"""The options of every command: their names on the command line, what they mean and what they are otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Common:
    """What every command takes."""

    json: bool = False
    """Print one JSON object on standard output, for machines."""
    debug: bool = False
    """Show where an error came from."""


@dataclass(frozen=True, kw_only=True)
class Reading(Common):
    """How a data file is read: a table (.csv .tsv .parquet .arrow) or arrays (.npy .npz .h5 .svm, IDX, pictures)."""

    csv: bool = False
    """Read the file as CSV whatever its name, such as adult.data."""
    delimiter: str = ","
    """CSV: what stands between columns; "sniff" looks."""
    header: bool = True
    """CSV: does the first row hold the names of the columns?"""
    names: tuple[str, ...] = ()
    """CSV: names of all columns, in place of the header's."""
    missing: tuple[str, ...] | None = None
    """CSV: what stands for a missing value; None: NA, nan, null and the like."""
    quote: str = '"'
    """CSV: what encloses values; "" where quotes mean nothing."""
    decimal: str = "."
    """CSV: what stands before the decimals of a number, "." or ","."""
    strip: bool = False
    """CSV: take away blanks around values."""
    x: str | None = None
    """Arrays: the name of the inputs in .npz and .h5."""
    y: str | None = None
    """Arrays: the name of the targets in .npz and .h5, the file of them beside .npy."""
    labels: Path | None = None
    """Arrays: the file of labels beside IDX images."""


@dataclass(frozen=True, kw_only=True)
class Learning(Reading):
    """What fit and train learn from, and what they leave."""

    data: Positional[Path]
    """The data file, or a folder of files of one kind."""
    target: str | None = None
    """The column to be predicted (arrays have y)."""
    weight: str | None = None
    """The column (or array) of example weights, read as frequencies."""
    offset: str | None = None
    """The column (or array) that is added to the linear predictor."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of numbers that are levels."""
    impute: Literal["mean", "indicator", "refuse"] = "mean"
    """A missing value becomes the mean (or the most frequent level), gets a feature of its own, or is refused."""
    reference: Literal["first", "most_frequent"] = "first"
    """The level of a categorical column that has no feature."""
    standardise: bool = True
    """Give columns of numbers mean 0 and deviation 1: a coefficient is then for one deviation more."""
    held_out: float = 0.2
    """Share of the rows, drawn by chance, that the model does not see and is judged by; 0: judge by those it saw."""
    seed: int = 0
    """Seed of the rows held out, of initial parameters and of mini-batches."""
    l1: float = 0.0
    """Strength of l1 Σ|w| in the cost, a mean over rows."""
    l2: float = 0.0
    """Strength of (l2/2) Σ w² in the cost, a mean over rows."""
    memory: int = 1024
    """Mebibytes for data: more rows than fit into them are read again in every pass."""
    out: Path | None = None
    """Folder of the model; None: write nothing."""
    overwrite: bool = False
    """Replace the model that is there."""
    report: bool = True
    """Write report.html into the folder of the model."""
    distributed: bool = False
    """Be one of many processes, over hosts or on one, all started with this command; the first leaves the model."""
    coordinator: str | None = None
    """host:port of process 0; None: Slurm, Open MPI, Kubernetes or the TPU pod knows it, as it knows the next two."""
    processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, counted from 0."""
    heartbeat_seconds: float = 60.0
    """A process that is silent for so long is lost, and ends all others with exit code 75."""


@dataclass(frozen=True, kw_only=True)
class Fit(Learning):
    """Options of lr-nn fit."""

    model: Literal["auto", "linear", "logistic", "softmax", "poisson"] = "auto"
    """auto: linear for numbers, logistic for two classes, softmax for more."""
    tol: float = 1e-12
    """Converged: what is missing is below this share of the cost of a constant model."""
    max_steps: int = 100
    """Steps over all rows at most."""


@dataclass(frozen=True, kw_only=True)
class Train(Learning):
    """Options of lr-nn train."""

    model: Literal["auto", "linear", "logistic", "softmax", "poisson"] = "auto"
    """The loss. auto: linear for numbers, logistic for two classes, softmax for more."""
    hidden: str = "64,64"
    """Widths of the hidden layers; "" for none."""
    activation: Literal[
        "identity",
        "step",
        "sigmoid",
        "tanh",
        "relu",
        "leaky_relu",
        "elu",
        "softplus",
        "silu",
        "gelu",
        "gelu_tanh",
        "sine",
        "softsign",
    ] = "relu"
    """The activation of the hidden layers."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The rule of a step, of optax."""
    learning_rate: float = 1e-3
    """Of a step."""
    epochs: int = 20
    """Times that every row is seen."""
    batch_size: int = 128
    """Rows of a step."""
    patience: int | None = None
    """Stop after so many epochs without a lower cost of the rows held out, and keep the best."""
    checkpoints: Path | None = None
    """Folder for checkpoints, so that nothing is lost when the run is stopped."""
    resume: bool = False
    """Go on from the newest checkpoint, bit for bit."""


@dataclass(frozen=True, kw_only=True)
class Predict(Reading):
    """Options of lr-nn predict."""

    model: Positional[Path]
    """The folder of the model."""
    data: Positional[Path]
    """The data file."""
    out: Path | None = None
    """The file of predictions, .parquet or .csv; None: CSV on standard output."""
    keep: tuple[str, ...] = ()
    """Columns of the data to copy beside the predictions."""
    unknown: Literal["refuse", "ignore"] = "refuse"
    """A level that the model has not seen: refused, or taken for the reference."""
    extra: Literal["refuse", "ignore"] = "refuse"
    """A column that the model does not know: refused, or left out."""
    overwrite: bool = False
    """Replace the file that is there."""
    rows: int = 65536
    """Rows at a time."""


@dataclass(frozen=True, kw_only=True)
class Check(Reading):
    """Options of lr-nn check."""

    data: Positional[Path]
    """The data file, or a folder of files of one kind."""
    target: str | None = None
    """The column to be predicted: what a fit would make of the table is then checked too."""
    weight: str | None = None
    """The column (or array) of example weights."""
    offset: str | None = None
    """The column (or array) that is added to the linear predictor."""
    ignore: tuple[str, ...] = ()
    """Columns to leave out."""
    categorical: tuple[str, ...] = ()
    """Columns of numbers that are levels."""


@dataclass(frozen=True, kw_only=True)
class Export(Common):
    """Options of lr-nn export."""

    model: Positional[Path]
    """The folder of the model."""
    format: Literal["onnx", "stablehlo"] = "onnx"
    """What to write."""
    out: Path
    """The file."""
    overwrite: bool = False
    """Replace the file that is there."""


@dataclass(frozen=True, kw_only=True)
class Bench(Common):
    """Options of lr-nn bench."""

    rows: int = 100_000
    """Rows of the data that are drawn."""
    features: int = 30
    """Columns of them."""
