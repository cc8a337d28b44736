"""Takes secrets out of what is written down or shown: by the form of a value, by the name beside it, and by knowing it.

Every text that comes from a job (its output, its exceptions, what was seen in it) goes through one ``Redactor`` before a verdict is made of it, so
nothing that follows (dossier, history, alert, log, page) has to think of it again. What it cannot know is a secret without a form, a name or a place
in the config: a password that a job prints bare. Patterns are bounded, for the text may be made to be slow.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from supervisor.core import complaints
from supervisor.core.evidence import Evidence, Frame
from supervisor.core.jobs import Job

T = TypeVar("T")

REDACTED: Final = "[redacted]"
SHORTEST: Final = 6  # a known value that is shorter stands in too many words
KNOWN_MAX: Final = 500
# Read of an output before what is kept of it, so that no secret is cut before it is seen: a private key has 3,272.
SLACK_BYTES: Final = 4096
_CUT_CHARS: Final = 300  # the shortest bound at which the guard or we cut what an exception says
_TORN_CHARS: Final = 4  # of a known secret are taken out at a cut; fewer are any word's
_TORN_MOST: Final = 4096

_WORD: Final = (
    r"pass(?:w(?:or)?d|wd|phrase|code)|pwd|secrets?|tokens?|credentials?|cookies?|session_?id|authorization|dsn|signature|"
    r"(?:api|access|account|auth|private|secret|signing|encryption|shared|master)[_-]?key"
)
_SECRETIVE: Final = re.compile(
    r"PASS|(?<=[_-])PWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|AUTH|COOKIE|SESSION[_-]?(ID|KEY)|SIGNATURE|DSN|(^|[_-])(API|ACCESS|ACCOUNT|ENCRYPTION|SIGNING|SHARED|MASTER)?_?KEY($|[_-])",
    re.IGNORECASE,
)
# A name with its value: password=..., "token": "...", --api-key ..., '--password', '...'.
_NAMED: Final = re.compile(
    rf"""((?:{_WORD})[\w-]{{0,40}}["']?\s{{0,3}}(?:=|:(?!//))\s{{0,3}}(?!(?:\w{{1,10}}\s{{1,3}})?["']?\[redacted)(?:(?:bearer|basic|token)\s{{1,3}})?)("[^"]{{1,4096}}"?|'[^']{{1,4096}}'?|[^\s"'&;,)\]}}]{{1,4096}})"""
    rf"""|((?<![\w-])--?[\w-]{{0,40}}?(?:{_WORD})[\w-]{{0,40}}(?:["'],\s{{0,3}}["']|\s{{1,3}}["']?))(?!\[redacted)([^\s"'&;,-][^\s"'&;,]{{0,4096}})""",
    re.IGNORECASE,
)
_SAYS: Final = re.compile(r":[ \t]{1,3}")  # as people and programs write; a file of settings may have the value on the next line
# An address up to the blank, quote or next address behind it.
_ADDRESS: Final = re.compile(r"://([^\s\"'<>:]*(?::(?!//)[^\s\"'<>:]*)*)")
_SHAPED: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}-----|\Z)"
    r"|(?<=Bearer )\s{0,3}[^\s\"']{6,4096}"
    r"|(?<=Basic )(?=[A-Za-z]{0,60}[0-9+/=])[A-Za-z0-9+/]{6,4096}={0,2}"
    r"|(?<![\w-])eyJ[\w-]{8,4096}\.[\w-]{8,4096}\.[\w-]{0,4096}"
    r"|(?<![A-Za-z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}"
    r"|(?<!\w)(?:gh[pousr]_\w{20,255}|github_pat_\w{20,255}|glpat-[\w-]{20,255}|npm_\w{30,255}|xox[abeprs]-[\w-]{10,255}|AIza[\w-]{35}"
    r"|[sr]k_(?:live|test)_\w{16,255}|sk-[\w-]{20,255})"
    r"|(?<=hooks\.slack\.com/services/)[\w/-]{8,255}",
    re.DOTALL,
)


# The patterns from here on are compiled when they are first asked for: a start has no use for them.
_ESCAPED: Final = r"(?:%[0-9A-Fa-f]{2})+"
_UNNAMED: Final = frozenset("=:@ ")
# The same in a setting, which is one value: quotes are a part of it.
_SET_ADDRESS: Final = r"://([^\s:]*(?::(?!//)[^\s:]*)*)"
_PORT: Final = r"[^@]*:\d{1,5}|\[.*"
# Where a value with a secretive name is a place and not the secret: the name says so (SSH_AUTH_SOCK, PGPASSFILE), or the value begins as no key does.
_NAMES_A_PLACE: Final = r"(?i)(?:SOCK(?:ET)?|FILE(?:NAME)?|PATH|DIR(?:ECTORY)?|FOLDER|HOME|ROOT|ASKPASS|XAUTHORITY)S?$"
_SYSTEM_PATH: Final = r"/(?:bin|dev|etc|home|lib|media|mnt|nix|opt|proc|root|run|sbin|srv|sys|tmp|usr|var)(?:/|$)"
# What stands as a word of its own in a shell's line, a connection string or a query: NAME=value.
_ASSIGNED: Final = r"""(?<![^\s?&;"'])([A-Za-z_][\w.-]{0,60})=("[^"]{1,4096}"|'[^']{1,4096}'|[^\s"'&;]{1,4096})"""
_HEADER: Final = r"(?i)([A-Za-z][\w-]{0,60}):[ \t]{0,3}(?:(?:bearer|basic|token)[ \t]{1,3})?([^\n]{1,4096})"
_REFERENCE: Final = r"\$(?:[({]|[A-Z_][A-Z0-9_]*$)|`|%\(|\{\w+\}|\[redacted"
_CALL: Final = r"[A-Za-z_][\w.]*[(\[]"
_HINT: Final = "(?i)PASS|PWD|SECRET|TOKEN|CREDENTIAL|PRIVATE|AUTH|COOKIE|SESSION|SIGNATURE|DSN|KEY"
_NAMES_ONE: Final = rf"(?i)(?:{_WORD}|(?<=[_-])AUTH|PASS|(?<=[_-])PRIVATE)(?<!TOKENS)$"
_PLAIN_WORD: Final = r"(?:[A-Za-z]?[a-z]*|[A-Z]*)[0-9]{0,4}|[0-9]*"
_PADDED: Final = r"[A-Za-z0-9+/]+={1,2}"


def is_secretive(name: str) -> bool:
    """True for names whose values should not be shown to whoever looks on."""
    return bool(_SECRETIVE.search(name))


class Redactor:
    """Takes out what has the form of a secret, and the *known* ones wherever they stand."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        parts = {part for value in known for part in (value, *value.splitlines()) if _is_findable(part)}
        longest = sorted(parts, key=len, reverse=True)[:KNOWN_MAX]
        spelled = {spelling for part in longest for spelling in _spellings(part) if _is_findable(spelling)}
        self._spelled = sorted(spelled, key=len, reverse=True)
        self._known = _any_of(self._spelled) if spelled else None

    def text(self, text: str) -> str:
        """*text* with ``REDACTED`` in place of each secret."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if len(text) < SHORTEST:
            return text
        text = without_user(_SHAPED.sub(REDACTED, text), REDACTED)
        return _NAMED.sub(_without_value, text)

    def end_of_output(self, text: str, most: int, *, is_cut: bool) -> str:
        """The last *most* bytes of an output whose last *most* and ``SLACK_BYTES`` are *text*; bytes that are no UTF-8 are lone surrogates.

        *is_cut*: it may have been cut in the middle of a word, by a limit or a signal.
        """
        clean = self.text(text)
        if is_cut:
            clean = self._without_torn_end(clean)
        if len(text.encode(errors="surrogateescape")) >= most + SLACK_BYTES:  # there was more before it
            clean = self._without_torn_beginning(clean)
        return clean.encode(errors="surrogateescape")[-most:].decode(errors="surrogateescape")

    def message(self, text: str) -> str:
        """*text* as ``text`` has it, where it may have been cut already: the beginning of a known secret at its end is taken out, too."""
        clean = self.text(text)
        return self._without_torn_end(clean) if len(text) >= _CUT_CHARS else clean

    def _without_torn_end(self, text: str) -> str:
        longest = 0
        for secret in self._spelled:
            end = text[-min(len(secret) - 1, _TORN_MOST) :]
            at = end.find(secret[:_TORN_CHARS])
            while at >= 0 and not secret.startswith(end[at:]):
                at = end.find(secret[:_TORN_CHARS], at + 1)
            if at >= 0:
                longest = max(longest, len(end) - at)
        return text[: len(text) - longest] + REDACTED if longest else text

    def _without_torn_beginning(self, text: str) -> str:
        longest = 0
        for secret in self._spelled:
            beginning = text[: min(len(secret) - 1, _TORN_MOST)]
            end = beginning.rfind(secret[-_TORN_CHARS:]) + _TORN_CHARS
            while end >= _TORN_CHARS and not secret.endswith(beginning[:end]):
                end = beginning.rfind(secret[-_TORN_CHARS:], 0, end - 1) + _TORN_CHARS
            if end >= _TORN_CHARS:
                longest = max(longest, end)
        return REDACTED + text[longest:] if longest else text

    def facts(self, value: T) -> T:
        """*value* (structs, tuples, texts) with every text in it redacted; the same object where nothing was."""
        return cast("T", _Walk(self).through(value))


def without_user(text: str, instead: str) -> str:
    """*text* with *instead* in place of user and password in each address (``://user:password@host``) in it."""
    return (
        _ADDRESS.sub(lambda found: f"://{instead}{found[1][end:]}" if (end := _user_end(found[1])) > 0 else found[0], text)
        if "@" in text
        else text
    )


def _user_end(address: str) -> int:
    """Where the ``@`` behind the user info is in an *address* without its scheme; -1 if it has none.

    By the standard it is the last one before the path. But people put passwords into addresses as they are, and many programs take them: one with a
    ``/`` makes what stands before it look like host and port, one with both like a host whose name has no dot.
    """
    path = address.find("/") if "/" in address else len(address)
    standard, last = address.rfind("@", 0, path), address.rfind("@")
    before = address[:path]
    if standard >= 0:
        host = before[standard + 1 :]
        return last if ":" in before[:standard] and not set(host) & {".", ":"} else standard
    return last if ":" in before and not re.fullmatch(_PORT, before) else -1


def _any_of(texts: Sequence[str]) -> re.Pattern[str]:
    """What finds the first of *texts* that stands there. Those that begin alike are tried together: with hundreds that is most of the time."""
    beginnings: dict[str, list[str]] = {}
    for text in texts:
        beginnings.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?:{'|'.join(rest)})" for first, rest in beginnings.items()))


def _is_findable(text: str) -> bool:
    return len(text) >= SHORTEST and not text.isspace()


def _spellings(value: str) -> Iterator[str]:
    """*value* as programs print it: bare, in a list or a KeyError, in JSON, in an address, and taken out of an address."""
    yield value
    if value.isalnum() and value.isascii():
        return
    import json  # most secrets have no use for it, and a config is loaded without it

    decoded = re.sub(_ESCAPED, lambda found: bytes.fromhex(found[0].replace("%", "")).decode(errors="replace"), value)
    for one in {value, decoded}:
        yield one
        yield repr(one)[1:-1]
        yield repr(one + "'\"")[1:-4]  # where the text has both quotes, the single one is escaped
        yield json.dumps(one)[1:-1]
        yield json.dumps(one, ensure_ascii=False)[1:-1]
        yield from (_percent_encoded(one, plain) for plain in ("-._~", "-._~/", "-._~!$&'()*+,;="))


def _percent_encoded(text: str, plain: str) -> str:
    """*text* as in an address, where letters, digits and *plain* stand for themselves."""
    kept = (char if (char.isalnum() and char.isascii()) or char in plain else "" for char in text)
    return "".join(one or "".join(f"%{byte:02X}" for byte in char.encode(errors="replace")) for one, char in zip(kept, text, strict=True))


class _Walk:
    """One pass over a value; what was seen is remembered, for a recursion's frames are the same hundreds of times."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._texts: dict[str, str] = {}
        self._frames: dict[Frame, Frame] = {}

    def through(self, value: Any) -> Any:
        if type(value) is str:
            known = self._texts.get(value)
            if known is None:
                known = self._texts[value] = self._redactor.message(value)
            return known
        if type(value) is tuple:
            made = tuple(map(self.through, value))
            return value if all(a is b for a, b in zip(made, value, strict=True)) else made
        if type(value) is Frame:
            known_frame = self._frames.get(value)
            if known_frame is None:
                known_frame = self._frames[value] = self._frame(value)
            return known_frame
        return self._fields(value) if isinstance(value, Struct) else value

    def _frame(self, frame: Frame) -> Frame:
        """The names of functions are many and of code; only one that no code has is looked at."""
        file = self.through(frame.file)
        function = self.through(frame.function) if any(char in _UNNAMED for char in frame.function) else frame.function
        return frame if file is frame.file and function is frame.function else Frame(function, file, frame.line)

    def _fields(self, value: Struct) -> Struct:
        changes = {}
        for name in value.__struct_fields__:
            before = getattr(value, name)
            after = self.through(before)
            if after is not before and after != before:
                changes[name] = after
        return replace(value, **changes) if changes else value


def _without_value(match: re.Match[str]) -> str:
    if _is_prose(match):
        return match[0]
    name, value = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
    quote = value[0] if value[0] in "\"'" else ""
    return f"{name}{quote}{REDACTED}{quote if len(value) > 1 and value.endswith(quote) else ''}"


def _is_prose(match: re.Match[str]) -> bool:
    """True where a name stands before a sentence about it rather than its value: ``cat: /run/secrets/token: No such file or directory``."""
    if match[1] is None:
        return match[3][-1] in " \t" and complaints.is_said_of_an_option(match.string, match.start(4))
    said = _SAYS.search(match[1])
    return said is not None and (
        complaints.is_complaint(match.string, match.start(1) + said.end())
        or complaints.names_a_kind_of_token(match.string, match.start(1), match.start(2))
    )


def without_messages(evidence: Evidence) -> Evidence:
    """The same without what exceptions say, for a job whose config wants it so: their types and places stay."""
    error = evidence.words.exception
    if error is None:
        return evidence
    root = None if error.root is None else replace(error.root, message="")
    bare = replace(error, message="", chain=tuple(link.partition(":")[0] for link in error.chain), root=root)
    return replace(evidence, words=replace(evidence.words, exception=bare))


# ---------------------------------------------------------------- what is known


def secrets_of(job: Job, inherited: Mapping[str, str]) -> Iterator[str]:
    """The secrets that a job is given: in its environment (its own, and what it inherits) and in its arguments."""
    for name, value in {**inherited, **job.launch.environment}.items():
        if name.startswith("MAINSTAY_"):  # ours: names of jobs and places of files
            continue
        if (is_secretive(name) and not _is_place(name, value)) or looks_secret(value):
            yield value
        yield from _secrets_in_text(value)
    yield from secrets_in_arguments(job.launch.argv)


def secrets_in_arguments(argv: Sequence[str]) -> Iterator[str]:
    """Values of options with a secretive name, and what else in the arguments has such a name beside it; passwords in addresses."""
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name.startswith("-") and is_secretive(name):
            following = argv[position + 1 : position + 2]
            yield from [value] if equals else [one for one in following if not one.startswith("-")]
        yield from _secrets_in_text(argument)


def _secrets_in_text(text: str) -> Iterator[str]:
    """What stands beside a secretive name in an argument or a variable, and passwords in addresses.

    The text may be a script, so that names, references and calls stand there as well (``connect(password=password)``), and in sentences any word:
    those are not taken for secrets, for they would be blanked out of all that the job says.
    """
    yield from _passwords(text)
    if not re.search(_HINT, text):
        return
    whole = re.fullmatch(_HEADER, text)
    if whole is not None and _is_given(whole[1], whole[2], whole=True) and not complaints.is_complaint(text, whole.start(2)):
        yield whole[2].strip()
    for found in re.finditer(_ASSIGNED, text):
        if _is_given(found[1], value := _unquoted(found[2]), whole=found.span() == (0, len(text))):
            yield value
    for found in _NAMED.finditer(text):
        name, value = (found[1], found[2]) if found[1] is not None else (found[3], found[4])
        value = _unquoted(value)
        if not _is_plain(value) and _is_given(name.strip("\"'- ,\t=:"), value) and not _is_prose(found):
            yield value


def _is_given(name: str, value: str, *, whole: bool = False) -> bool:
    """Whether *value*, which stands beside *name*, is a secret: no place of one, no reference to it, and no word of a script. *whole*: nothing else
    stands in the argument."""
    if not is_secretive(name) or _is_place(name, value) or re.match(_REFERENCE, value) or (not whole and re.match(_CALL, value)):
        return False
    return not _is_plain(value) or (re.search(_NAMES_ONE, name) is not None and re.fullmatch(r"[\w -]+", value) is not None)


def _unquoted(value: str) -> str:
    return value.strip(value[0]) if value[0] in "\"'" else value


def _is_plain(value: str) -> bool:
    """True for words and numbers as they stand in sentences and in code: ``missing``, ``sha256``, ``args.password``, ``get_token(``."""
    if all(re.fullmatch(_PLAIN_WORD, word) for word in re.split(r"[\W_]+", value)):
        return True
    return is_secretive(value) and not any(map(str.isdigit, value))


def secrets_in_settings(value: object, name: str = "") -> Iterator[str]:
    """The secrets in a receiver or another frozen setting: fields with a secretive name, and what addresses carry."""
    fields = (
        value.__struct_fields__ if isinstance(value, Struct) else getattr(value, "__dataclass_fields__", ())
    )  # those with secrets are dataclasses
    if fields:
        for field in fields:
            yield from secrets_in_settings(getattr(value, field), field)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from secrets_in_settings(one, str(key))
    elif isinstance(value, tuple | list | frozenset):
        for one in value:
            yield from secrets_in_settings(one, name)
    elif isinstance(value, str) and is_secretive(name):
        yield value
    elif isinstance(value, str):
        yield from _address(value)


def _is_place(name: str, value: str) -> bool:
    """Whether *value* says where the secret is. One in 64 secrets in base64 begins with ``/``, too, so that alone says nothing."""
    return value.startswith("/") and bool(re.search(_NAMES_A_PLACE, name) or re.match(_SYSTEM_PATH, value))


def looks_secret(value: str) -> bool:
    """A long value of letters and digits mixed, as machines make them; no path, no sentence."""
    if not 20 <= len(value) <= 500 or any(char.isspace() or char in ":,;" for char in value):
        return False
    if "/" in value and (len(value) % 4 or not re.fullmatch(_PADDED, value)):  # base64 that is padded; no path ends so
        return False
    kinds = sum((any(map(str.isdigit, value)), any(map(str.islower, value)), any(map(str.isupper, value))))
    return kinds >= 2 and any(map(str.isdigit, value))


def _passwords(text: str) -> Iterator[str]:
    """Passwords in the addresses of *text*: ``://user:password@``, each as far as it may reach."""
    if "@" not in text:
        return
    for found in (*_ADDRESS.finditer(text), *re.finditer(_SET_ADDRESS, text)):
        info = found[1][: max(0, _user_end(found[1]))]
        user, colon, password = info.partition(":")
        if colon:
            yield from {password, password.partition("@")[0]}
        elif looks_secret(user):
            yield user


def _address(text: str) -> Iterator[str]:
    """What may be secret in an address that is given to a receiver: the password, long parts of its path, values of its query."""
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme.isascii():
        return
    yield from _passwords(text)
    path, _, query = rest.partition("?")
    if "@" in path:
        yield path.rpartition("@")[0]
    yield from (part for part in path.split("/")[1:] if len(part) >= 12)
    yield from (value for pair in query.split("&") if len(value := pair.partition("=")[2]) >= SHORTEST)
