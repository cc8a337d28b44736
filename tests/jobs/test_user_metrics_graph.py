"""The graph algorithms against networkx and against plain walks, over arbitrary graphs: self-loops, repeats, lone users."""

import ast
import os

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from user_metrics import graph
from user_metrics.errors import MetricError

JOBS = os.path.dirname(os.path.dirname(graph.__file__))


@st.composite
def parent_maps(draw):
    users = draw(st.integers(0, 60))
    return [draw(st.integers(-1, users - 1)) for _ in range(users)]


@st.composite
def edge_lists(draw):
    users = draw(st.integers(1, 25))
    pair = st.tuples(st.integers(0, users - 1), st.integers(0, users - 1))
    return users, draw(st.lists(pair, max_size=80))


def chains_by_walking(parent):
    """The same figures with a visited set per user and networkx for the cycles."""
    links = nx.DiGraph((user, above) for user, above in enumerate(parent) if above >= 0)
    cycles = [part for part in nx.strongly_connected_components(links) if len(part) > 1 or links.has_edge(*list(part) * 2)]
    on = set().union(*cycles) if cycles else set()
    level, below, depth = [], 0, []
    for user in range(len(parent)):
        here, steps = user, 0
        while here not in on and parent[here] >= 0:
            here, steps = parent[here], steps + 1
        level.append(steps)
        if here not in on:
            depth.append(steps)
        elif user not in on:
            below += 1
    return (len(links.edges), len(cycles), len(on), below, max(depth, default=0), max(level, default=0))


@given(parent_maps())
@settings(max_examples=300)
def test_chains_agree_with_a_plain_walk(parent):
    found = graph.chains(np.array(parent, dtype=np.int64))
    assert (found.parents, found.cycles, found.on_cycles, found.below_cycles, found.depth_max, found.level_max) == chains_by_walking(parent)
    assert found.unresolved == found.on_cycles + found.below_cycles
    assert found.rounds <= found.rounds_limit == 3 * graph.doubling_rounds(len(parent))


@given(edge_lists())
@settings(max_examples=300)
def test_contacts_agree_with_networkx(given_graph):
    users, edges = given_graph
    actor, target = (np.array([edge[side] for edge in edges], dtype=np.int64) for side in (0, 1))
    found = graph.contacts(actor, target, users)
    links = nx.DiGraph([edge for edge in edges if edge[0] != edge[1]])
    strong = list(nx.strongly_connected_components(links))
    cyclic = set().union(*[part for part in strong if len(part) > 1], {a for a, b in edges if a == b})
    weak = [len(part) for part in nx.weakly_connected_components(links)]
    assert found.edges == links.number_of_edges()
    assert found.reciprocated == sum(links.has_edge(b, a) for a, b in links.edges)
    assert found.strong_largest == max(map(len, strong), default=0)
    assert (found.weak_components, found.weak_largest) == (len(weak), max(weak, default=0))
    assert found.in_cycles == len(cyclic)
    assert found.longest_chain == nx.dag_longest_path_length(nx.condensation(links), weight=None)
    assert found.rounds <= found.rounds_limit


@pytest.mark.parametrize("users", [1, 2, 3, 1000, 4096, 100_000])
def test_the_longest_possible_chains_stay_within_their_rounds(users):
    straight = np.arange(-1, users - 1)
    found = graph.chains(straight)
    assert (found.depth_max, found.cycles, found.rounds) == (users - 1, 0, 3 * graph.doubling_rounds(users))
    circle = np.roll(np.arange(users), 1)
    found = graph.chains(circle)
    assert (found.cycles, found.on_cycles, found.below_cycles) == (1, users, 0)
    assert graph.doubling_rounds(users) <= users.bit_length() + 1


def test_one_long_path_of_components_is_peeled_in_as_many_rounds_as_it_has_nodes():
    nodes = 5000
    assert graph.longest_chain(np.arange(nodes - 1), np.arange(1, nodes), nodes) == (nodes - 1, nodes)


def test_a_loop_that_cannot_end_is_an_error_of_its_metric_and_not_a_hang():
    with pytest.raises(MetricError, match="did not resolve"):
        graph.longest_chain(np.array([0, 1]), np.array([1, 0]), 2)
    with pytest.raises(MetricError, match="outside"):
        graph.chains(np.array([5]))


def calls(path, module):
    """(caller, callee) of every call by plain name or through self within one file or to another module of the package."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imported = {
        alias.asname or alias.name: (node.module.rpartition(".")[2], alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("user_metrics.")
        for alias in node.names
    }
    for owner in [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]:
        prefix = "" if owner is tree else f"{owner.name}."
        for function in [node for node in owner.body if isinstance(node, ast.FunctionDef)]:
            for node in ast.walk(function):
                if not isinstance(node, ast.Call):
                    continue
                if isinstance(node.func, ast.Name):
                    yield (module, prefix + function.name), imported.get(node.func.id, (module, node.func.id))
                elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and node.func.value.id == "self":
                    yield (module, prefix + function.name), (module, prefix + node.func.attr)


def test_no_function_of_the_job_calls_itself_directly_or_in_a_circle():
    package = os.path.join(JOBS, "user_metrics")
    links = nx.DiGraph()
    for name in sorted(os.listdir(package)):
        if name.endswith(".py"):
            links.add_edges_from(calls(os.path.join(package, name), name.removesuffix(".py")))
    assert links.number_of_edges() > 100
    assert list(nx.simple_cycles(links)) == []


def test_the_check_for_recursion_would_find_the_founding_bug():
    links = nx.DiGraph(list(calls(os.path.join(JOBS, "runaway.py"), "runaway")))
    assert list(nx.simple_cycles(links)) == [[("runaway", "depth")]]
