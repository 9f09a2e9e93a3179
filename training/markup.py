"""HTML whose every text is escaped: labels and column names come from whoever made the data."""

import html
from typing import Any

LONGEST_TEXT = 120
"""Characters of a name that are shown."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *content: Any, **attributes: str) -> Markup:
    """An element. Content that is no `Markup` is text; a trailing underscore of an attribute is for Python alone."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value, quote=True)}"' for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{together(*content)}</{name}>")


def together(*content: Any) -> Markup:
    """Pieces one after another."""
    return Markup("".join(one if isinstance(one, Markup) else text(str(one)) for one in content))


def named(name: str) -> Markup:
    """A name that others chose: cut where it is endless, and apart from the direction of the text around it."""
    cut = name if len(name) <= LONGEST_TEXT else name[: LONGEST_TEXT - 1] + "…"
    return tag("bdi", cut or "(empty)")


def text(content: str) -> Markup:
    """Escaped text; what cannot be shown, such as control characters, is the replacement character."""
    shown = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in content)
    return Markup(html.escape(shown, quote=True))


def table(head: tuple[Any, ...], rows: list[tuple[Any, ...]], kind: str = "") -> Markup:
    """A table; the first cell of each row is its heading, and all others are numbers.

    Of the kind `texts` all cells are texts, of the kind `pairs` the first two.
    """
    headings = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in cells)) for first, *cells in rows]
    return tag("div", tag("table", tag("thead", headings), tag("tbody", *body)), class_=f"table {kind}".strip())
