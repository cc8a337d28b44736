"""Figures, places and names as a tired person reads them; for summaries and screens, never for parsing back."""

import signal as signals
from collections.abc import Sequence
from datetime import UTC

from supervisor.core.evidence import Cycle, Frame
from supervisor.core.model import Wall
from supervisor.core.units import MAX_DURATION_S, format_duration

FUNCTIONS_SHOWN = 4  # of a longer cycle the rest is counted


def about_size(size: float) -> str:
    """A size to one decimal in its largest unit: "312.4MiB"."""
    value, units = max(float(size), 0.0), ["B", "KiB", "MiB", "GiB", "TiB"]
    while round(value, 1) >= 1024 and len(units) > 1:
        value /= 1024
        del units[0]
    return f"{value:.1f}".removesuffix(".0") + units[0]


def about_duration(seconds: float) -> str:
    """A duration as exact as it matters: milliseconds below one second, tenths below a minute, seconds below an hour, else minutes."""
    value = min(max(seconds, 0.0), MAX_DURATION_S)
    digits = 3 if value < 1 else 1 if value < 60 else 0
    return format_duration(round(value / 60) * 60.0 if value >= 3600 else round(value, digits))


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """A number with its noun: "1,001 levels" or "1 level"."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def clean(text: str, most: int = 2000) -> str:
    """*text* on one line with everything unprintable escaped (control characters, text direction marks), cut after *most* characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def printable(text: str) -> str:
    """*text* with its line ends (as LF) and tabs; everything else unprintable escaped, and in hex a byte that was no UTF-8 (a lone surrogate)."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in "\n\t" or c.isprintable() else _escaped(c) for c in text.replace("\r\n", "\n"))


def _escaped(char: str) -> str:
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char.encode("unicode_escape").decode("ascii")


def stamp(at: Wall) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def signal_name(number: int) -> str:
    """SIGSEGV, SIGRTMIN+3 or "signal 99"."""
    try:
        return signals.Signals(number).name
    except ValueError:
        inner = signals.SIGRTMIN < number < signals.SIGRTMAX
        return f"SIGRTMIN+{number - signals.SIGRTMIN}" if inner else f"signal {number}"


def base(path: str) -> str:
    """The last part of a path, or the path where it has no parts."""
    return path.rstrip("/").rpartition("/")[2] or path


def place(frame: Frame) -> str:
    """File and line, as in "metrics.py:57"; without the line where it is not known."""
    return f"{base(frame.file)}:{frame.line}" if frame.line > 0 else base(frame.file)


def at(frame: Frame) -> str:
    """Function and place, as in "load (metrics.py:57)"."""
    return f"{frame.function} ({place(frame)})"


def turn_of(cycle: Cycle) -> str:
    """One turn in a line: "a → b → a (job.py:3, job.py:9)"."""
    frames = cycle.frames
    if not frames:
        return "an unnamed cycle"
    shown = frames[:FUNCTIONS_SHOWN]
    names = [frame.function for frame in shown]
    if len(frames) > len(shown):
        names.append(f"… {len(frames) - len(shown)} more …")
    places = ", ".join(dict.fromkeys(place(frame) for frame in shown))
    return f"{' → '.join([*names, frames[0].function])} ({places})"


def own_frames(frames: Sequence[Frame]) -> list[Frame]:
    """The application's own frames of a stack, from either end: neither the standard library nor installed packages, nor the script that starts an
    installed application. Where none is its own, those of the packages, for it is installed itself; else all, but those of our guard last of all."""
    entry = _entry(frames)
    return (
        [frame for frame in frames if is_own(frame) and frame is not entry]
        or [frame for frame in frames if is_packaged(frame)]
        or [frame for frame in frames if not is_ours(frame)]
        or list(frames)
    )


def is_installed(frames: Sequence[Frame]) -> bool:
    """Whether a stack is that of an installed application: its main program is a package's, or the script that pip made to start one."""
    main = [frame for frame in frames if frame.function == "<module>" and not is_own(frame)]
    return _entry(frames) is not None or any(is_packaged(frame) for frame in main)


def is_packaged(frame: Frame) -> bool:
    """Whether a frame is that of an installed package, as far as its path tells."""
    return any(part in frame.file for part in PACKAGES)


def _entry(frames: Sequence[Frame]) -> Frame | None:
    """The script that does no more than start an installed application, as the outermost of *frames*, which may come from either end."""
    for stack in (frames, frames[::-1]):
        called = next((frame for frame in stack[1:] if not frame.file.startswith("<frozen ")), None)
        if called is not None and is_entry(stack[0], called):
            return stack[0]
    return None


def is_entry(frame: Frame, called: Frame) -> bool:
    """Whether *frame* is the script that pip, uv or pipx make for an installed application, which has gone on in *called*.

    Such a script has no functions, a dozen lines, a name without ".py" and a place in the bin/ beside the packages, or where links to programs are kept.
    A person's own that is all of this, calls a library and does nothing else is taken for one.
    """
    folder, _, name = frame.file.rpartition("/")
    prefix, _, last = folder.rpartition("/")
    return (
        frame.function == "<module>"
        and 0 < frame.line <= ENTRY_LINES
        and last in ("bin", "Scripts")
        and not name.endswith(".py")
        and is_packaged(called)
        and (called.file.startswith(f"{prefix}/lib") or folder.endswith(PROGRAMS))
    )


def is_own(frame: Frame) -> bool:
    """Whether a frame is the application's own, as far as its path tells."""
    return not any(part in frame.file for part in FOREIGN)


def is_ours(frame: Frame) -> bool:
    """Whether a frame is that of our guard within the job, which was asked for something just then."""
    return GUARD in frame.file


# The rules of an entry script and of what is foreign are the guard's as well: _mainstay_guard/report.py.
ENTRY_LINES = 12  # uv's is the longest, with the two lines more that a long path to the interpreter takes
PROGRAMS = ("/usr/bin", "/usr/local/bin", "/.local/bin")
GUARD = "/_mainstay_guard/"
PACKAGES = ("/site-packages/", "/dist-packages/")
FOREIGN = (*PACKAGES, "/lib/python3", "/lib64/python3", "<frozen ", GUARD)
