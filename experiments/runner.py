"""What every experiment shares: options, the folder of a run, its record, its figures and its report.

An experiment is a module with a docstring, a frozen dataclass `Options(runner.Options)` whose fields have
docstrings, and `main(options, run)`; a line in `__main__.EXPERIMENTS` names it. It imports what is heavy inside
functions, so that `--help` is quick.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.record import plain, write_atomically, write_json
from experiments.report import Figure, Section, render

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing
    from rich.progress import Progress

PACKAGES = ("lr-nn", "jax", "jaxlib", "numpy", "optax", "scikit-learn", "matplotlib")
NOT_RECORDED = ("overwrite", "config")
OF_THIS_MACHINE = ("out", "data_dir")


class UserError(Exception):
    """Something that the user can put right: shown as one message, without a traceback."""


@dataclass(frozen=True)
class Options:
    """The options that every experiment has."""

    out: Path = Path("runs")
    """Folder for the record, the figures and the report."""
    overwrite: bool = False
    """Replace the run that the folder already holds."""
    seed: int = 0
    """Seed of the split, the initial parameters and the order of mini-batches."""
    data_dir: Path | None = None
    """Folder of the data files; None: the environment variable LR_NN_DATA."""
    config: Path | None = None
    """Run again from this config.json; options given beside it win."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


class Run:
    """One run of an experiment: the only writer of its folder.

    The folder is checked at once and made when the first thing is put there, so that a run that cannot start
    (data missing) leaves nothing behind.
    """

    def __init__(self, experiment: str, options: Options, question: str = ""):
        """Raise UserError if the folder holds a run already and the options do not say to replace it."""
        from rich.console import Console

        self.experiment, self.options, self.folder, self.question = experiment, options, options.out, question
        self.console = Console(highlight=False)
        self._begun, self._start = False, time.perf_counter()
        check_folder(self.folder)
        if self._leftovers() and not options.overwrite:
            raise UserError(f"{self.folder} already holds a run; pass another --out, or --overwrite to replace it")

    def record(self, **values: Any) -> None:
        """Append one line to metrics.jsonl. NaN and infinity, which JSON has not, become null."""
        with (self._place() / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain(values), ensure_ascii=False) + "\n")

    def figure(self, name: str, drawing: Drawing, *, alt: str, caption: str, wide: bool = False) -> Figure:
        """Save figures/NAME.png; `alt` says in words what is to be seen, for those who cannot see it."""
        path = self._place() / "figures" / f"{name}.png"
        drawing.savefig(path, dpi=160)
        return Figure(path, alt, caption, wide)

    def conclude(self, title: str, finding: str, sections: Sequence[Section]) -> None:
        """Tell what was found, the last thing that a run does.

        The tables and the finding go to the terminal, the finding into the record, all of it into report.html, one
        file that needs no other, and what the site makes a card from into summary.json.
        """
        for section in sections:
            for table in section.tables:
                self.console.print(table.for_terminal(), "")
        self.console.print(finding, markup=False)
        self.record(kind="finding", text=finding)
        page = render(title, finding, sections, json.loads((self._place() / "config.json").read_text("utf-8")))
        summary = {
            "experiment": self.experiment,
            "question": self.question,
            "title": title,
            "finding": finding,
            "figures": [
                {**asdict(figure), "path": figure.path.relative_to(self.folder).as_posix()}
                for section in sections
                for figure in section.figures
            ],
            "command": command(self.experiment, self.options),
            "seconds": time.perf_counter() - self._start,
        }
        write_json(self.folder / "summary.json", summary)
        write_atomically(self.folder / "report.html", page)

    def progress(self) -> Progress:
        """Live bars for the time being; nothing at all where the output is not a terminal."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            refresh_per_second=5,
            transient=True,
        )

    def _leftovers(self) -> list[Path]:
        """The files of an earlier run, and no others."""
        names = ("config.json", "metrics.jsonl", "report.html", "summary.json")
        return [path for path in (self.folder / name for name in names) if path.exists()]

    def _place(self) -> Path:
        """The folder, on first use cleared of an earlier run and given its config.json."""
        if not self._begun:
            for path in [*self._leftovers(), *(self.folder / "figures").glob("*.png")]:
                path.unlink()
            (self.folder / "figures").mkdir(parents=True, exist_ok=True)
            write_json(self.folder / "config.json", self._config())
            self._begun = True
        return self.folder

    def _config(self) -> dict[str, Any]:
        import jax

        values = {f.name: getattr(self.options, f.name) for f in fields(self.options) if f.name not in NOT_RECORDED}
        device = jax.devices()[0]
        return {
            "experiment": self.experiment,
            "options": plain(values),
            "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
            "versions": {"python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}},
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def launch(name: str, experiment: ModuleType, arguments: Sequence[str]) -> int:
    """Parse the options, run, and turn what the user can put right into a message; the exit status."""
    try:
        options = parse(name, experiment.Options, arguments, experiment.__doc__ or "")
        check_numbers(options)
        experiment.main(options, Run(name, options, (experiment.__doc__ or "").partition("\n")[0]))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"error: out of memory: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("experiments", "lr_nn"):
            raise
        print(f'error: {missing} is not installed: pip install -e ".[experiments]"', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the record of the run is incomplete", file=sys.stderr)
        return 130
    return 0


def check_folder(folder: Path) -> None:
    """Raise UserError where `folder` is none, or cannot be made or written to: before anything is computed."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {folder}: {nearest} is a file; pass the name of a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--out {folder}: {nearest} cannot be written to; pass another")


def check_numbers(options: Options) -> None:
    """Raise UserError for what is no number to compute with: NaN, infinity, a seed that not every generator takes."""
    for name, value in vars(options).items():
        if any(
            isinstance(item, float) and not math.isfinite(item)
            for item in (value if isinstance(value, tuple) else (value,))
        ):
            raise UserError(f"{_flag(name)} must be finite; got {value}")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed must lie between 0 and 2³² - 1; got {options.seed}")


def growing(values: Sequence[float], above: float) -> bool:
    """Whether there is at least one value, and each is larger than the one before it, the first than `above`."""
    return bool(values) and all(low < high for low, high in zip((above, *values), values))


def parse(name: str, kind: type[AnyOptions], arguments: Sequence[str], description: str) -> AnyOptions:
    """Options from the command line, over those of --config if it is given, over the defaults.

    Exits with a message for an unknown option or value. Raises UserError for a config.json that does not fit.
    """
    import tyro

    def read(arguments: Sequence[str], default: AnyOptions) -> AnyOptions:
        return tyro.cli(
            kind,
            prog=f"python -m experiments {name}",
            description=description,
            args=arguments,
            default=default,
        )

    default = kind(out=Path("runs") / name)
    options = read(arguments, default)
    if options.config is None:
        return options
    return read(arguments, read(_stored(name, kind, options.config), default))


def _stored(name: str, kind: type[Options], path: Path) -> list[str]:
    """The options of a config.json, as they would stand on the command line: so they are checked in one way."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        of, values = str(config["experiment"]), dict(config["options"])
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--config {path} is not the config.json of a run") from error
    if of != name:
        raise UserError(f"--config {path} is of another experiment: python -m experiments {of} --config {path}")
    unknown = sorted(set(values) - {field.name for field in fields(kind) if field.name not in NOT_RECORDED})
    if unknown:
        raise UserError(f"--config {path} has options that {name} does not know: {', '.join(unknown)}")
    return _arguments(values)


def command(name: str, options: Options) -> str:
    """What to type for the same numbers on another machine: its folders are its own."""
    left_out = (*NOT_RECORDED, *OF_THIS_MACHINE)
    changed = {
        field.name: plain(value)
        for field in fields(options)
        if (value := getattr(options, field.name)) != field.default and field.name not in left_out
    }
    return shlex.join(["python", "-m", "experiments", name, *_arguments(changed)])


def _arguments(values: Mapping[str, Any]) -> list[str]:
    """Options as they stand on the command line."""
    arguments: list[str] = []
    for key, value in values.items():
        if isinstance(value, bool):
            arguments.append(_flag(key) if value else _flag(f"no_{key}"))
        else:
            arguments += [_flag(key), *map(str, value if isinstance(value, list) else [value])]
    return arguments


def _flag(name: str) -> str:
    """An option's name on the command line."""
    return f"--{name.replace('_', '-')}"
