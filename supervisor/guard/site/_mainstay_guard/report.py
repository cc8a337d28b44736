"""What is written when something ends badly: a bounded record of one exception, facts first, the costly parts after.

Works while the job is out of memory or at odds with its own modules: no imports beyond the guard, an own JSON writer.
"""

import _thread
import posix
import sys

from _mainstay_guard import files, lineage

MESSAGE_CHARS = 2000
NAME_CHARS = 200
PATH_CHARS = 500
OUTERMOST, INNERMOST = 40, 360  # frames kept of a deep stack; the cycle is found in the innermost ones
FEW = 20  # innermost frames in the facts
INNERMOST_TOLD = 64  # frames whose arguments are told: nine turns of a cycle of seven
DEEP = 50  # frames: below that nobody asks what a recursion hands on
CHAIN = 8
ROOTS = 64  # exceptions asked where one came from
ROOT_OUTERMOST, ROOT_INNERMOST = 10, 80  # frames kept of that
ORIGINS = 8  # other exceptions that are told beside the one that ended it
ORIGIN_FUNCTIONS = 20
REMOTE_CHARS = 6000  # of the text of a traceback that came from another process
STACK_LEVELS = 100  # told of a stack that was asked for
STACKS_BYTES = 1 << 20  # of all of them
DEEPEST = 2000000  # frames counted; a chain that somebody tied into a ring must not hold the job

MOST_ARGUMENTS = 12  # of one frame
ARGUMENT_CHARS = 100
MOST_BITS = 128
SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)

SOURCE_BYTES = 1 << 20
MOST_DECORATION = 50  # lines above a function that are looked at for its decorators
LINE_BYTES = 1000  # of a line count; each costs a tenth of a microsecond
# What is the application's own: as supervisor.core.prose has it.
PACKAGES = ("/site-packages/", "/dist-packages/")
FOREIGN = PACKAGES + ("/lib/python3", "/lib64/python3", "<frozen ", "/_mainstay_guard/")
PROGRAMS = ("/usr/bin", "/usr/local/bin", "/.local/bin")
ENTRY_LINES = 12


try:
    _group = BaseExceptionGroup
except NameError:  # before 3.11
    _group = ()


_heard_end = []  # something, once our hook was called with what ended the main program


def exception(kind, value, trace, where):
    """Write down an uncaught exception. Twice: what is certain at once, then with its message, all frames and its causes."""
    number = files.written[where] = files.written.get(where, 0) + 1
    if where != "main" and number > 1:
        return  # the first dead thread explains more than the last
    facts = {"n": number, "where": where, "type": type_name(kind), "message": ""}
    codes, depth = traceback_lines(trace, 0, FEW)
    _commit(files.FACTS[where], files.FACTS_BYTES, facts, codes, depth)
    facts["message"] = message_of(value)
    facts["raised"] = by_hand(trace)
    if where in files.FULL:
        facts["chain"] = chain_of(value)
        root = None
        if facts["raised"] or not issubclass(kind, (RecursionError, MemoryError)):
            try:
                root = root_of(value)
                if root is not None:
                    facts["root"] = told_root(root)
            except Exception:
                root = None
        try:
            facts["origins"] = origins_of(value)
        except Exception:
            facts["origins"] = []
        codes, depth = traceback_lines(trace, OUTERMOST, INNERMOST)
        facts["at"] = own_line(codes)
        _commit(files.FULL[where], files.FULL_BYTES, facts, codes, depth)
        told = facts.get("root", {})
        if told.get("depth", 0) >= DEEP:
            _commit_arguments("root", number, innermost_frames(root.__traceback__, told["depth"]))
        elif depth >= DEEP:
            _commit_arguments(where, number, innermost_frames(trace, depth))
    elif facts["message"]:
        _commit(files.FACTS[where], files.FACTS_BYTES, facts, codes, depth)


def uncaught(kind, value, trace):
    """Write down what sys.excepthook was called with; True when the interpreter called it, for what ended the main program.

    Jobs call it too, for an error that they want to be shown: in a thread, by an old recipe, or before they give up.
    """
    if value is None:
        return False
    if _thread.get_native_id() != posix.getpid():  # the main thread's number is that of the process
        exception(kind, value, trace, "thread")
        return False
    is_end = value is getattr(sys, "last_value", None)
    if is_end and sys.last_traceback is not None:
        trace = sys.last_traceback  # the whole of it: a hook of the job's may hand on less
    if is_end:
        _heard_end.append(True)
    exception(kind, value, trace, "main")
    return is_end


def passed_by(value, trace):
    """Write down what ended the main program although our hook was not called with it: the job has put its own in its place.

    The interpreter keeps it as sys.last_value before it calls any hook. So do others with what they only print (the module code, C that calls
    PyErr_Print); but only what left the main program has been through a frame that nobody called.
    """
    if not _heard_end and trace is not None and trace.tb_frame.f_back is None:
        exception(type(value), value, trace, "main")


def by_hand(trace):
    """1 if a ``raise`` with an exception made the innermost entry of *trace*, 0 if something that was called there did, None if that cannot be told."""
    try:
        place = 0
        while trace.tb_next is not None and place < DEEPEST:
            trace = trace.tb_next
            place += 1
        code = trace.tb_frame.f_code.co_code
        # The number of that instruction differs from version to version; up to 3.9 an end that is never reached stands behind it.
        raises = compile("raise it", "", "exec").co_code[2 if sys.version_info < (3, 10) else -2]
        return 1 if code[trace.tb_lasti] == raises and code[trace.tb_lasti + 1] else 0
    except Exception:
        return None


def root_of(value):
    """The RecursionError or MemoryError that *value* came from by causes and groups, or the text of a traceback from another process; None if there is none."""
    waiting = [value]
    seen = {id(value)}
    left = ROOTS
    while waiting and left > 0:
        left -= 1
        error = waiting.pop(0)
        state = error.__dict__ if type(error).__name__ in ("RemoteTraceback", "_RemoteTraceback") else {}
        if type(state.get("tb")) is str:
            return state["tb"]
        if error is not value and issubclass(type(error), (RecursionError, MemoryError)) and error.__cause__ is None:
            return error
        for other in (cause_of(error),) + members_of(error):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
    return None


def cause_of(error):
    """What *error* came from, as a traceback would say it: by ``raise ... from``, or the one that was being handled."""
    if error.__cause__ is None and not error.__suppress_context__:
        return error.__context__
    return error.__cause__


def members_of(error):
    return tuple(_group.exceptions.__get__(error)[:ROOTS]) if issubclass(type(error), _group) else ()


def origins_of(value):
    """The exceptions behind *value* that tell one bug from another: of its causes the first one that the application's own code met, and the like of
    each member of a group. What a library made of its own errors is its business. Which member comes first is chance, so they are sorted."""
    lines = traceback_lines(value.__traceback__, OUTERMOST, INNERMOST)[0]
    is_installed = all(_is_of(FOREIGN, line) for line in own_lines(lines))
    found = {}
    heads = [value]
    seen = {id(value)}
    left = ROOTS
    while heads and left > 0:
        head = error = heads.pop(0)
        origin = None
        while error is not None and left > 0:
            left -= 1
            if error is not value:
                told = _told_origin(error, is_installed)
                if told["frames"] or error is head:
                    origin = told
            for member in members_of(error):
                if id(member) not in seen:
                    seen.add(id(member))
                    heads.append(member)
            error = cause_of(error)
            if id(error) in seen:
                break
            seen.add(id(error))
        if origin is not None:
            found[dump(origin)] = origin
    return [found[key] for key in sorted(found)[:ORIGINS]]


def _told_origin(error, is_installed):
    """Type, line and functions of an exception, each function once: how often a healthy recursion turned is no part of the bug. No frames if it
    never was in the application's own code. In which line a recursion met its limit is chance."""
    lines = traceback_lines(error.__traceback__, OUTERMOST, INNERMOST)[0]
    own = [line for line in own_lines(lines) if is_installed or not _is_of(FOREIGN, line)]
    functions = []
    for code, _ in own:
        if code not in functions:
            functions.append(code)
    paths = []
    frames = [_frame(code, 0, paths) for code in functions[-ORIGIN_FUNCTIONS:]]
    at = "" if issubclass(type(error), RecursionError) else _hash_of_last(own)
    return {"type": type_name(type(error)), "at": at, "frames": frames, "files": paths}


def told_root(root):
    if isinstance(root, str):
        return {"text": root[-REMOTE_CHARS:], "levels": root.count('\n  File "')}
    codes, depth = traceback_lines(root.__traceback__, ROOT_OUTERMOST, ROOT_INNERMOST)
    paths = []
    told = {"type": type_name(type(root)), "message": message_of(root)[:300], "depth": depth, "raised": by_hand(root.__traceback__)}
    told["frames"] = [_frame(code, line, paths) for code, line in codes]
    told["files"] = paths
    return told


def swallowed(value, frame, turn):
    """Write down the stack of a RecursionError that the job's own code caught; *frame* is the one that caught it."""
    below, below_depth = traceback_lines(value.__traceback__, 0, INNERMOST)
    above = []
    depth = below_depth
    caught = frame = frame.f_back  # the frame that caught it leads the traceback already
    while frame is not None and depth < DEEPEST:
        if len(above) < INNERMOST:
            above.append((frame.f_code, frame.f_lineno))
        depth += 1
        frame = frame.f_back
    above.reverse()
    facts = {"n": turn, "where": "swallowed", "type": type_name(type(value)), "message": message_of(value)}
    _commit(files.SWALLOWS[turn % 2], files.FULL_BYTES, facts, (above + below)[-INNERMOST:], depth)
    frames = innermost_frames(value.__traceback__, below_depth)
    while caught is not None and len(frames) < INNERMOST_TOLD:
        frames.append(caught)
        caught = caught.f_back
    _commit_arguments("swallowed", turn, frames)


def asked(frame, ours):
    """Write down the main thread's stack, in faulthandler's words, behind those that were asked for before. Called each time, by the handler of SIGURG."""
    lines = ["Stack (most recent call first):"]
    while frame is not None and len(lines) <= STACK_LEVELS:
        code = frame.f_code
        lines.append(
            '  File "%s", line %s in %s' % (code.co_filename[:PATH_CHARS].replace("\n", " "), frame.f_lineno, code.co_name[:PATH_CHARS])
        )
        frame = frame.f_back
    text = ("\n".join(lines) + "\n\n").encode("ascii", "backslashreplace")
    times, before = files.asked
    files.asked[0] = times + 1
    if before < STACKS_BYTES:
        files.asked[1] = before + len(text)
        files.put(files.STACKS + before, text)


def refused(script, depth):
    """Write down that this script has started itself *depth* levels deep and is not started once more."""
    arguments = [argument[:PATH_CHARS] for argument in lineage.command_line()[:20]]
    commit(files.FACTS["lineage"], dump({"script": script[:PATH_CHARS], "depth": depth, "argv": arguments}))


def traceback_lines(trace, outermost, innermost):
    """([(code, line)], true depth), outermost first, the middle left out where there are more than asked for."""
    depth = 0
    entry = trace
    while entry is not None and depth < DEEPEST:
        depth += 1
        entry = entry.tb_next
    lines = []
    place = 0
    entry = trace
    while entry is not None and place < depth:
        if place < outermost or place >= depth - innermost:
            lines.append((entry.tb_frame.f_code, entry.tb_lineno))
        place += 1
        entry = entry.tb_next
    return lines, depth


def innermost_frames(trace, depth):
    """The innermost frames of a traceback that is *depth* long, innermost first."""
    frames = []
    place = 0
    while trace is not None and place < depth:
        if place >= depth - INNERMOST_TOLD:
            frames.append(trace.tb_frame)
        place += 1
        trace = trace.tb_next
    frames.reverse()
    return frames


def own_line(lines):
    """Stands for the text of the innermost line that is the application's own, "" if it cannot be read: which line of its function failed, although
    lines move. No text: a source may hold what is nobody's business."""
    return _hash_of_last(own_lines(lines))


def _hash_of_last(lines):
    if not lines:
        return ""
    code, number = lines[-1]
    try:
        return _hash_of(code, number)
    except Exception:
        return ""


def own_lines(lines):
    """Those of *lines* (outermost first) that are the application's own or, where it is installed itself, those of installed packages."""
    own = [line for line in lines if not _is_of(FOREIGN, line)]
    if own and own[0] is lines[0] and _is_entry(lines):
        del own[0]
    return own or [line for line in lines if _is_of(PACKAGES, line)]


def _is_of(parts, line):
    path = line[0].co_filename
    return any(part in path for part in parts)


def _is_entry(lines):
    """Whether the outermost of *lines* is that of a script that does no more than start an installed application."""
    code, number = lines[0]
    called = [line for line in lines[1:] if not line[0].co_filename.startswith("<frozen ")][:1]
    folder, _, name = code.co_filename.rpartition("/")
    prefix, _, last = folder.rpartition("/")
    return (
        code.co_name == "<module>"
        and number is not None
        and number <= ENTRY_LINES
        and last in ("bin", "Scripts")
        and not name.endswith(".py")
        and bool(called)
        and _is_of(PACKAGES, called[0])
        and (called[0][0].co_filename.startswith(prefix + "/lib") or folder.endswith(PROGRAMS))
    )


def _hash_of(code, number):
    fd = posix.open(code.co_filename, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        if posix.fstat(fd).st_mode & 0o170000 != 0o100000:
            return ""
        lines = posix.read(fd, SOURCE_BYTES).split(b"\n")
    finally:
        posix.close(fd)
    number = _place_now(code, number, lines)
    return _fnv(b" ".join(lines[number - 1].split())) if number > 0 else ""


def _place_now(code, number, lines):
    """Where line *number* of *code* is in *lines*, its file as it is now: that may be newer than what runs, and the function have moved (a deploy in
    place). 0 if that cannot be told, for several functions have its name."""
    name = code.co_name.encode("utf-8")
    begins = [place for place, text in enumerate(lines) if name in text and _begins(text, name)]
    firsts = [_first_line(place, lines) for place in begins]
    if code.co_firstlineno in firsts or not firsts:  # or it is no plain function: a module, a lambda, a template
        return number
    return number - code.co_firstlineno + firsts[0] if len(firsts) == 1 else 0


def _begins(text, name):
    """Whether the line *text* begins the function or class *name*; of any name if that is empty."""
    words = text.strip()
    if words.startswith(b"async "):
        words = words[6:].lstrip()
    for word in (b"def ", b"class "):
        if words.startswith(word):
            rest = words[len(word) :].lstrip()
            return not name or (rest.startswith(name) and rest[len(name) : len(name) + 1] in b"([: ")
    return False


def _first_line(place, lines):
    """The number of the first line of what begins at index *place*, its decorators included: where the compiler has it begin."""
    first = above = place
    while above > 0 and place - above < MOST_DECORATION:
        above -= 1
        text = lines[above].strip()
        if not text or _begins(text, b""):
            break
        if text.startswith(b"@"):
            first = above
    return first + 1


def _fnv(text):
    """FNV-1a of 64 bits, in hexadecimal. Of the interpreter's own hashes none is the same in every version."""
    found = 0xCBF29CE484222325
    for byte in text[:LINE_BYTES]:
        found = (found ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return "%016x" % found


def type_name(kind):
    """The name as a traceback prints it, without asking a metaclass."""
    try:
        name = type.__dict__["__qualname__"].__get__(kind)
        module = type.__dict__["__module__"].__get__(kind)
        if isinstance(module, str) and module not in ("builtins", "__main__"):
            name = module + "." + name
        return name[:NAME_CHARS]
    except Exception:
        return "?"


def message_of(value):
    """str(value), cut. The job's own __str__ may do anything, so whatever comes out of it is an answer."""
    try:
        text = str(value)
        return str.__str__(text)[:MESSAGE_CHARS]
    except BaseException as error:
        return "<%s.__str__ raised %s>" % (type_name(type(value)), type_name(type(error)))


def chain_of(value):
    """What this exception came from, nearest first: ["TypeName: message"]."""
    chain = []
    seen = {id(value)}
    while len(chain) < CHAIN:
        cause = cause_of(value)
        if cause is None or id(cause) in seen:
            break
        seen.add(id(cause))
        chain.append(("%s: %s" % (type_name(type(cause)), message_of(cause)[:300])).rstrip(": "))
        value = cause
    return chain


def _commit_arguments(where, number, frames):
    """The arguments of *frames* (innermost first), as many as fit: what a recursion hands on without changing it is its missing exit."""
    levels = [arguments_of(frame) for frame in frames]
    while levels:
        payload = dump({"n": number, "where": where, "levels": levels})
        if len(payload) <= files.FULL_BYTES:
            commit(files.ARGUMENTS, payload)
            return
        del levels[len(levels) // 2 :]


def arguments_of(frame):
    """[[name, type, identity, number or None, length or None], ...] for the arguments that *frame* still has: which object, and how big.

    Never a value that is not a plain number. Only exact builtin types are looked into, and no method of the job's own classes is called.
    """
    code = frame.f_code
    if not code.co_flags & 1:  # a module or a class body
        return []
    count = code.co_argcount + code.co_kwonlyargcount + (code.co_flags >> 2 & 1) + (code.co_flags >> 3 & 1)
    values = frame.f_locals
    return [_told(name, values[name]) for name in code.co_varnames[: min(count, MOST_ARGUMENTS)] if name in values]


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
    return [name[:ARGUMENT_CHARS], _short_name(kind), id(value), number, length]


def _short_name(kind):
    try:
        return type.__dict__["__name__"].__get__(kind)[:ARGUMENT_CHARS]
    except Exception:
        return "?"


def _commit(offset, most, facts, lines, depth):
    """Write the record with as many frames as fit into *most* bytes; what is dropped is dropped from the middle."""
    facts["depth"] = depth
    while True:
        paths = []
        facts["frames"] = [_frame(code, line, paths) for code, line in lines]
        facts["files"] = paths
        payload = dump(facts)
        if len(payload) <= most:
            commit(offset, payload)
            return
        if not lines:
            facts.pop("root", None)
            facts.pop("origins", None)
            facts["message"] = facts["message"][: len(facts["message"]) // 2]
        keep = len(lines) // 2
        lines = lines[: keep // 8] + lines[len(lines) - keep + keep // 8 :] if keep else []


def _frame(code, line, paths):
    path = code.co_filename[:PATH_CHARS]
    try:
        place = paths.index(path)
    except ValueError:
        place = len(paths)
        paths.append(path)
    name = getattr(code, "co_qualname", code.co_name)  # 3.11
    return [name[:NAME_CHARS], place, line if isinstance(line, int) else 0]


def commit(offset, payload):
    """Write a record: take the old one back, write the new one, then say that it is whole."""
    files.put(offset, b"\0" * 16)
    files.put(offset + 16, payload)
    files.put_number(offset, len(payload))


def dump(value):
    """*value* (dict, list, str, int, float, None) as JSON in ASCII bytes."""
    pieces = []
    _pieces(value, pieces.append)
    return "".join(pieces).encode("ascii")


def _pieces(value, add):
    if isinstance(value, str):
        add(_quoted(value))
    elif isinstance(value, int):
        add("%d" % value)
    elif value is None:
        add("null")
    elif isinstance(value, float):
        add(repr(value) if value - value == 0 else "null")  # JSON has no infinity and no NaN
    elif isinstance(value, dict):
        before = "{"
        for key in value:
            add(before + _quoted(key) + ":")
            _pieces(value[key], add)
            before = ","
        add("}" if before == "," else "{}")
    else:
        before = "["
        for item in value:
            add(before)
            _pieces(item, add)
            before = ","
        add("]" if before == "," else "[]")


def _quoted(text):
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return '"' + text + '"'
    pieces = []
    for letter in text:
        number = ord(letter)
        if letter in '"\\':
            pieces.append("\\" + letter)
        elif 32 <= number < 127:
            pieces.append(letter)
        elif number < 65536:
            pieces.append("\\u%04x" % number)
        else:
            number -= 65536
            pieces.append("\\u%04x\\u%04x" % (0xD800 + (number >> 10), 0xDC00 + (number & 1023)))
    return '"' + "".join(pieces) + '"'
