"""Prints the page docs/config_fields.md: every config field, its default and its meaning.

Make the page again when a field has changed:

    python docs/make_config_fields.py > docs/config_fields.md
"""

import json

from rethinking import experiments
from rethinking.config.fields import Field, Fields

HEAD = """# What each config field means

Change any field on the command line by `--config.FIELD=VALUE`, for example
`--config.data.num_train=1000`. By default, everything optional is off. The rows of `configs/`
switch on what they need. The `config.json` of a run has all its fields. A run refuses a value of
the wrong type or out of its range.

`python docs/make_config_fields.py > docs/config_fields.md` makes this page from the tables
`FIELDS` in [`rethinking/experiments/`](../rethinking/experiments). To change the page, change the
tables.
"""


def page() -> str:
    """Returns the page as Markdown, with a table for each kind of experiment."""
    training = experiments.KINDS["training"].FIELDS
    parts = [HEAD]
    for name, kind in experiments.KINDS.items():
        title = kind.__doc__.splitlines()[0]
        fields = kind.FIELDS
        if kind is not experiments.KINDS["training"] and training.keys() <= fields.keys():
            title += "\n\nIt has all fields of `kind=training`, and these:"
            fields = {path: field for path, field in fields.items() if training.get(path) != field}
        parts.append(f"## `kind={name}`\n\n{title}\n\n{_table(fields)}")
    return "\n".join(parts)


def _table(fields: Fields) -> str:
    lines = ["| field | default | meaning | values |", "|---|---|---|---|"]
    for path, field in fields.items():
        doc = field.doc.replace("|", "\\|")
        lines.append(f"| `{path}` | `{json.dumps(field.default)}` | {doc} | {_values(field)} |")
    return "\n".join(lines) + "\n"


def _values(field: Field) -> str:
    if field.choices is not None:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    return field.words


if __name__ == "__main__":
    print(page(), end="")
