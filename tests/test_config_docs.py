"""The page on config fields: made from config.py, and committed as it is made."""

import pathlib

from rethinking import config, config_docs


def test_the_committed_page_is_the_one_that_config_gives():
    file = pathlib.Path(config_docs.__file__).parents[1] / "docs" / "config_fields.md"
    assert file.read_text() == config_docs.page(), "python -m rethinking.config_docs > docs/config_fields.md"


def test_every_field_of_every_kind_is_there_with_its_default():
    for name, kind in config.KINDS.items():
        section = config_docs.page().partition(f"## `kind={name}`")[2].partition("\n## ")[0]
        fields = config.flat(kind.defaults())
        if "All fields of `kind=training`" in section:
            fields = {field: value for field, value in fields.items() if field not in config.flat(config.training())}
        for field in fields:
            assert f"| `{field}` | `" in section, f"{name}: {field}"
    assert "| `weight_decay` | `0.0` | coefficient of half the squared norm of the kernels |" in config_docs.page()
    assert "| `randomize.pixels` | `\"none\"` | one of `none`, `shuffled`, `random`, `gaussian` |" in config_docs.page()


def example():
    return config.ConfigDict({
        "plain": 1,
        "told": 2,  # a meaning
        "group": {  # of the group
            "inner": 3,  # its own
            "silent": "# no comment",
        },
        "short": {"a": 1, "b": 2},  # for both
    })


def test_comments_are_read_with_those_of_their_group():
    assert config_docs.comments(example) == {
        "plain": "", "told": "a meaning", "group.inner": "of the group: its own", "group.silent": "of the group",
        "short.a": "for both", "short.b": "for both"}
