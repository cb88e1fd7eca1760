"""The words that run a command again."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any


def words(name: str, options: Any) -> list[str]:
    """A command and those of its options that are not as they would be otherwise."""
    said = [name]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in ("json", "debug", "overwrite", "resume", "process_id") or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if field.name in ("data", "model") and isinstance(value, Path):
            said.insert(1, str(value))
        elif isinstance(value, bool):
            said.append(flag if value else "--no-" + flag[2:])
        else:
            said += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return said
