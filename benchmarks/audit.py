"""The mutation score: of wrong backward passes, how many does a referee of gradients kill, and does it spare the right?

Mutants are passes with one step changed, in several networks; the right gradients are of random ones. Every referee
sees the same value, gradient and point. Those that only look at that point miss what shows on extreme inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import correct, harness, mutants
from benchmarks.referees import REFEREES, Suspect, trial

RIGHT = 200
FEW = 6
# Programs of so many suspects are kept: each holds memory maps, of which Linux gives a process 65,530.
KEPT = 20

Rows = list[dict[str, Any]]


def planted() -> dict[str, Suspect]:
    """Every mutant in its setting."""
    return {name: suspect(mutant) for name, mutant in mutants.MUTANTS.items()}


def suspect(mutant: mutants.Mutant) -> Suspect:
    """A mutant in its setting and dtype."""
    setting = mutants.SETTINGS[mutant.setting]
    return Suspect(mutant.name, setting, mutant.gradient(setting), mutant.dtype)


def verdicts(suspects: Iterable[Suspect], referees: Sequence[str]) -> Rows:
    """A row for each suspect: which referees object to it, and the seconds that each took."""
    from rich.progress import track

    rows = []
    for count, each in enumerate(track(list(suspects), "trials", transient=True)):
        if count % KEPT == 0:
            jax.clear_caches()
        found = {referee: trial(each, referee) for referee in referees}
        rows.append(
            {
                "suspect": each.name,
                "dtype": each.dtype,
                "objections": [referee for referee, (objects, _) in found.items() if objects],
                "seconds": {referee: round(seconds, 3) for referee, (_, seconds) in found.items()},
            }
        )
    return rows


def scores(wrong: Rows, right: Rows, referees: Sequence[str]) -> Rows:
    """A row for each referee: mutants killed, false alarms, and its mean time."""
    seconds = {name: sum(row["seconds"][name] for row in wrong + right) for name in referees}
    return [
        {
            "referee": name,
            "killed": sum(name in row["objections"] for row in wrong),
            "mutants": len(wrong),
            "false_alarms": sum(name in row["objections"] for row in right),
            "right": len(right),
            "seconds": round(seconds[name] / len(wrong + right), 2),
        }
        for name in referees
    ]


def main(small: bool = False, referees: tuple[str, ...] = tuple(REFEREES), out: Path = harness.RESULTS) -> None:
    """Try every mutant and every right gradient before every referee; write the record as JSON and as a picture.

    Args:
        small: a few mutants of each kind and a few right gradients, to see that it runs.
        referees: whom to ask.
        out: folder of the record.
    """
    if unknown := set(referees) - set(REFEREES):
        raise SystemExit(f"unknown referee {sorted(unknown)[0]!r}; known: {', '.join(REFEREES)}")
    if small and out.resolve() == harness.RESULTS.resolve():
        raise SystemExit("--small is no measurement: give it an --out of its own")
    from benchmarks.audit_figure import dots

    asked = [kind[:: len(kind) // 2 + 1] if small else kind for kind in mutants.KINDS.values()]
    names = [mutant.name for kind in asked for mutant in kind]
    facts = {mutant.name: facts_of(kind, mutant) for kind, of in mutants.KINDS.items() for mutant in of}
    wrong = [facts[row["suspect"]] | row for row in verdicts(map(planted().__getitem__, names), referees)]
    right = verdicts(correct.suspects(FEW if small else RIGHT), referees)
    summary = scores(wrong, right, referees)
    for section, rows in (("scores", summary), ("mutants", wrong), ("right", right)):
        harness.write("audit", section, rows, out)
    show(summary, wrong, right)
    dots(harness.read("audit", out), out / "audit.png")
    print(f"written to {out}")


def facts_of(kind: str, mutant: mutants.Mutant) -> dict[str, Any]:
    """What a mutant is, for the record."""
    return {"kind": kind, "setting": mutant.setting, "wrong": mutant.wrong, "far": mutant.far}


def show(summary: Rows, wrong: Rows, right: Rows) -> None:
    """The scores on the terminal, and under them every mutant that the first referee misses and its false alarms."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Wrong gradients killed, and right ones accused", title_justify="left")
    table.add_column("referee")
    for column in ("killed", "false alarms", "seconds each"):
        table.add_column(column, justify="right")
    for row in summary:
        killed, alarms = f"{row['killed']} of {row['mutants']}", f"{row['false_alarms']} of {row['right']}"
        table.add_row(row["referee"], killed, alarms, f"{row['seconds']:.2f}")
    Console(width=110).print(table)
    for row in summary:
        name = row["referee"]
        missed = [each["suspect"] for each in wrong if name not in each["objections"]]
        accused = [f"{each['suspect']} ({each['dtype']})" for each in right if name in each["objections"]]
        for what, names in (("misses", missed), ("accuses", accused)):
            if names:
                print(f"{name} {what}: {'; '.join(names)}")
