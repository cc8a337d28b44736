"""Tells what a program says of something (``/run/secrets/token: No such file or directory``) from a value that stands beside a name.

Owns the closed list of such sentences; whose value it would be otherwise is ``core.redact``'s. The list has only beginnings of two words and more, for
one word (``password: invalid``) may always be the password. What is not on it is taken for a secret: the cost of a gap here is a word that is missing
from a report, the cost of one in the other direction is a password in it.
"""

import builtins
import re
from functools import cache
from typing import Final

# The texts of strerror(3) that have two words and more; a test holds them against the C library. Go and others write them in small letters.
ERRNO_TEXTS: Final = (
    "Accessing a corrupted shared library", "Address already in use", "Address family not supported by protocol",
    "Advertise error", "Argument list too long", "Attempting to link in too many shared libraries", "Bad address", "Bad file descriptor",
    "Bad font file format", "Bad message", "Block device required", "Broken pipe", "Can not access a needed shared library",
    "Cannot allocate memory",
    "Cannot assign requested address", "Cannot exec a shared library directly", "Cannot send after transport endpoint shutdown",
    "Channel number out of range", "Communication error on send", "Connection refused", "Connection reset by peer", "Connection timed out",
    "Destination address required", "Device not a stream", "Device or resource busy", "Directory not empty", "Disk quota exceeded", "Exchange full",
    "Exec format error", "File descriptor in bad state", "File exists", "File name too long", "File too large", "Function not implemented",
    "Host is down", "Identifier removed", "Illegal seek", "Inappropriate ioctl for device", "Input/output error", "Interrupted system call",
    "Interrupted system call should be restarted", "Invalid argument", "Invalid cross-device link", "Invalid exchange",
    "Invalid or incomplete multibyte or wide character", "Invalid request code", "Invalid request descriptor", "Invalid slot",
    "Is a directory", "Is a named type file", "Key has been revoked", "Key has expired", "Key was rejected by service",
    "Level 2 halted", "Level 2 not synchronized", "Level 3 halted", "Level 3 reset", "Link has been severed", "Link number out of range",
    "Machine is not on the network", "Memory page has hardware error", "Message too long", "Multihop attempted",
    "Name not unique on network", "Network dropped connection on reset", "Network is down", "Network is unreachable",
    "No CSI structure available", "No XENIX semaphores available", "No anode", "No buffer space available", "No child processes",
    "No data available", "No locks available", "No medium found", "No message of desired type", "No route to host", "No space left on device",
    "No such device", "No such device or address", "No such file or directory", "No such process", "Not a XENIX named type file",
    "Not a directory", "Numerical argument out of domain", "Numerical result out of range", "Object is remote", "Operation already in progress",
    "Operation canceled", "Operation not permitted", "Operation not possible due to RF-kill", "Operation not supported",
    "Operation now in progress", "Out of memory", "Out of streams resources", "Owner died", "Package not installed", "Permission denied",
    "Protocol driver not attached", "Protocol error", "Protocol family not supported", "Protocol not available", "Protocol not supported",
    "Protocol wrong type for socket", "RFS specific error", "Read-only file system", "Remote I/O error", "Remote address changed",
    "Required key not available", "Resource deadlock avoided", "Resource temporarily unavailable", "Socket operation on non-socket",
    "Socket type not supported", "Software caused connection abort", "Srmount error", "Stale file handle", "State not recoverable",
    "Streams pipe error", "Structure needs cleaning", "Text file busy", "Timer expired", "Too many levels of symbolic links", "Too many links",
    "Too many open files", "Too many open files in system", "Too many references: cannot splice", "Too many users",
    "Transport endpoint is already connected", "Transport endpoint is not connected", "Value too large for defined data type",
    "Wrong medium type", ".lib section in a.out corrupted",
)  # fmt: skip
_ERRNO: Final = tuple(text.lower() for text in ERRNO_TEXTS)
_ERRNO_LONGEST: Final = max(map(len, _ERRNO))

_STATE: Final = (
    r"set|found|given|defined|provided|configured|specified|supplied|available|valid|supported|allowed|permitted|accessible|readable|writable|"
    r"executable|present|recogni[sz]ed|known|installed|loaded|implemented|enough"
)
_NOUN: Final = (
    r"such|secrets?|passwords?|passphrases?|tokens?|keys?|values?|users?|entr(?:y|ies)|matching|data|inputs?|arguments?|parameters?|options?|"
    r"characters?|format|signatures?|credentials?|types?|fields?|files?|headers?|length|syntax|names?|lines?|one argument|at (?:least|most) (?:one|\d)|"
    r"at line \d|or (?:missing|expired|invalid|empty)|by (?:the|a)|access|permissions?"
)
_DEED: Final = (
    r"be|read|open|create|write|find|get|load|parse|access|locate|decode|decrypt|fetch|verify|connect|execute|stat|exist|match|remove|rename|"
    r"deserialize|authenticate|understand|have|contain|change"
)
_FATE: Final = (
    r"has expired|have expired|is (?:missing|required|invalid|empty)|verification failed|mismatch|updated|unchanged|changed|expiry|"
    r"does not match|do(?: not|n't) match"
)
_SENTENCES: Final = (
    rf"(?:(?:is|was|are|were) )?not (?:{_STATE}|yet|be)",
    r"(?:is|was|are|were) (?:empty|missing|required|invalid|unknown|expired|unset|undefined|deprecated|denied|malformed|incorrect|no longer|already)",
    r"has (?:expired|been|no|changed)",
    r"(?:must|should|may|can|could|will|would)(?: not)? (?:be|have|contain|start|end|match|exist)",
    rf"(?:cannot|can't|could not|couldn't|unable to|failed to|did not|does not|do not) (?:{_DEED})",
    rf"(?:no|missing|unknown|invalid|unexpected|illegal|bad|wrong|incorrect|empty|malformed|unrecognized|unsupported|expected|duplicate) (?:{_NOUN})",
    r"(?:command|module|key|file|entry|user|value|secret|object|resource) not (?:found|set|given)",
    r"(?:user|group) ['\"]?[\w.@-]{1,64}['\"]? (?:does not exist|not found|is unknown|already exists)",
    r"(?:line|row|column) \d{1,6}",
    r"(?:a )?(?:field|value|argument|parameter) (?:is )?required",
    r"(?:access|authentication|authorization|permission) (?:is )?(?:denied|failed|failure|error|required|forbidden|token manipulation error)",
    r"connection (?:closed|lost|failed|error)",
    rf"(?:the )?(?:signature|token|key|credentials?|passwords?) (?:{_FATE})",
    r"(?:requires|needs|takes|expects) (?:an?|one) (?:argument|value|parameter)",
    r"error while loading shared",
    r"[45]\d\d (?:client error|server error|unauthorized|forbidden|not found|bad request|internal server error|service unavailable|too many requests)",
    r"\[errno \d{1,4}\]",
)
# What a command line may have beside `--token` is not written in words; only these are said of an option.
_OF_AN_OPTION: Final = (
    r"(?:is|was) (?:not (?:set|given|specified)|required|missing|invalid|deprecated)",
    r"(?:requires|needs|takes|expects) (?:an?|one) (?:argument|value|parameter)",
    r"must be (?:given|set|specified|used)",
)
# The kinds of token that a parser did not expect. Not the token itself: what is parsed may be the file with the passwords.
_KINDS: Final = r"eof|end of (?:file|input|line)|newline|indent|dedent|identifier|punc|operator|keyword"
_ENDS: Final = r"(?![\w'\"-])"


def is_complaint(text: str, at: int) -> bool:
    """True where what begins at *at*, after a name and a colon, is what a program says of the thing with that name."""
    head = text[at : at + _ERRNO_LONGEST + 1].lower()
    if head.startswith(_ERRNO):
        return any(head.startswith(one) and not head[len(one) : len(one) + 1].isalnum() for one in _ERRNO)
    return bool(_sentences().match(text, at))


def is_said_of_an_option(text: str, at: int) -> bool:
    """True where what begins at *at*, after ``--name`` and a blank, is said of that option."""
    return bool(_of_an_option().match(text, at))


def names_a_kind_of_token(text: str, begins: int, at: int) -> bool:
    """True for ``unexpected token: EOF``, whose ``token`` begins at *begins* and whose kind at *at*."""
    return text[max(0, begins - 11) : begins].lower() == "unexpected " and bool(_kind_of_token().match(text, at))


@cache
def _sentences() -> re.Pattern[str]:
    errors = sorted(name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, Exception))
    return re.compile(rf"(?:(?:{'|'.join(_SENTENCES)}){_ENDS}|(?-i:{'|'.join(errors)}): |(?:error|warning|fatal|usage): )", re.IGNORECASE)


@cache
def _of_an_option() -> re.Pattern[str]:
    return re.compile(rf"(?:{'|'.join(_OF_AN_OPTION)}){_ENDS}", re.IGNORECASE)


@cache
def _kind_of_token() -> re.Pattern[str]:
    return re.compile(rf"(?:{_KINDS}){_ENDS}", re.IGNORECASE)
