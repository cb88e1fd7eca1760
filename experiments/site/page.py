"""index.html, from what the runs left in the folder of the site."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.report import Figure, template
from experiments.site.contents import grouped

if TYPE_CHECKING:
    from experiments.site.graphs import Played

FAILURE = "failure.json"


def write(folder: Path, questions: Mapping[str, str], graphs: Sequence[Played]) -> Path:
    """The page of every experiment of which `folder` holds a run, or the reason why there is none."""
    cards = {name: card(folder / name, name, question) for name, question in questions.items()}
    cards = {name: found for name, found in cards.items() if found}
    sections = [(group, [cards[name] for name in names]) for group, names in grouped(cards)]
    page = template("site.html.jinja").render(
        sections=sections,
        graphs=graphs,
        count=len(cards),
        seconds=sum(card["seconds"] for card in cards.values()),
        date=datetime.now(UTC).date().isoformat(),
        versions={"Python": sys.version.split()[0], **{name: version(name) for name in ("lr-nn", "jax")}},
    )
    path = folder / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def card(folder: Path, name: str, question: str) -> dict[str, Any]:
    """What is told of the run in `folder`; nothing where there was none."""
    shared: dict[str, Any] = {"name": name, "question": question, "failure": None, "report": None, "figures": []}
    try:
        if (failure := folder / FAILURE).is_file():
            return shared | json.loads(failure.read_text("utf-8"))
        if not (summary := folder / "summary.json").is_file():
            return {}
        found = json.loads(summary.read_text("utf-8"))
        figures = [Figure(**figure | {"path": folder / figure["path"]}) for figure in found["figures"][:1]]
    except (ValueError, KeyError, TypeError) as error:
        damaged = f"what {folder} holds of an earlier run is damaged: {error!r}"
        return shared | {"failure": damaged, "command": f"python -m experiments {name}", "seconds": 0.0}
    return found | shared | {"report": f"{name}/report.html", "figures": figures}
