"""Whose an error is: a RecursionError at a limit of the interpreter, a MemoryError that an allocation met, or one that the job's own code raised by hand."""

from supervisor.core.cycle import FEWEST_LEVELS
from supervisor.core.evidence import ExceptionFacts

# CPython's own, with ", in comparison" and the like behind the first where C code met its limit; the second from 3.14 on.
OVERRUN = "maximum recursion depth exceeded"
OVERRUN_WORDS = (OVERRUN, "Stack overflow (used ")
UNREADABLE = "<"  # what the guard writes for a message that could not be had
PARSER_WORDS = ("too complex", "Parser stack overflow", "parser stack overflow")  # of nesting in a source, and not of memory
GROUPS = ("ExceptionGroup", "BaseExceptionGroup")


def is_overrun(error: ExceptionFacts) -> bool:
    """A RecursionError that the interpreter raised at a limit. One that a ``raise`` of the job's made says what its author thought of, at any depth;
    where nobody knows which it was, the words and the depth tell."""
    if error.type != "RecursionError" or error.is_raised:
        return False
    if error.message and not error.message.startswith((*OVERRUN_WORDS, UNREADABLE)):
        return False  # sys.setrecursionlimit has one of its own, and so may others
    return error.is_raised is False or len(error.message) > len(OVERRUN) or error.depth >= FEWEST_LEVELS


def overrun_of(error: ExceptionFacts) -> ExceptionFacts | None:
    """The overrun that *error* is, by itself, as a copy of what ended a worker, or as a member of a group that nobody took apart."""
    if is_overrun(error):
        return error
    is_same = error.type == "RecursionError" or error.type in GROUPS
    return error.root if is_same and error.root is not None and is_overrun(error.root) else None


def is_memory_error(kind: str) -> bool:
    """A MemoryError or a kind of it (numpy has one); not one that speaks of another memory than the job's own."""
    name = kind.rpartition(".")[2]
    return name.endswith("MemoryError") and not name.startswith("OutOf")


def refusal_of(error: ExceptionFacts) -> ExceptionFacts | None:
    """The MemoryError that an allocation met, as far as is known: *error* by itself, as a copy of what ended a worker, or as a member of a group. Not one
    that was raised by hand, nor the parser's."""
    is_same = is_memory_error(error.type) or error.type in GROUPS
    found = error.root if is_same and error.root is not None and is_memory_error(error.root.type) else error
    is_one = is_memory_error(found.type) and not found.is_raised and not any(words in found.message for words in PARSER_WORDS)
    return found if is_one else None
