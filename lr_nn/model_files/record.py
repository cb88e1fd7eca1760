"""The record of a model, `model.json`: JSON that carries the digest of its own content."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

FORMAT = 1
KIND = "lr_nn model"


def render(content: dict[str, Any]) -> bytes:
    """The record as the bytes of its file; ValueError for what JSON does not know."""
    try:
        # There and back: what is digested is what will be read, its keys text and its tuples lists.
        content = json.loads(json.dumps({"kind": KIND, "format": FORMAT, **content}, allow_nan=False))
        signed = content | {"sha256": _digest(content)}
        return (json.dumps(signed, indent=2, ensure_ascii=False) + "\n").encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"facts must be of JSON, without NaN and infinity: {error}") from error


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """The content of a record; ValueError, naming `path` and the reason, where it is not as it was rendered."""
    try:
        parsed = json.loads(content.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, it is not JSON: {error}") from error
    if not isinstance(parsed, dict) or parsed.get("kind") != KIND:
        raise ValueError(f"{path} is of another program: expected a JSON object whose kind is {KIND!r}")
    if parsed.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {parsed.get('format')!r}, and lr_nn {version('lr-nn')} reads format {FORMAT}: "
            "update lr_nn, or save the model anew"
        )
    digest = parsed.pop("sha256", None)
    if digest != _digest(parsed):
        raise ValueError(f"{path} is damaged, or was edited: its digest is not that of its content")
    return parsed


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


def _digest(content: dict[str, Any]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
