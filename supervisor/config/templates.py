"""Templates of notifications as values of config.yaml."""

from supervisor.config.document import Scalar
from supervisor.config.kinds import Context, Json, ScalarKind
from supervisor.config.problems import suggestion
from supervisor.core import template
from supervisor.core.template import Template, TemplateError


class TemplateText(ScalarKind):
    """Text with fields in braces; the value is the parsed template. ``lines`` False: one line only."""

    def __init__(self, *, lines: bool) -> None:
        self.lines = lines
        self.form = f'{"text" if lines else "a line"} with fields, e.g. "{{severity}}: {{job}}: {{summary}}"'

    def parse(self, node: Scalar, context: Context) -> Template:
        del context
        if not node.text.strip():
            raise ValueError(f"is empty; write {self.form}")
        if len(node.text) > template.CHARS_MAX:
            raise ValueError(f"has {len(node.text)} characters; write at most {template.CHARS_MAX}")
        if not self.lines and "\n" in node.text.strip("\n"):
            raise ValueError(f"has several lines; write {self.form}")
        try:
            return template.parse(node.text.strip("\n"))
        except TemplateError as err:
            mend = f"; {suggestion(err.unknown, sorted(template.FIELDS))}" if err.unknown else ""
            raise ValueError(f"{err}{mend}") from err

    def plain(self, value: Template) -> str:
        return value.text

    def schema(self) -> Json:
        return {"type": "string", "minLength": 1}
