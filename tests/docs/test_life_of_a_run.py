"""The table of a run's states in docs/architecture.md, held against the engine itself, played through its moves."""

import itertools
import re
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from supervisor.core import engine
from supervisor.core.events import AttemptEnded, AttemptStarted, Due, ShutdownAsked, Verb, Wish
from supervisor.core.evidence import Evidence, Exit
from supervisor.core.jobs import Backoff, Budget, Job, Launch, Manual, RestartPolicy, Schedule
from supervisor.core.model import Mono, Now

WALL = datetime(2026, 3, 2, tzinfo=UTC)
OVER = "over"


def job():
    policy = RestartPolicy(backoff=Backoff(first_s=1, jitter=0), budget=Budget(1, 600))
    return Job("job", Launch(("run",), "/"), schedule=Schedule(Manual()), restart=policy)


def phase(state, run):
    found = state.jobs["job"].run(run)
    return OVER if found is None else found.phase.value


class World:
    """One job under the engine; each move does what the keeper, an operator or the clock would do next."""

    def __init__(self):
        self.mono, self.state = 100.0, None
        nobody = engine.KeeperView("epoch", "boot", {})
        self.state = engine.restore({"job": job()}, {}, {}, (1, 1), nobody, self.now()).state
        self.seen = set()

    def now(self):
        return Now(Mono(self.mono), WALL + timedelta(seconds=self.mono))

    def step(self, event):
        before = {run.id: run.phase.value for run in self.state.jobs["job"].memo.runs}
        self.state = engine.step(self.state, event, self.now()).state
        for run, was in before.items():
            if phase(self.state, run) != was:
                self.seen.add((was, phase(self.state, run)))

    def play(self, move):
        self.mono += 20.0
        runs = self.state.jobs["job"].memo.runs
        run = runs[0] if runs else None
        if move == "trigger":
            self.step(Wish(Verb.TRIGGER, "job"))
        elif move == "stop":
            self.step(Wish(Verb.STOP, "job"))
        elif move == "shutdown":
            self.step(ShutdownAsked())
        elif move == "time":
            self.step(Due("job"))
        elif run is not None and move == "started":
            self.step(AttemptStarted("job", run.id, run.attempt, 7, Mono(self.mono)))
        elif run is not None:
            facts = {"good": Exit(code=0), "bad": Exit(code=1), "unstartable": Exit(launch_error="no such file")}[move]
            if run.phase.value == "stopping":
                facts = replace(facts, asked_to_stop=True)
            self.step(AttemptEnded("job", run.id, run.attempt, Evidence(facts, duration_s=1.0), self.now().wall, self.now().wall))


def test_the_table_of_states_is_what_the_engine_does(page):
    moves = ("started", "good", "bad", "unstartable", "stop", "time", "shutdown")
    seen = set()
    for line in itertools.product(moves, repeat=4):
        world = World()
        for move in ("trigger", *line):
            world.play(move)
        seen |= world.seen
    rows = re.findall(
        r"^\| `(\w+)` \| `?(\w+)`? \| ", page("architecture.md").split("## The life of a run")[1].split("##")[0], re.MULTILINE
    )
    assert set(rows) == seen
