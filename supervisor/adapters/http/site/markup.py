"""HTML out of templates in which every value is escaped. What is already HTML says so by its type, and nothing else can pass.

Templates are literals of ours with double quotes around each attribute: ``html('<b title="{t}">{t}</b>', t=text)``.
"""

from collections.abc import Iterable
from html import escape
from string import Formatter
from typing import Any
from urllib.parse import quote


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


class _Escaping(Formatter):
    """``str.format`` with names only: no attribute, index or format can be reached from a template."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> tuple[Any, str]:  # noqa: ARG002  # as the base has it
        return kwargs[field_name], field_name

    def format_field(self, value: Any, format_spec: str) -> str:
        if format_spec:
            raise ValueError("a template of ours formats nothing; give it the finished text")
        return value if isinstance(value, Html) else shown(str(value))


_FORMATTER = _Escaping()
_BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def html(template: str, **values: object) -> Html:
    """*template* with its ``{names}`` filled in, each escaped unless it is ``Html``."""
    return Html(_FORMATTER.vformat(template, (), values))


def shown(text: str) -> str:
    """*text* escaped for HTML, in text and in quoted attributes. Control characters become visible: no job draws on our pages."""
    plain = "".join(c if c in "\n\t" or (c.isprintable() and c not in _BIDI) else c.encode("unicode_escape").decode("ascii") for c in text)
    return escape(plain, quote=True)


def joined(parts: Iterable[Html], between: str = "") -> Html:
    """Pieces of HTML in a row."""
    return Html(between.join(parts))


def link(*parts: object) -> str:
    """A path of ours, each part quoted: nothing in a name can leave its place."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


NOTHING = Html("")
