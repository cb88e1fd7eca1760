"""Runs every experiment and writes the site: runs/site/index.html, a card for each, and two graphs to play with.

Each runs in a process of its own: what one compiles and keeps is gone before the next begins, and one that fails
stops no other. The exit status is 0 if all that were asked for ran.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments import record, runner
from experiments.runner import UserError
from experiments.site import page


@dataclass(frozen=True)
class Options:
    """The options of all."""

    out: Path = Path("runs/site")
    """Folder of the site: index.html, the graphs, and a folder for each experiment."""
    only: tuple[str, ...] | None = None
    """Run these alone (None: all); the site still shows what its folder holds of others."""
    skip: tuple[str, ...] = ()
    """Run all but these."""
    overwrite: bool = False
    """Replace the runs that the folder already holds."""
    data_dir: Path | None = None
    """Folder of the data files; None: the environment variable LR_NN_DATA."""


def launch(arguments: Sequence[str], questions: Mapping[str, str]) -> int:
    """Run those of `questions` (name -> what it asks) that the arguments choose, write the site; the exit status."""
    try:
        import tyro

        options = tyro.cli(Options, prog="python -m experiments all", description=__doc__, args=arguments)
        return build(options, questions)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    except ImportError as error:
        print(f'error: {error}\nall that it needs: pip install -e ".[experiments]"', file=sys.stderr)
    except KeyboardInterrupt:
        print("\ninterrupted: the site is not written", file=sys.stderr)
        return 130
    return 2


def build(options: Options, questions: Mapping[str, str]) -> int:
    """Check the options, draw the graphs, run the experiments, and write index.html; the exit status."""
    names = chosen(options, questions)
    runner.check_folder(options.out)
    if options.out.is_dir() and any(options.out.iterdir()) and not options.overwrite:
        raise UserError(f"{options.out} already holds a site; pass another --out, or --overwrite to replace its runs")
    from experiments.site import graphs

    played = graphs.write(options.out, graphs.traced())
    failures = carry_out_all(names, options)
    path = page.write(options.out, questions, played)
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{path}: open it in a browser ({size / 2**20:.1f} MB in all)")
    for name, failure in failures.items():
        print(f"\n{name} failed (--skip {name} leaves it out):\n{failure}", file=sys.stderr)
    return 1 if failures else 0


def chosen(options: Options, questions: Mapping[str, str]) -> list[str]:
    """The names that are to be run. Raises UserError for one that is not known, and where none is left."""
    for flag, names in (("only", options.only or ()), ("skip", options.skip)):
        unknown = [name for name in names if name not in questions]
        if unknown:
            raise UserError(f"--{flag}: there is no experiment {unknown[0]!r}\n\n{listing(questions)}")
    left = [
        name for name in dict.fromkeys(questions if options.only is None else options.only) if name not in options.skip
    ]
    if not left:
        raise UserError("--only and --skip leave no experiment")
    return left


def listing(questions: Mapping[str, str]) -> str:
    """Every experiment with a line."""
    width = max(map(len, questions))
    return "\n".join(["experiments:", *(f"  {name:{width}}  {line}" for name, line in questions.items())])


def carry_out_all(names: Sequence[str], options: Options) -> dict[str, str]:
    """Run one after the other, with a line for each; what those that failed complained of."""
    failures = {}
    for i, name in enumerate(names, start=1):
        print(f"{i:{len(str(len(names)))}} of {len(names)}  {name:{max(map(len, names))}}", end="", flush=True)
        start = time.perf_counter()
        failure = carry_out(name, options)
        seconds = time.perf_counter() - start
        print(f" {seconds:7.1f} s{'  failed' if failure else ''}", flush=True)
        if failure:
            failures[name] = failure
            values = {"failure": failure, "command": f"python -m experiments {name}", "seconds": seconds}
            record.write_json(options.out / name / page.FAILURE, values)
    return failures


def carry_out(name: str, options: Options) -> str | None:
    """Run one experiment into its folder of the site; what it complained of if it failed."""
    folder = options.out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / page.FAILURE).unlink(missing_ok=True)
    data = {} if options.data_dir is None else {"LR_NN_DATA": str(options.data_dir)}
    done = subprocess.run(
        [sys.executable, "-m", "experiments", name, "--out", str(folder), "--overwrite"],
        env=os.environ | data,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines() or ["it said nothing"]
    return said[-1].removeprefix("error: ") if done.returncode == 2 else "\n".join(said[-12:])
