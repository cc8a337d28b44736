"""What the HTTP side needs of the daemon, as a Protocol; the daemon has it without knowing HTTP."""

from collections.abc import Mapping
from typing import Any, Protocol

JsonObject = dict[str, Any]


class Backend(Protocol):
    """What the pages show and whom changes are asked of. Every method is called on a worker thread and may take its time."""

    def metrics_page(self) -> bytes:
        """The whole page in text format 0.0.4."""

    def healthy(self) -> tuple[bool, str]:
        """Whether the main loop comes round, and a sentence."""

    def ready(self) -> tuple[bool, str]:
        """Whether supervising has begun, and a sentence."""

    def status(self) -> JsonObject:
        """The daemon and all jobs, as ``status --json`` prints them."""

    def pulse(self) -> Mapping[str, object]:
        """For each job an object that is another one as soon as anything about the job has changed."""

    def version(self) -> JsonObject:
        """The version of Mainstay and of its Python."""

    def config(self) -> JsonObject:
        """The config in force, in short and without secrets."""

    def job(self, name: str) -> JsonObject | None:
        """One job; None if there is none of that name."""

    def runs(self, job: str | None, limit: int) -> list[JsonObject]:
        """The latest runs, newest first."""

    def run(self, number: int) -> JsonObject | None:
        """One run; None if there is none of that number."""

    def slots(self, job: str | None, limit: int) -> list[JsonObject]:
        """The latest due fire times, newest first."""

    def why(self, job: str | None, run: int | None) -> JsonObject | None:
        """The dossier of a run, or of the last bad end of a job or of all jobs; None if there is none."""

    def incidents(self, open_only: bool, limit: int) -> list[JsonObject]:
        """Incidents, newest first."""

    def incident(self, number: int) -> JsonObject | None:
        """One incident with its dossier; None if there is none of that number."""

    def logs(self, job: str, run: int | None, lines: int | None, offset: int | None, attempt: int | None = None) -> JsonObject | None:
        """A piece of captured output: at least ``text`` and ``offset``, where the next piece begins. None without job, run or attempt."""

    def quarantine(self, job: str, key: str | None) -> JsonObject | None:
        """The records that are set aside, or the one of that key with its dossier; None without such a job or record."""

    def drill(self, number: int) -> JsonObject | None:
        """A drill as it stands; None if there is none of that number in this life of the brain."""

    def drills(self, job: str) -> list[JsonObject]:
        """The last result of each fault that the job was ever drilled for."""

    def ask(self, verb: str, target: str, arguments: Mapping[str, Any], timeout_s: float) -> tuple[int, JsonObject]:
        """Asks for a change and waits for the answer: HTTP status and body.

        Verbs on a job (target: its name): start, stop, restart, trigger, pause (``for``), resume, silence (``for``, ``comment``),
        unsilence, drill (``fault``, ``cap``, ``prometheus``), release (``key``, ``because``); on an incident (target: its number): ack,
        resolve; on the configuration (target ""): reload, with ``plan``: True for only looking.
        """
