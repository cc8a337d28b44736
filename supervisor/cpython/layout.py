"""Offsets inside CPython's structures, per version: measured tables for 3.11 and 3.12, the interpreter's own table from 3.13 on.

3.13 introduced ``_Py_DebugOffsets`` at the start of ``_PyRuntime``, but the recursion counter and the exception in flight are not in
it: for 3.13 and 3.14 they are known, for later versions they are calibrated once per binary (``calibration``). 64-bit little-endian
builds with a GIL only; a wrong table is caught by the self-check in ``reader``.
"""

import struct
from collections.abc import Callable

from msgspec import Struct

from supervisor.cpython.memory import Memory
from supervisor.errors import LayoutError

Version = tuple[int, int]

_COOKIE = b"xdebugpy"
_OBJECT_TYPE = 8  # PyObject.ob_type; the same in every version so far


class Calibration(Struct, frozen=True):
    """What no table tells: offsets in the thread state of the int32 pair (remaining, limit), and of the exception in flight."""

    recursion: int
    exception: int | None


class Layout(Struct, frozen=True):
    """Offsets in bytes, named as structure_field; ``thread_*`` in PyThreadState, ``frame_*`` in _PyInterpreterFrame.

    ``thread_frame`` holds the current frame, or with ``cframe_frame`` a pointer to a structure that holds it there.
    ``exception_is_type``: 3.11 keeps the type of the exception in flight, later versions the exception.
    ``pointer_mask`` strips the tag bits that 3.14 puts into references on the stack.
    """

    version: Version
    interpreters_head: int
    interpreter_next: int
    interpreter_threads: int
    thread_next: int
    thread_native_id: int
    thread_frame: int
    cframe_frame: int | None
    thread_recursion: int
    thread_exception: int | None
    exception_is_type: bool
    thread_chunk: int
    frame_previous: int
    frame_code: int
    frame_instruction: int
    frame_owner: int
    frame_locals: int
    code_filename: int
    code_qualname: int
    code_linetable: int
    code_first_line: int
    code_argcount: int
    code_flags: int
    code_names: int
    code_bytecode: int
    str_ascii: int
    str_compact: int
    type_name: int = 24
    tuple_items: int = 24
    pointer_mask: int = (1 << 64) - 1

    @property
    def thread_size(self) -> int:
        """How much of a thread state has to be read to see all fields above."""
        fields = (self.thread_next, self.thread_native_id, self.thread_frame, self.thread_recursion, self.thread_exception or 0)
        return max(*fields, self.thread_chunk) + 8


_TABLES = {
    (3, 11): Layout(
        version=(3, 11),
        interpreters_head=40,
        interpreter_next=0,
        interpreter_threads=16,
        thread_next=8,
        thread_native_id=160,
        thread_frame=56,
        cframe_frame=8,
        thread_recursion=32,
        thread_exception=96,
        exception_is_type=True,
        thread_chunk=296,
        frame_previous=48,
        frame_code=32,
        frame_instruction=56,
        frame_owner=69,
        frame_locals=72,
        code_filename=112,
        code_qualname=128,
        code_linetable=136,
        code_first_line=72,
        code_argcount=56,
        code_flags=48,
        code_names=96,
        code_bytecode=184,
        str_ascii=48,
        str_compact=72,
    ),
    (3, 12): Layout(
        version=(3, 12),
        interpreters_head=40,
        interpreter_next=0,
        interpreter_threads=72,
        thread_next=8,
        thread_native_id=144,
        thread_frame=56,
        cframe_frame=0,
        thread_recursion=28,
        thread_exception=96,
        exception_is_type=False,
        thread_chunk=232,
        frame_previous=8,
        frame_code=0,
        frame_instruction=56,
        frame_owner=70,
        frame_locals=72,
        code_filename=112,
        code_qualname=128,
        code_linetable=136,
        code_first_line=68,
        code_argcount=52,
        code_flags=48,
        code_names=96,
        code_bytecode=192,
        str_ascii=40,
        str_compact=56,
    ),
}
_CALIBRATIONS = {(3, 13): Calibration(recursion=44, exception=112), (3, 14): Calibration(recursion=48, exception=112)}

_OFFSETS_313 = {
    "": ("version", "free_threaded"),
    "runtime": ("size", "finalizing", "interpreters_head"),
    "interpreter": (
        *("size", "id", "next", "threads_head", "gc", "imports_modules", "sysdict", "builtins", "ceval_gil"),
        *("gil_runtime_state", "gil_runtime_state_enabled", "gil_runtime_state_locked", "gil_runtime_state_holder"),
    ),
    "thread": ("size", "prev", "next", "interp", "current_frame", "thread_id", "native_thread_id", "datastack_chunk", "status"),
    "frame": ("size", "previous", "executable", "instr_ptr", "localsplus", "owner"),
    "code": (
        *("size", "filename", "name", "qualname", "linetable", "firstlineno", "argcount"),
        *("localsplusnames", "localspluskinds", "co_code_adaptive"),
    ),
    "object": ("size", "ob_type"),
    "type": ("size", "tp_name", "tp_repr", "tp_flags"),
    "tuple": ("size", "ob_item", "ob_size"),
    "list": ("size", "ob_item", "ob_size"),
    "dict": ("size", "ma_keys", "ma_values"),
    "float": ("size", "ob_fval"),
    "long": ("size", "lv_tag", "ob_digit"),
    "bytes": ("size", "ob_size", "ob_sval"),
    "unicode": ("size", "state", "length", "asciiobject_size"),
}
_OFFSETS_314 = {
    **_OFFSETS_313,
    "interpreter": (
        *("size", "id", "next", "threads_head", "threads_main", "gc", "imports_modules", "sysdict", "builtins", "ceval_gil"),
        *("gil_runtime_state", "gil_runtime_state_enabled", "gil_runtime_state_locked", "gil_runtime_state_holder"),
        *("code_object_generation", "tlbc_generation"),
    ),
    "frame": (*_OFFSETS_313["frame"], "stackpointer", "tlbc_index"),
    "code": (*_OFFSETS_313["code"], "co_tlbc"),
    "set": ("size", "used", "table", "mask"),
}
# Sections in the order of the structure; "set" came in between list and dict.
_ORDER_313 = tuple(_OFFSETS_313)
_ORDER_314 = (*_ORDER_313[: _ORDER_313.index("dict")], "set", *_ORDER_313[_ORDER_313.index("dict") :])


def layout_of(version: Version, memory: Memory, runtime: int, calibrate: Callable[[], Calibration]) -> Layout:
    """The layout of the interpreter whose ``_PyRuntime`` lies at *runtime*.

    *calibrate* is called for a version whose recursion counter no table of ours knows. ``LayoutError`` for versions and builds that
    cannot be read.
    """
    if version in _TABLES:
        return _TABLES[version]
    if version < (3, 11):
        raise LayoutError(f"Python {version[0]}.{version[1]} is older than 3.11 and cannot be read from outside")
    offsets = read_offsets(version, memory, runtime)
    return assemble(version, offsets, _CALIBRATIONS.get(version) or calibrate())


def read_offsets(version: Version, memory: Memory, runtime: int) -> dict[str, int]:
    """``_Py_DebugOffsets`` as {"thread.next": 8, ...} (3.13 and 3.14)."""
    order, sections = (_ORDER_313, _OFFSETS_313) if version < (3, 14) else (_ORDER_314, _OFFSETS_314)
    names = [f"{section}.{field}" if section else field for section in order for field in sections[section]]
    raw = memory.read(runtime, len(_COOKIE) + 8 * len(names))
    if not raw.startswith(_COOKIE):
        raise LayoutError("the runtime does not start with its table of offsets")
    offsets = dict(zip(names, struct.unpack_from(f"<{len(names)}Q", raw, len(_COOKIE)), strict=True))
    if offsets["free_threaded"]:
        raise LayoutError("a free-threaded build of Python cannot be read from outside")
    _check_shape(version, offsets)
    return offsets


def _check_shape(version: Version, offsets: dict[str, int]) -> None:
    """A table of another shape than we think would shift every name by some words: see that a few stand where they must."""
    number = offsets["version"]
    told = (number >> 24 & 0xFF, number >> 16 & 0xFF)
    plausible = (
        told == version
        and offsets["object.ob_type"] == _OBJECT_TYPE
        and offsets["float.ob_fval"] == 16
        and offsets["unicode.length"] == 16
        and offsets["thread.next"] < offsets["thread.size"] < 1 << 16
        and offsets["frame.localsplus"] <= offsets["frame.size"] < 1 << 10
    )
    if not plausible:
        raise LayoutError(f"the table of offsets of this Python {told[0]}.{told[1]} has a shape that we do not know")


def assemble(version: Version, offsets: dict[str, int], calibration: Calibration) -> Layout:
    """One layout out of the interpreter's own table and what a calibration found."""
    return Layout(
        version=version,
        interpreters_head=offsets["runtime.interpreters_head"],
        interpreter_next=offsets["interpreter.next"],
        interpreter_threads=offsets["interpreter.threads_head"],
        thread_next=offsets["thread.next"],
        thread_native_id=offsets["thread.native_thread_id"],
        thread_frame=offsets["thread.current_frame"],
        cframe_frame=None,
        thread_recursion=calibration.recursion,
        thread_exception=calibration.exception,
        exception_is_type=False,
        thread_chunk=offsets["thread.datastack_chunk"],
        frame_previous=offsets["frame.previous"],
        frame_code=offsets["frame.executable"],
        frame_instruction=offsets["frame.instr_ptr"],
        frame_owner=offsets["frame.owner"],
        frame_locals=offsets["frame.localsplus"],
        code_filename=offsets["code.filename"],
        code_qualname=offsets["code.qualname"],
        code_linetable=offsets["code.linetable"],
        code_first_line=offsets["code.firstlineno"],
        code_argcount=offsets["code.argcount"],
        code_flags=offsets["code.argcount"] - 4,
        code_names=offsets["code.localsplusnames"],
        code_bytecode=offsets["code.co_code_adaptive"],
        str_ascii=offsets["unicode.asciiobject_size"],
        str_compact=offsets["unicode.asciiobject_size"] + 16,
        type_name=offsets["type.tp_name"],
        tuple_items=offsets["tuple.ob_item"],
        pointer_mask=~0b11 & (1 << 64) - 1 if version >= (3, 14) else (1 << 64) - 1,
    )
