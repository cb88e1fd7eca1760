"""The record of a model, `model.json`: JSON whose last entry is the digest of every byte before it."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

FORMAT = 1
KIND = "lr_nn model"


def render(content: dict[str, Any]) -> bytes:
    """The record as the bytes of its file; ValueError for what JSON does not know."""
    try:
        text = json.dumps({"kind": KIND, "format": FORMAT, **content}, indent=2, ensure_ascii=False, allow_nan=False)
        said = text.removesuffix("\n}").encode() + b",\n  "
    except (TypeError, ValueError) as error:
        raise ValueError(f"facts must be of JSON, without NaN and infinity: {error}") from error
    return said + f'"sha256": "{hashlib.sha256(said).hexdigest()}"\n}}\n'.encode()


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """The content of a record; ValueError, naming `path` and the reason, where a byte is not as it was rendered."""
    try:
        parsed = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, it is not JSON: {error}") from error
    if not isinstance(parsed, dict) or parsed.get("kind") != KIND:
        raise ValueError(f"{path} is of another program: expected a JSON object whose kind is {KIND!r}")
    if parsed.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {parsed.get('format')!r}, and lr_nn {version('lr-nn')} reads format {FORMAT}: "
            "update lr_nn, or save the model anew"
        )
    found = re.fullmatch(rb'(.*)"sha256": "([0-9a-f]{64})"\n}\n', content, re.DOTALL)
    if found is None or hashlib.sha256(found[1]).hexdigest().encode() != found[2]:
        raise ValueError(f"{path} is damaged, or was edited: its digest is not that of its content")
    return parsed
