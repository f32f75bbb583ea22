"""The page on config fields is committed as `docs/make_config_fields.py` makes it."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent


def test_the_committed_page_is_the_one_that_the_tables_give():
    command = [sys.executable, "docs/make_config_fields.py"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    remedy = "python docs/make_config_fields.py > docs/config_fields.md"
    assert (ROOT / "docs" / "config_fields.md").read_text() == made, remedy
    assert "| `augment.hue` | `0.0` |" in made
    assert "at least 0 and at most 0.5" in made
