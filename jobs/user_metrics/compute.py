"""Computes every metric from the state and stores it there: relational ones by their statement, graph ones from arrays of edges.

A metric that fails keeps its old samples and is counted; the others do not suffer.
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import sqlalchemy as sa
from sqlalchemy.pool import StaticPool

from user_metrics import define, graph
from user_metrics.errors import MetricError
from user_metrics.mainstay import job
from user_metrics.state import Sample, State

GRAPH_METRICS: Final = {
    "contacts": "the graph of who acted towards whom: strong and weak components by linear-time algorithms, the longest chain of components by peeling; "
    "bound: one round per component",
    "first_contact": "chains of who wrote first to whom: pointer doubling; bound: 3 * (log2(users) + 1) rounds",
    "invited_by": "chains of who invited whom, where the accounts say it: as first_contact",
}


@dataclass(frozen=True, slots=True)
class Computed:
    """Samples of one metric, with the rounds its loops took and might have taken."""

    samples: list[Sample]
    rounds: tuple[int, int] | None = None


def compute_all(state: State, as_of: int, now: float, max_edges: int) -> list[str]:
    """Compute and store every metric as of the day *as_of*. The errors, a line each."""
    engine = sa.create_engine("sqlite://", creator=lambda: state.connection, poolclass=StaticPool)
    errors = []
    users = int(state.rows("SELECT count(*) FROM person")[0][0])
    with engine.connect() as connection:
        plan: list[tuple[str, Callable[[], Computed]]] = [
            *((metric.name, partial(_relational, connection, metric, as_of)) for metric in define.METRICS.values()),
            ("contacts", partial(_contacts, state, users, max_edges)),
            ("first_contact", partial(_chains, state, "first_contact", "SELECT person, parent FROM first_contact", users)),
        ]
        if state.rows("SELECT 1 FROM account WHERE invited_by IS NOT NULL LIMIT 1"):
            invited = "SELECT person, invited_by FROM account WHERE invited_by IS NOT NULL"
            plan.append(("invited_by", partial(_chains, state, "invited_by", invited, users)))
        for done, (name, compute) in enumerate(plan):
            job.progress(done, len(plan), f"metric {name}")
            started = time.perf_counter()
            try:
                computed = compute()
            except (MetricError, MemoryError, sqlite3.Error, sa.exc.SQLAlchemyError) as err:
                text = f"{name}: {err or type(err).__name__}"
                state.store_error(name, text)
                errors.append(text)
                continue
            state.store_results(name, computed.samples, now=now, seconds=time.perf_counter() - started, rounds=computed.rounds)
    return errors


def _relational(connection: sa.Connection, metric: define.Metric, as_of: int) -> Computed:
    return Computed(metric.samples([tuple(row) for row in connection.execute(metric.statement(as_of))]))


def _beat(_done: int, _limit: int) -> None:
    job.heartbeat()


def _pairs(state: State, statement: str) -> tuple[graph.Ints, graph.Ints]:
    """Two columns of integers as arrays, without a list of rows between."""
    pairs = np.fromiter(state.connection.execute(statement), dtype=np.dtype([("a", np.int64), ("b", np.int64)]))
    return np.ascontiguousarray(pairs["a"]), np.ascontiguousarray(pairs["b"])


def _contacts(state: State, users: int, max_edges: int) -> Computed:
    edges = int(state.rows("SELECT count(*) FROM edge")[0][0])
    if edges > max_edges:
        raise MetricError(f"{edges} edges are more than the {max_edges} that are solved in memory; raise --max-edges")
    actor, target = _pairs(state, "SELECT actor, target FROM edge")
    found = graph.contacts(actor, target, users, _beat)
    samples = [
        Sample("graph_edges", found.edges),
        Sample("graph_reciprocated_edges", found.reciprocated),
        Sample("graph_largest_component_users", found.strong_largest, (("kind", "strong"),)),
        Sample("graph_largest_component_users", found.weak_largest, (("kind", "weak"),)),
        Sample("graph_weak_components", found.weak_components),
        Sample("graph_users_in_cycles", found.in_cycles, (("graph", "contacts"),)),
        Sample("graph_component_chain_max", found.longest_chain),
    ]
    if found.edges:
        samples.append(Sample("graph_reciprocity_ratio", found.reciprocated / found.edges))
    return Computed(samples, (found.rounds, found.rounds_limit))


def _chains(state: State, name: str, statement: str, users: int) -> Computed:
    person, above = _pairs(state, statement)
    parent = np.full(users, graph.NOBODY, dtype=np.int64)
    parent[person] = above
    found = graph.chains(parent, _beat)
    values = (
        ("chain_parents", found.parents),
        ("chain_cycles", found.cycles),
        ("chain_cycle_users", found.on_cycles),
        ("chain_below_cycle_users", found.below_cycles),
        ("chain_unresolved_users", found.unresolved),
        ("chain_depth_max", found.depth_max),
        ("chain_level_max", found.level_max),
    )
    return Computed([Sample(family, value, (("graph", name),)) for family, value in values], (found.rounds, found.rounds_limit))
