"""What fit and train leave: checks before anything runs, then the model, its report, and a word on how good it is."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lr_nn import check
from lr_nn.cli import report
from lr_nn.cli.options import Learning
from lr_nn.cli.sources import Source
from lr_nn.cli.terminal import Terminal, plain
from lr_nn.model_files import save_model
from lr_nn.network import Network
from lr_nn.penalties import Penalty, check_penalty
from lr_nn.types import Params

SCORES = {
    "rmse": "root mean squared error",
    "r2": "R²",
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "auc": "area under the ROC curve",
    "brier": "Brier score",
}


def admit(options: Learning) -> None:
    """Refuse numbers that will not do and a folder that no model can be left in, before anything is read."""
    if not 0 <= options.held_out < 1:
        raise ValueError(f"--held-out must be a share, at least 0 and below 1; got {options.held_out:g}")
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be at least 0 and below 2³²; got {options.seed}")
    check.positive_integer("--memory", options.memory)
    check_penalty(Penalty(options.l1, options.l2))
    out = options.out
    if out is None:
        return
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {out}: {out.absolute().parent} is not a folder: make it first")
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"--out {out} is a file; a model is a folder")
    if out.is_dir() and any(out.iterdir()):
        if not (out / "model.json").is_file():
            raise FileExistsError(f"--out {out} holds other files and no model: name another folder")
        if not options.overwrite:
            raise FileExistsError(f"--out {out} holds a model: name another folder, or pass --overwrite")
    nearest = out if out.exists() else out.absolute().parent
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(f"--out {out}: {nearest} cannot be written to")


def leave(
    options: Learning,
    terminal: Terminal,
    net: Network,
    params: Params,
    source: Source,
    facts: Mapping[str, Any],
    scores: Mapping[str, Any],
    tables: Sequence[report.Table],
    words: Sequence[str],
) -> None:
    """Tell how good the model is, and write it with its report where the options say so."""
    shown = {SCORES[name]: f"{value:.4g}" for name, value in scores.items() if name in SCORES}
    whose = "held-out rows" if source.held_out is not None else "rows it was fitted to"
    terminal.say(f"on {scores['rows']:,} {whose}: " + ", ".join(f"{name} {value}" for name, value in shown.items()))
    numbers = {name: value for name, value in scores.items() if name != "curves"}
    command = shlex.join(["lr-nn", *words])
    facts = plain({**facts, "judged": {**numbers, "held_out": source.held_out is not None}, "command": command})
    terminal.record(**facts, out=options.out)
    if options.out is None:
        return
    beside = {}
    if options.report:
        page = report.render(source, facts, shown, whose, scores["curves"], tables, command)
        beside["report.html"] = page.encode()
    again, schema = options.overwrite, source.schema
    save_model(options.out, net, params, schema=schema, facts=facts, beside=beside, overwrite=again)
    terminal.say(f"model in {options.out}" + (", with report.html" if beside else ""))
