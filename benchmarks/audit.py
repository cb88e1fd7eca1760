"""The mutation score: of wrong backward passes, how many does a referee of gradients kill, and does it spare the right?

Mutants are passes with one step changed, in several networks; the right gradients are of random networks, and of
functions that normalise, attend, gate, look up, sort and accumulate. Every referee sees the same value, gradient and
point. Those that only look at that point miss what shows on extreme inputs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks import correct, harness, mutants, right_cases
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


def measure_mutants(referees: Sequence[str], small: bool) -> Rows:
    """A row for each mutant, with what it is."""
    asked = [kind[:: len(kind) // 2 + 1] if small else kind for kind in mutants.KINDS.values()]
    names = [mutant.name for kind in asked for mutant in kind]
    facts = {mutant.name: facts_of(kind, mutant) for kind, of in mutants.KINDS.items() for mutant in of}
    return [facts[row["suspect"]] | row for row in verdicts(map(planted().__getitem__, names), referees)]


# (referees, small) -> the rows of a section of the record; "right" is of networks, "further" of other functions.
SECTIONS: Mapping[str, Callable[[Sequence[str], bool], Rows]] = {
    "mutants": measure_mutants,
    "right": lambda referees, small: verdicts(correct.suspects(FEW if small else RIGHT), referees),
    "further": lambda referees, small: verdicts(right_cases.suspects(FEW if small else RIGHT), referees),
}


def scores(wrong: Rows, right: Rows) -> Rows:
    """A row for each referee that saw them all: mutants killed, false alarms, and its mean time."""
    every = wrong + right
    referees = [name for name in REFEREES if all(name in row["seconds"] for row in every)]
    return [
        {
            "referee": name,
            "killed": sum(name in row["objections"] for row in wrong),
            "mutants": len(wrong),
            "false_alarms": sum(name in row["objections"] for row in right),
            "right": len(right),
            "seconds": round(sum(row["seconds"][name] for row in every) / len(every), 2),
        }
        for name in referees
    ]


def main(
    names: tuple[str, ...] = tuple(SECTIONS),
    small: bool = False,
    referees: tuple[str, ...] = tuple(REFEREES),
    out: Path = harness.RESULTS,
) -> None:
    """Try every mutant and every right gradient before every referee; write the record as JSON and as a picture.

    Args:
        names: sections to measure; those left out are kept from a record that is there.
        small: a few mutants of each kind and a few right gradients, to see that it runs.
        referees: whom to ask.
        out: folder of the record.
    """
    for what, asked, known in (("referee", referees, REFEREES), ("section", names, SECTIONS)):
        if unknown := set(asked) - set(known):
            raise SystemExit(f"unknown {what} {sorted(unknown)[0]!r}; known: {', '.join(known)}")
    if small and out.resolve() == harness.RESULTS.resolve():
        raise SystemExit("--small is no measurement: give it an --out of its own")
    from benchmarks.audit_figure import dots

    for name in names:
        harness.write("audit", name, SECTIONS[name](referees, small), out)
    record = harness.read("audit", out)
    wrong, networks, further = (record[name]["rows"] if name in record else [] for name in SECTIONS)
    if wrong:
        right = networks + further
        summary = scores(wrong, right)
        harness.write("audit", "scores", summary, out)
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
