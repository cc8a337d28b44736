"""The graph metrics: contacts between users, and chains of "who brought whom". Pure functions over integer arrays.

Every loop has a bound that is computed before it starts, from the number of users alone; reaching it is a ``MetricError``, never a silent partial number. Cycles
are part of the definitions, not a surprise: a chain that runs into a cycle has no depth, and its users are counted as unresolved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from user_metrics.errors import MetricError

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOBODY: Final = -1  # the parent of a user that nobody brought


@dataclass(frozen=True, slots=True)
class Contacts:
    """Who acted towards whom. ``edges`` are distinct pairs of different users; ``in_cycles`` are users in a cycle of any length, events to oneself included."""

    edges: int
    reciprocated: int
    strong_largest: int
    weak_largest: int
    weak_components: int
    in_cycles: int
    longest_chain: int
    rounds: int
    rounds_limit: int


@dataclass(frozen=True, slots=True)
class Chains:
    """One parent each. ``unresolved`` users stand on a cycle or below one, so a walk up from them never ends.

    ``level_max`` is the greatest distance to a root or a cycle; ``depth_max`` the greatest distance to a root.
    """

    parents: int
    cycles: int
    on_cycles: int
    below_cycles: int
    depth_max: int
    level_max: int
    rounds: int
    rounds_limit: int

    @property
    def unresolved(self) -> int:
        return self.on_cycles + self.below_cycles


def _silent(_done: int, _limit: int) -> None:
    """Nobody wants to know how far it is."""


Progress = Callable[[int, int], None]


def doubling_rounds(users: int) -> int:
    """How many doublings reach over every chain of *users* users: 2**rounds >= users."""
    return max(1, (max(users, 1) - 1).bit_length() + 1)


def chains(parent: Ints, progress: Progress = _silent) -> Chains:
    """The chains of *parent*: entry i is the parent of user i, or NOBODY. Pointer doubling: about log2(users) rounds, three times, whatever the data."""
    users = len(parent)
    rounds = doubling_rounds(users)
    limit = 3 * rounds
    root = users  # a sentinel that is its own parent
    up = np.append(np.where(parent == NOBODY, root, parent), root).astype(np.int64)
    if users and (int(parent.min()) < NOBODY or int(parent.max()) >= users):
        raise MetricError(f"a parent lies outside of 0 to {users - 1}")

    far = up
    for turn in range(rounds):  # afterwards everybody stands on the root or on a cycle, and every user on a cycle is stood upon
        far = far[far]
        progress(turn + 1, limit)
    on_cycle = np.zeros(users + 1, dtype=np.bool_)
    on_cycle[far] = True
    on_cycle[root] = False

    lowest, hop = np.arange(users + 1), up
    for turn in range(rounds):  # the lowest number on a cycle names the cycle
        lowest = np.minimum(lowest, lowest[hop])
        hop = hop[hop]
        progress(rounds + turn + 1, limit)
    cycles = len(np.unique(lowest[on_cycle]))

    ends = on_cycle | (up == np.arange(users + 1)) | (up == root)
    hop = np.where(ends, np.arange(users + 1), up)
    level = np.where(ends, 0, 1)
    for turn in range(rounds):
        level = level + level[hop]
        hop = hop[hop]
        progress(2 * rounds + turn + 1, limit)
    if users and not bool(ends[hop].all()):
        raise MetricError(f"{rounds} rounds of doubling did not reach the end of every chain of {users} users")

    below = on_cycle[hop] & ~on_cycle
    resolved = ~on_cycle & ~below
    return Chains(
        parents=int(np.count_nonzero(parent != NOBODY)),
        cycles=cycles,
        on_cycles=int(np.count_nonzero(on_cycle)),
        below_cycles=int(np.count_nonzero(below)),
        depth_max=int(level[resolved].max(initial=0)),
        level_max=int(level.max(initial=0)),
        rounds=limit,
        rounds_limit=limit,
    )


def contacts(actor: Ints, target: Ints, users: int, progress: Progress = _silent) -> Contacts:
    """The graph of distinct edges *actor* to *target* among *users* users. An edge to oneself counts only for ``in_cycles``."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    own = actor == target
    loops = np.unique(actor[own])
    codes = np.unique((actor * users + target)[~own])
    tail, head = np.divmod(codes, max(users, 1))
    matrix = csr_array((np.ones(len(tail), dtype=np.int8), (tail, head)), shape=(users, users))
    strong_count, strong = connected_components(matrix, directed=True, connection="strong") if users else (0, np.zeros(0, dtype=np.int64))
    _, weak = connected_components(matrix, directed=True, connection="weak") if users else (0, np.zeros(0, dtype=np.int64))
    touched = np.zeros(users, dtype=np.bool_)
    touched[tail] = True
    touched[head] = True
    sizes = np.bincount(strong, minlength=strong_count)
    weak_sizes = np.bincount(weak[touched])
    cyclic = sizes[strong] > 1
    cyclic[loops] = True
    longest, rounds = longest_chain(strong[tail].astype(np.int64), strong[head].astype(np.int64), int(strong_count), progress)
    return Contacts(
        edges=len(codes),
        reciprocated=int(np.isin(codes, np.unique(head * users + tail), assume_unique=True).sum()),
        strong_largest=int(sizes[strong[touched]].max(initial=0)),
        weak_largest=int(weak_sizes.max(initial=0)),
        weak_components=int(np.count_nonzero(weak_sizes)),
        in_cycles=int(np.count_nonzero(cyclic)),
        longest_chain=longest,
        rounds=rounds,
        rounds_limit=int(strong_count),
    )


def longest_chain(tail: Ints, head: Ints, nodes: int, progress: Progress = _silent) -> tuple[int, int]:
    """(edges of the longest path, rounds) of a graph without cycles, once the edges within a node are left out.

    Peels the nodes that nothing points to any more, so each edge is looked at once; at most *nodes* rounds. ``MetricError`` if there is a cycle.
    """
    codes = np.unique((tail * nodes + head)[tail != head])
    tail, head = np.divmod(codes, max(nodes, 1))
    start = np.searchsorted(tail, np.arange(nodes + 1))
    waiting = np.bincount(head, minlength=nodes)
    front: Ints = np.unique(tail[waiting[tail] == 0])
    rounds = 0
    while len(front) and rounds <= nodes:
        counts = start[front + 1] - start[front]
        at = np.repeat(start[front] - np.concatenate(([0], np.cumsum(counts)[:-1])), counts) + np.arange(counts.sum())
        reached, times = np.unique(head[at], return_counts=True)
        waiting[reached] -= times
        front = reached[waiting[reached] == 0]
        rounds += 1
        progress(rounds, nodes)
    if bool(waiting[head].any()):
        raise MetricError(f"{rounds} rounds of at most {nodes} did not resolve the order of the components")
    return max(rounds - 1, 0), rounds
