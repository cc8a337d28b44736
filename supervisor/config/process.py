"""What a process is given, as values of config.yaml: its command, its file mode mask, the signal that ends it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.config.document import Node, Scalar
from supervisor.config.kinds import BAD, MASK, TEXT, Context, Json, Kind, ListOf, ScalarKind, Text, bare, quoted_bare
from supervisor.core.redact import is_secretive
from supervisor.core.units import quoted


class Mask(ScalarKind):
    """A file mode mask in octal, in quotes because plain 022 is the number 18 to other readers of YAML."""

    form = 'three octal digits in quotes, e.g. "022"'

    def parse(self, node: Scalar, context: Context) -> int:
        del context
        if not re.fullmatch(r"0?[0-7]{3}", node.text):
            raise ValueError(f"{quoted(node.text)} is not a umask; write {self.form}")
        if node.plain:
            raise ValueError(f'{node.text} without quotes is another number to other readers of YAML; write "{node.text}"')
        return int(node.text, 8)

    def plain(self, value: Any) -> Any:
        return f"{value:03o}"

    def schema(self) -> Json:
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}


class Signal(ScalarKind):
    """The name of a signal; the value is without SIG."""

    form = "a signal by name, e.g. TERM, INT or HUP"

    def parse(self, node: Scalar, context: Context) -> str:
        del context
        import signal

        name = node.text.upper().removeprefix("SIG")
        known = name.isalnum() and f"SIG{name}" in signal.Signals.__members__
        if node.text.isdecimal() and node.text.isascii() and len(node.text) < 3 and int(node.text) in list(signal.Signals):
            raise ValueError(f"{quoted(node.text)} is a number; write {signal.Signals(int(node.text)).name.removeprefix('SIG')}")
        if not known:
            raise ValueError(f"{quoted(node.text)} is not a signal; write {self.form}")
        if node.text not in (name, f"SIG{name}"):
            raise ValueError(f"{quoted(node.text)} is not a signal; write {name}")
        if name in ("STOP", "TSTP", "CONT", "CHLD", "CLD"):
            raise ValueError(f"{quoted(node.text)} does not end a process; write {self.form}")
        return name

    def schema(self) -> Json:
        return {"type": "string", "pattern": "^(SIG)?[A-Z][A-Z0-9]+$"}


@dataclass(eq=False)
class Command(Kind):
    """A program and its arguments; no shell reads them."""

    shell_hint: str = "; for a shell, use the key shell"
    form = "the program and its arguments as a list, e.g. [python, job.py]"

    def read(self, node: Node, context: Context) -> Any:
        if isinstance(node, Scalar) and not node.is_null:
            raise ValueError(f"{quoted_bare(node.text)} is one text; write {as_words(node.text)}{self.shell_hint}")
        words = _COMMAND.read(node, context)
        if words is not BAD and not words[0]:
            raise ValueError(f"names an empty program; write {self.form}")
        return words

    def plain(self, value: Any) -> Any:
        return masked_words(value)

    def schema(self) -> Json:
        return _COMMAND.schema()


class ShellLine(Text):
    """A line for a shell."""

    def plain(self, value: Any) -> Any:
        return bare(value)


def masked_words(argv: Sequence[str]) -> list[str]:
    """*argv* as it may be shown: without the values of options with the name of a secret, and without what has the form of one."""
    shown, follows = [], False
    for word in argv:
        name, equals, value = word.partition("=")
        is_named = is_secretive(name) and re.fullmatch(r"-{0,2}[\w-]+", name) and not re.search(r"(file|path|dir)$", name, re.IGNORECASE)
        if follows and not word.startswith("-"):
            shown.append(MASK)
        elif is_named and value:  # --token=..., and TOKEN=... after env
            shown.append(f"{name}={MASK}")
        else:
            shown.append(bare(word))
        follows = bool(is_named) and not equals and word.startswith("-")
    return shown


def as_words(text: str) -> str:
    """*text* split as a shell would, as a list in YAML: what to write instead of it, without the secrets in it."""
    import json
    import shlex

    try:
        words = shlex.split(text[:200])
    except ValueError:
        words = text[:200].split()
    return (
        f"[{', '.join(word if re.fullmatch(r'[A-Za-z_./-][A-Za-z0-9_./-]*', word) else json.dumps(word) for word in masked_words(words))}]"
    )


_COMMAND = ListOf(TEXT, tuple, "[python, job.py]", least=1)
