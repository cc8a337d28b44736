"""JSON Schema of config.yaml for editors, generated from the tables that the loader reads. It says what one value may be; what has to
hold between values only ``mainstay check`` knows.
"""

from supervisor.config.kinds import Json
from supervisor.config.schema import JOB, MAINTENANCE, NAME, RECEIVERS, SUPERVISOR


def schema() -> Json:
    """The schema, draft 2020-12."""
    job = JOB.schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mainstay configuration",
        "type": "object",
        "additionalProperties": False,
        "required": ["jobs"],
        "properties": {
            "supervisor": {"description": "The daemon itself.", **SUPERVISOR.schema()},
            "defaults": {"description": "Keys of every job that does not say otherwise.", "$ref": "#/$defs/job"},
            "jobs": {
                "description": "The jobs, by name.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": f"^{NAME}$"},
                "additionalProperties": {"$ref": "#/$defs/job"},
            },
            "receivers": {
                "description": "Who can be told, by name.",
                "type": "object",
                "propertyNames": {"pattern": f"^{NAME}$"},
                "additionalProperties": {"$ref": "#/$defs/receiver"},
            },
            "maintenance": {
                "description": "When nobody is alerted, by name of the window.",
                "type": "object",
                "propertyNames": {"pattern": f"^{NAME}$"},
                "additionalProperties": MAINTENANCE.schema(),
            },
        },
        "$defs": {
            "job": {**job, "not": {"required": ["command", "shell"]}},
            "receiver": {"oneOf": [shape.schema() for shape in RECEIVERS.values()]},
        },
    }
