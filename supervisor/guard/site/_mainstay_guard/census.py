"""What fills the memory: the largest types among a job's objects, from a random sample. Taken when memory passes its soft line.

It runs in the signal handler, so in the job's main thread and for some tenths of a second at most: nothing grows there meanwhile, and no second
thread is about when the job forks. No code of the job's is called: sizes come from C alone. A leaf that several containers refer to counts with
its share of the references, so what everybody shares is not counted again and again.
"""

import gc
import sys
import time

from _mainstay_guard import files, report

SAMPLE = 20000
EARLY = 2000  # after so many the first record is written: there may be no time for more
PATIENCE_S = 0.25  # of CPU time, for the walk and the sample; the list of all objects takes 0.1 s a million before that
LARGE = 4000  # entries of a container that is looked at for itself
MOST_LARGE = 50
FROM_LARGE = 2000  # entries looked at of each
FROM_SMALL = 400
MOST_COPIED = 1 << 20  # entries of a list or tuple of which a list of its own is made: 8 MiB, for a moment
DEEPEST = 2
TYPES = 15
GC_HEAD = 16

_object_size = object.__sizeof__
_method_of_c = type(object.__sizeof__)
_sizers = {}


def asked(frame, ours):
    """Take it the first time, for there may be no other, and the third: at the soft line, if memory grew no faster than we were asked."""
    if files.asked[0] not in (1, 3):
        return
    tasks = sys.modules.get("_mainstay_guard.tasks")
    watcher = sys.getprofile() if tasks is not None and tasks._busy else None
    if watcher is not None:  # it would see each call of ours
        sys.setprofile(None)
    try:
        _take(ours)
    finally:
        if watcher is not None:
            sys.setprofile(watcher)


def _take(ours):
    """Write the record; *ours* is a container that is not the job's. Raises nothing but MemoryError, which the caller drops."""
    deadline = time.thread_time() + PATIENCE_S
    objects = gc.get_objects()
    total = len(objects)
    large, left_out = _large(objects, deadline)
    left_out.add(id(ours))
    counts = {}
    for container in large:
        _count_large(counts, container)
    taken = 0
    sample = {}
    for number in _numbers(total):
        thing = objects[number]
        taken += 1
        if id(thing) not in left_out:
            _count(sample, thing)
        if taken == EARLY and total > SAMPLE:
            _write(counts, sample, total / taken, total)
        if taken >= SAMPLE or (taken % 500 == 0 and time.thread_time() > deadline):
            break
    del objects, large
    _write(counts, sample, total / max(taken, 1), total)


def _large(objects, deadline):
    """The largest lists, dicts and sets, and the ids of all that are looked at for themselves."""
    found = []
    counter = 0
    for thing in objects:
        kind = type(thing)
        if (kind is list or kind is dict or kind is set) and len(thing) >= LARGE:
            found.append((len(thing), id(thing), thing))
        counter += 1
        if counter % 20000 == 0 and time.thread_time() > deadline:
            break
    found.sort(key=lambda entry: entry[:2], reverse=True)
    del found[MOST_LARGE:]
    return [entry[2] for entry in found], {entry[1] for entry in found}


def _numbers(total):
    """Up to SAMPLE different places in the list, spread evenly from the first on: in steps of the golden section, which fall into step with nothing."""
    step = max(1, int(total * 0.6180339887498949))
    while _common_divisor(step, total) > 1:
        step += 1
    return (i * step % total for i in range(min(total, SAMPLE)))


def _common_divisor(one, other):
    while other:
        one, other = other, one % other
    return one


def _count(counts, thing):
    """A container and its share of the leaves that the collector does not know."""
    _add(counts, type(thing), 1, _size(thing) + GC_HEAD)
    things, scale = _held(thing, FROM_SMALL)
    _add_leaves(counts, things, scale, 0)


def _count_large(counts, thing):
    _add(counts, type(thing), 1, _size(thing) + GC_HEAD)
    things, scale = _held(thing, FROM_LARGE)
    _add_leaves(counts, things, scale, 0)


def _held(container, most):
    """(what it refers to, at most some *most* of it; how many each of them stands for). Never a copy of something large."""
    kind = type(container)
    if kind is list or kind is tuple:
        entries = len(container)
        # C code that fills it at this moment, tuple(generator) say, has left places without any object: to read one of those crashes, referents pass over them.
        if entries <= MOST_COPIED:
            things = gc.get_referents(container)
            held = len(things)
            if held > most:
                things = [things[place] for place in _places(held, most)]
            return things, held / max(len(things), 1)
        if kind is tuple:
            return [], 1
        things = []
        try:
            for place in _places(entries, most):
                things.append(container[place])
        except IndexError:  # another thread took some out
            pass
        return things, entries / max(len(things), 1)
    if kind is dict or kind is set or kind is frozenset:
        entries = len(container)
        things = []
        seen = 0
        try:
            for key in container:
                things.append(key)
                if kind is dict:
                    things.append(container[key])
                seen += 1
                if seen >= most:
                    break
        except (RuntimeError, KeyError):  # another thread changed it
            pass
        return things, entries / max(seen, 1)
    return gc.get_referents(container), 1


def _places(entries, most):
    """*most* places among so many, at random: a stride falls into step with what repeats."""
    state = 0x9E3779B9
    for _ in range(most):
        state = (state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        yield (state >> 11) % entries


def _add_leaves(counts, things, scale, depth):
    for leaf in things:
        kind = type(leaf)
        if leaf is None or kind is type or gc.is_tracked(leaf):
            continue
        # Ours are: the list it stands in, the name here, the argument of getrefcount.
        share = scale / max(1, sys.getrefcount(leaf) - 3)
        _add(counts, kind, share, _size(leaf) * share)
        if depth < DEEPEST and (kind is dict or kind is tuple):  # those of plain values are leaves too, and may hold nearly all there is
            inner, each = _held(leaf, FROM_LARGE)
            _add_leaves(counts, inner, share * each, depth + 1)


def _add(counts, kind, number, size):
    entry = counts.get(kind)
    if entry is None:
        counts[kind] = [number, size]
    else:
        entry[0] += number
        entry[1] += size


def _size(thing):
    kind = type(thing)
    sizer = _sizers.get(kind)
    if sizer is None:
        sizer = _sizers[kind] = _sizer(kind)
    try:
        return sizer(thing)
    except Exception:
        return 0


def _sizer(kind):
    """The __sizeof__ of the type if it is written in C, else that of object: a job's own may do anything."""
    for base in type.__dict__["__mro__"].__get__(kind):
        method = type.__dict__["__dict__"].__get__(base).get("__sizeof__")
        if method is not None:
            return method if type(method) is _method_of_c else _object_size
    return _object_size


def _write(counts, sample, scale, total):
    whole = {kind: list(entry) for kind, entry in counts.items()}
    for kind, (number, size) in sample.items():
        _add(whole, kind, number * scale, size * scale)
    largest = sorted(whole.items(), key=lambda item: item[1][1], reverse=True)[:TYPES]
    types = [[report.type_name(kind), int(number + 0.5), int(size)] for kind, (number, size) in largest]
    report.commit(files.CENSUS, report.dump({"objects": total, "types": types}))
