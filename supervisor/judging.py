"""What the engine is told of an attempt that has ended: all evidence, with the job's secrets taken out. The judgement itself is the engine's."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

from msgspec.structs import replace

from supervisor.adapters import host
from supervisor.core import heal
from supervisor.core.events import AttemptEnded
from supervisor.core.evidence import Evidence
from supervisor.core.jobs import Job
from supervisor.core.model import Wall
from supervisor.core.redact import SLACK_BYTES, without_messages
from supervisor.counting import Live
from supervisor.evidence import Gatherer, Hider, exit_of
from supervisor.ports import Places, Surveyor
from supervisor.watch import Subject

TAIL_BYTES: Final = 16 * 1024
SURVEY_S: Final = 0.008  # a survey that is not done when its attempt ends is not waited for any longer


class Judging:
    """*guarded* keeps a mistake in one part from costing the others; *containment* says which means hold the limits."""

    def __init__(
        self,
        places: Places,
        gatherer: Gatherer,
        hider: Hider,
        surveyor: Surveyor | None,
        containment: Mapping[str, str],
        guarded: Callable[..., AbstractContextManager[None]],
    ) -> None:
        self._places = places
        self._gatherer = gatherer
        self._hider = hider
        self._surveyor = surveyor
        self._containment = containment
        self._guarded = guarded

    def began(self, key: str, job: Job) -> None:
        """Have somebody look at what the job is made of now, so that a bad end can be held against the last good run."""
        if self._surveyor is not None:
            with self._guarded("surveying", job=job.name):
                self._surveyor.begin(key, job)

    def readable(self, job: Job, text: str) -> str:
        """*text* without the secrets of *job*."""
        return self._hider.of(job).text(text)

    def ended(self, live: Live, record: Mapping[str, Any], subject: Subject | None) -> AttemptEnded:
        """The event of the exit record *record*. What cannot be gathered is no evidence: the keeper's record alone is enough."""
        key, facts = record["key"], {"job": live.job, "run": live.run}
        redactor = self._hider.of(live.config)
        evidence, tail = redactor.facts(Evidence(exit_of(record))), ""
        with self._guarded("gathering", **facts):
            gathered = self._gatherer.gather(
                record, subject, live.host_oom_at_start, self._places.run(key), self._places.checkpoint(live.job)
            )
            shown = redactor.facts(gathered if live.config.dossier.messages else without_messages(gathered))
            refused = heal.refusal(gathered.words.exception)
            evidence = replace(shown, progress=gathered.progress, refused=refused)  # a record's key is what it is found by again
        with self._guarded("tailing", **facts):
            if live.config.dossier.output:
                is_cut = evidence.exit.signal is not None or evidence.exit.output_dropped_bytes > 0
                tail = redactor.end_of_output(self._places.tail(live.job, key, TAIL_BYTES + SLACK_BYTES), TAIL_BYTES, is_cut=is_cut)
        found = self._surveyor.finish(key, SURVEY_S) if self._surveyor is not None else None
        around: dict[str, object] | None = None
        with self._guarded("looking round", **facts):
            python = {"python": evidence.words.python} if evidence.words.python else {}
            around = host.surroundings(live.config.launch, {**(found.facts if found is not None else {}), **python})
        changes, survey = (found.changes, found.text) if found is not None else (None, None)
        return AttemptEnded(
            live.job,
            live.run,
            live.attempt,
            evidence,
            _wall(record["started_wall"]),
            _wall(record["ended_wall"]),
            tail,
            self._containment,
            around,
            changes,
            survey,
            followed=record.get("next") is not None,
        )


def _wall(unix: float) -> Wall:
    return datetime.fromtimestamp(unix, UTC)
