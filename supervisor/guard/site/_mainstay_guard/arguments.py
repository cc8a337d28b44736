"""What is told of a frame's arguments: name, type, which object, and how big; never a value that is not a plain number.

Only exact builtin types are looked into, and no method of the job's own classes is ever called.
"""

MOST = 12  # arguments of one frame
NAME_CHARS = 100
MOST_BITS = 128
SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def of(frame):
    """[[name, type, identity, number or None, length or None], ...] for the arguments that *frame* still has."""
    code = frame.f_code
    if not code.co_flags & 1:  # a module or a class body
        return []
    count = code.co_argcount + code.co_kwonlyargcount + (code.co_flags >> 2 & 1) + (code.co_flags >> 3 & 1)
    values = frame.f_locals
    return [_told(name, values[name]) for name in code.co_varnames[: min(count, MOST)] if name in values]


def _told(name, value):
    kind = type(value)
    number = length = None
    if kind is int:
        if value.bit_length() <= MOST_BITS:
            number = value
    elif kind is float:
        number = value
    elif kind in SIZED:
        length = len(value)
    return [name[:NAME_CHARS], _type_name(kind), id(value), number, length]


def _type_name(kind):
    try:
        return type.__dict__["__name__"].__get__(kind)[:NAME_CHARS]
    except Exception:
        return "?"
