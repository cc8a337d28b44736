"""Cron expressions and time zones as values of config.yaml."""

import re

from supervisor.config.document import Scalar
from supervisor.config.kinds import Context, Json, ScalarKind
from supervisor.config.problems import suggestion
from supervisor.core.units import quoted


class Timezone(ScalarKind):
    """The name of a time zone."""

    form = "a time zone by name, e.g. UTC or Europe/London"

    def parse(self, node: Scalar, context: Context) -> str:
        if node.text == "UTC":
            return node.text
        import zoneinfo

        try:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}", node.text):
                raise ValueError
            zoneinfo.ZoneInfo(node.text)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            mend = f"write {self.form}"
            if not context.report.is_full:
                known = sorted(zoneinfo.available_timezones())
                mend = suggestion(node.text, known) if known else "install the system's tzdata package, or write UTC"
            raise ValueError(f"{quoted(node.text)} is not a time zone; {mend if len(mend) < 100 else 'write ' + self.form}") from None
        return node.text

    def schema(self) -> Json:
        return {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9_+/-]*$"}


CRON_NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class CronExpression(ScalarKind):
    """Five fields as in crontab(5), or a name such as @daily; the value is the five fields."""

    form = 'five fields in quotes (minute hour day month weekday), e.g. "*/5 * * * *", or @hourly, @daily, @weekly, @monthly, @yearly'

    def parse(self, node: Scalar, context: Context) -> str:
        del context
        text = " ".join(node.text.split())
        if text.startswith("@"):
            if text not in CRON_NAMES:
                raise ValueError(f"{quoted(text)} is not a schedule; {suggestion(text, list(CRON_NAMES))}")
            return CRON_NAMES[text]
        if len(text.split()) != 5 or len(text) > 200 or not text.isascii():
            raise ValueError(f"{quoted(text)} is not a cron expression; write {self.form}")
        self._check(text)
        return text

    @staticmethod
    def _check(text: str) -> None:
        for part in text.replace(" ", ",").split(","):
            values, _, step = part.partition("/")
            first, _, last = values.partition("-")
            if step and last and first.lower() == last.lower():  # cronsim would take the range to go on to the end of the field
                raise ValueError(f"{quoted(part)} in {quoted(text)} is a range of one value with a step; write {first}")
        from datetime import UTC, datetime

        from cronsim import CronSim, CronSimError

        try:
            next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))  # any day: only whether there is a next one at all
        except CronSimError as err:
            wrong = str(err).removeprefix("Bad ")
            finding = "no month of it has such a day" if wrong == "day-of-month" else f"the field {wrong} is wrong"
            raise ValueError(f"{quoted(text)} is not a cron expression: {finding}; mend the field {wrong}") from err
        except StopIteration:
            raise ValueError(f"{quoted(text)} never comes; write a date that exists") from None

    def schema(self) -> Json:
        return {"type": "string", "minLength": 1}
