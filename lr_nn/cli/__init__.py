"""The command `lr-nn`: fit, train, predict, check, export and bench from a terminal.

Needs the extra `cli`: pip install "lr-nn[cli]". Nothing heavy is imported before it is known to be wanted, so that
every --help answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lr_nn.cli.launch import guarded, launch
from lr_nn.cli.terminal import Terminal

__all__ = ["main"]

# Name on the command line -> what it does, in a line.
COMMANDS = {
    "fit": "fit a regression to its optimum: table of coefficients, model, report",
    "train": "train a network by mini-batches, with checkpoints",
    "predict": "apply a model to new rows",
    "check": "say what is wrong with a data file, before anything runs",
    "export": "write a model as ONNX or StableHLO",
    "bench": "rows per second of this machine",
}

OVERVIEW = """\
usage: lr-nn COMMAND [OPTIONS]            (lr-nn COMMAND --help lists its options)

{commands}

  lr-nn fit census.parquet --target income --model logistic --l2 1e-4 --out model
  lr-nn predict model new.csv --out predictions.parquet

--json prints one JSON object on standard output, for machines; bars and messages go to standard error.

exit codes
    0   done
    1   done and written, but look at it: a fit that did not converge, a training that ended early by NaN,
        data in which check found something
    2   a mistake in the call, a file or the data: one message, nothing written
    3   a failure of lr-nn itself; --debug shows where
   75   --distributed: another process was lost, or never came: start all again, train with --resume
  130   stopped by Ctrl-C;   143  by SIGTERM;   141  the reader of the output went away
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` (default: the command line) ask for; return the exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return guarded(rest, lambda terminal: run(name, rest, terminal))


def run(name: str, arguments: Sequence[str], terminal: Terminal) -> int:
    """Run one command, or tell which there are."""
    if name in ("-h", "--help"):
        terminal.say(overview())
        return 0
    if name not in COMMANDS:
        raise ValueError(f"there is no command {name!r}; there are {', '.join(COMMANDS)} (lr-nn --help)")
    return launch(name, COMMANDS[name], arguments, terminal)


def overview() -> str:
    """How to call, every command with a line, and the exit codes."""
    return OVERVIEW.format(commands="\n".join(f"  {name:<9}{line}" for name, line in COMMANDS.items()))
