"""The page docs/config_fields.md: every config field, its default, and what the comments in config.py say of it.

    python -m rethinking.config_docs > docs/config_fields.md
"""

import ast
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Callable

from rethinking import config as configs

_HEAD = """# What each config field means

Made from the comments in [`rethinking/config.py`](../rethinking/config.py) by `python -m rethinking.config_docs`; to
change it, change them. Any field is overridden on the command line by `--config.FIELD=VALUE`, for instance
`--config.data.num_train=1000`. Defaults switch off whatever a row of `configs/` does not ask for; what a row sets is in
its file, and the resolved config of a run in its `config.json`.
"""
_AS_ELSEWHERE = "as in `training`"


def page() -> str:
    """The page as Markdown: a table for each kind of experiment, with the function that has its defaults."""
    training = configs.flat(configs.training())
    parts = [_HEAD]
    for name, kind in configs.KINDS.items():
        fields = configs.flat(kind.defaults())
        fields |= {field: {} for field in comments(kind.defaults) if field not in fields}  # groups of any fields
        extends = name != "training" and training.keys() <= fields.keys()
        if extends:  # only what is new or has another default
            fields = {field: value for field, value in fields.items() if training.get(field) != value}
        parts.append(f"## `kind={name}`\n\n{inspect.getdoc(kind.defaults)}"
                     + "\n\nAll fields of `kind=training`, and:" * extends + f"\n\n{_table(fields, kind)}")
    return "\n".join(parts)


def _table(fields: dict, kind: configs.Kind) -> str:
    meanings, own = comments(configs.training), comments(kind.defaults)
    meanings |= {field: text for field, text in own.items() if text != _AS_ELSEWHERE}
    order = [field for field in own if field in fields]
    allowed = choices(configs.check) | choices(kind.check)
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for field in dict.fromkeys((*order, *fields)):
        texts = [meanings.get(field, ""), "one of " + ", ".join(f"`{one}`" for one in allowed[field])
                 if field in allowed else ""]
        meaning = "; ".join(filter(None, texts)).replace("|", "\\|")
        lines.append(f"| `{field}` | `{json.dumps(fields[field])}` | {meaning} |")
    return "\n".join(lines) + "\n"


def comments(function: Callable) -> dict[str, str]:
    """What the comments beside the keys of the dictionaries in `function` say, in order: "data.name" -> comment or "".

    The comment beside a nested dictionary is prefixed to those of its keys, or is theirs where they share its line.
    """
    source = textwrap.dedent(inspect.getsource(function))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    beside = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    found = {}

    def read(node: ast.Dict, prefix: str, shared: str) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if not isinstance(key, ast.Constant):
                continue
            own = beside.get(key.lineno, "")
            if isinstance(value, ast.Dict) and value.keys:
                read(value, f"{prefix}{key.value}.", own)
            else:
                parts = [shared, own] if shared != own else [own]
                found[prefix + key.value] = ": ".join(filter(None, parts))

    outer = [node for call in ast.walk(ast.parse(source)) if isinstance(call, ast.Call)
             for node in call.args if isinstance(node, ast.Dict)]
    for node in outer:
        read(node, "", "")
    return found


def choices(check: Callable) -> dict[str, list[str]]:
    """The values that `check`, a function of config.py, allows for a field by `known(config.FIELD, VALUES, ...)`."""
    found = {}
    for call in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(check)))):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "known":
            field = ast.unparse(call.args[0]).removeprefix("config.")
            found[field] = list(eval(ast.unparse(call.args[1]), vars(configs)))  # a constant's name, or a tuple
    return found


if __name__ == "__main__":
    print(page(), end="")
