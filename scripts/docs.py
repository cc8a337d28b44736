"""Writes the generated parts of docs/ anew, from the tables that the program itself reads. ``--check`` only compares, for the tests.

In a page, only what stands between BEGIN and END is ours; the text around it is written by people and kept.
"""

import argparse
import json
import sys
from pathlib import Path

from supervisor.adapters import metrictable
from supervisor.config import jsonschema, reference

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN = "<!-- from here on made by `make docs`; do not edit -->\n"
END = "<!-- until here -->\n"


def page(name: str, title: str, generated: str) -> str:
    """The page *name* as it should be: its own text with the generated part replaced, or a new page of that *title*."""
    path = DOCS / name
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{BEGIN}{END}"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        before, after = text.rstrip() + "\n\n", ""
    return f"{before}{BEGIN}\n{generated.strip()}\n\n{END}{after}"


def pages() -> dict[str, str]:
    """File name → what it should hold."""
    return {
        "configuration.md": page("configuration.md", "config.yaml", reference.reference()),
        "metrics.md": page("metrics.md", "Metrics", metrictable.reference()),
        "config.schema.json": json.dumps(jsonschema.schema(), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> int:
    """0 when the pages are as the code wants them (now)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 if a page is out of date")
    checking = parser.parse_args().check
    stale = 0
    for name, text in pages().items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if checking:
            print(f"docs/{name} is out of date: make docs")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"docs/{name}")
    return 1 if checking and stale else 0


if __name__ == "__main__":
    sys.exit(main())
