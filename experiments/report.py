"""What a run has to say, once for the terminal and once as a page: tables, figures, sections."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template
    from rich.table import Table as TerminalTable

TEMPLATES = Path(__file__).parent / "templates"
LONGEST = 40  # rows of a table on the terminal


@dataclass(frozen=True)
class Figure:
    """A saved picture. `alt` says in words what it shows; a `wide` one takes the whole width of the page."""

    path: Path
    alt: str
    caption: str
    wide: bool = False

    @property
    def data(self) -> str:
        """The picture to be written into a page: a data URI, in lossless WebP of about a third of the file's size."""
        from PIL import Image

        content = io.BytesIO()
        with Image.open(self.path) as picture:
            picture.convert("RGB").save(content, "WEBP", lossless=True, quality=60)
        return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, which a PNG states in its first header."""
        header = self.path.read_bytes()[16:24]
        return int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")


@dataclass(frozen=True)
class Table:
    """Rows of text. The first column heads its row; the others are right-aligned. `notes` stand below."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def for_terminal(self) -> TerminalTable:
        """The table for rich, narrow enough for 80 columns if the texts are; of a long one the first rows."""
        from rich import box
        from rich.table import Table as TerminalTable

        more = [f"and {len(self.rows) - LONGEST:,} rows more, in report.html"] if len(self.rows) > LONGEST else []
        table = TerminalTable(
            title=self.title,
            title_justify="left",
            title_style="bold",
            caption="\n".join([*more, *self.notes]) or None,
            caption_justify="left",
            caption_style="",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        for i, column in enumerate(self.columns):
            table.add_column(column, justify="right" if i else "left", vertical="bottom", no_wrap=not i)
        for row in self.rows[:LONGEST]:
            table.add_row(*row)
        return table


@dataclass(frozen=True)
class Section:
    """A heading of the page and what stands under it, in this order: text, facts, tables, figures."""

    title: str
    text: tuple[str, ...] = ()
    facts: Mapping[str, str] | None = None
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


def render(title: str, lead: str, sections: Sequence[Section], config: Mapping[str, Any]) -> str:
    """The page: self-contained, in light and dark, for a phone as for a desk."""
    return template("report.html.jinja").render(title=title, lead=lead, sections=sections, config=config)


def template(name: str) -> Template:
    """A template of this folder. What is put into it is text, and names that it misses are mistakes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
