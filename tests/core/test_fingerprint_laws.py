"""Laws of the names of exceptions and hangs, over random stacks: what another night, host, record or Python changes is no part of a name, and all else is.

A second occurrence is made from the first by everything that may differ between two of one bug; a second bug by one thing that may not.
"""

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from supervisor.core.evidence import Evidence, ExceptionFacts, Exit, Frame, LastWords, Look, Pace, Stack, Study, Verdict
from supervisor.core.fingerprint import fingerprint
from supervisor.core.model import Outcome
from supervisor.core.outcome import fingerprint_of

OWN = ("load", "store", "visit", "Tree.walk", "main", "make.<locals>.each")
FILES = ("job.py", "tree.py", "io.py")
LIBRARY = (
    "/usr/lib/python3.{0}/asyncio/tasks.py",
    "/opt/venv/lib/python3.{0}/site-packages/requests/api.py",
    "/usr/lib/python3/dist-packages/yaml/__init__.py",
    "<frozen importlib._bootstrap>",
)
TYPES = ("KeyError", "ValueError", "app.errors.OrderError")

own_frames = st.builds(Frame, st.sampled_from(OWN), st.sampled_from(FILES).map("/srv/app/{}".format), st.integers(1, 900))
library_frames = st.builds(
    lambda name, path, minor, line: Frame(name, path.format(minor), line),
    st.sampled_from(("get", "run", "step")),
    st.sampled_from(LIBRARY),
    st.integers(11, 15),
    st.integers(1, 900),
)
stacks = st.lists(own_frames, min_size=1, max_size=6)
hashes = st.sampled_from(("", "0123456789abcdef", "fedcba9876543210"))
exceptions = st.builds(
    ExceptionFacts,
    st.sampled_from(TYPES),
    st.text(max_size=20),
    stacks.map(tuple),
    st.integers(1, 10**6),
    st.just("main"),
    st.just(()),
    hashes,
)


def occurs_again(data, frames):
    """The same way through the application's own functions, as another night shows it."""
    found = []
    for frame in frames:
        found += data.draw(st.lists(library_frames, max_size=2))
        moved = replace(
            frame,
            line=data.draw(st.integers(1, 900)),
            file=frame.file.replace("/srv/app/", data.draw(st.sampled_from(("/srv/app/", "/home/me/src/", "", "C/")))),
            function=data.draw(st.sampled_from((frame.function, frame.function.rpartition(".")[2]))),
        )
        found += [moved] * data.draw(st.integers(1, 3))  # a healthy recursion, deeper this time
    return (*found, *data.draw(st.lists(library_frames, max_size=2)))


def way(frames):
    """What is left of a stack: its own functions by file and bare name, each once."""
    return list(dict.fromkeys((frame.file.rpartition("/")[2], frame.function.rpartition(".")[2]) for frame in frames))


def name_of(error):
    return fingerprint("job", Outcome.EXCEPTION, exception=error, exit_code=1)


# ---------------------------------------------------------------- exceptions


@given(error=exceptions, data=st.data())
def test_an_exception_has_one_name_whatever_moved_around_it(error, data):
    again = replace(
        error,
        message=data.draw(st.text(max_size=20)),
        frames=occurs_again(data, error.frames),
        depth=data.draw(st.integers(1, 10**6)),
        chain=tuple(data.draw(st.lists(st.text(max_size=9), max_size=2))),
    )
    code, signal = data.draw(st.sampled_from(((1, None), (3, None), (None, 9))))
    assert fingerprint("job", Outcome.EXCEPTION, exception=again, exit_code=code, signal=signal) == name_of(error)


@given(error=exceptions, other=exceptions)
def test_exceptions_of_another_type_way_or_line_are_other_bugs(error, other):
    same = (error.type, error.at, way(error.frames)) == (other.type, other.at, way(other.frames))
    assert (name_of(error) == name_of(other)) is same


@given(error=exceptions, place=st.integers(0, 5))
def test_one_other_function_on_the_way_makes_another_name(error, place):
    frames = list(error.frames)
    frames[place % len(frames)] = Frame("elsewhere", "/srv/app/other.py", 1)
    assert name_of(replace(error, frames=tuple(frames))) != name_of(error)


@given(error=exceptions, jobs=st.lists(st.text(max_size=8), min_size=2, max_size=2, unique=True))
def test_a_name_holds_within_its_job(error, jobs):
    assert len({fingerprint(job, Outcome.EXCEPTION, exception=error) for job in jobs}) == 2


# ---------------------------------------------------------------- hangs


def hang(outcome, innermost_first):
    return fingerprint("job", outcome, hangs_in=innermost_first, signal=9)


limits = st.sampled_from((Outcome.TIME, Outcome.STALLED))


@given(outcome=limits, frames=stacks, data=st.data())
def test_a_hang_is_named_by_the_innermost_function_of_its_own_and_nothing_else(outcome, frames, data):
    innermost = frames[0]
    again = [*data.draw(st.lists(library_frames, max_size=3)), *occurs_again(data, [innermost])[0:]]
    others = data.draw(stacks)  # who called it is no part of the bug: two ways lead to one lock
    assert hang(outcome, (*again, *others)) == hang(outcome, tuple(frames))


@given(outcome=limits, one=stacks, other=stacks)
def test_two_functions_that_hang_are_two_bugs(outcome, one, other):
    same = way(one[:1]) == way(other[:1])
    assert (hang(outcome, tuple(one)) == hang(outcome, tuple(other))) is same


@given(frames=stacks)
def test_running_out_of_time_and_making_no_progress_are_two_findings(frames):
    assert hang(Outcome.TIME, tuple(frames)) != hang(Outcome.STALLED, tuple(frames))


@given(outcome=limits, frames=st.lists(library_frames, max_size=4))
def test_a_hang_of_which_only_the_library_is_seen_has_the_name_of_its_limit(outcome, frames):
    assert hang(outcome, tuple(frames)) == hang(outcome, ())


@given(outcome=limits, frames=stacks, more=stacks, pace=st.sampled_from((Pace.BUSY, Pace.SLOW)))
def test_only_what_stands_still_is_named_by_where_it_stands(outcome, frames, more, pace):
    assume(way(frames[:1]) != way(more[:1]))

    def name(stack, how, looks=12):
        evidence = Evidence(
            Exit(signal=9, killed_for=outcome.value),
            LastWords(spoke=True),
            look=Look(stacks=(Stack(1, tuple(stack), len(stack)),), depth=len(stack)),
            study=Study(how, looks, 2.4),
        )
        return fingerprint_of("job", Verdict(outcome, "It was killed."), evidence)

    assert name(frames, pace) == name(more, pace)  # where a loop is when the limit strikes is chance
    assert name(frames, Pace.HANGING) != name(more, Pace.HANGING)
    assert name(frames, Pace.HANGING) == hang(outcome, tuple(frames))
    assert name(frames, Pace.HANGING, looks=1) == name(
        more, Pace.HANGING, looks=1
    )  # one look cannot tell: a job that polls stands still in it, too
