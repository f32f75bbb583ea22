"""What launch.doctor checks, and how it says what it found."""

import dataclasses
import sys

OK, NOTE, FAIL = "ok", "note", "FAIL"
_COLORS = {OK: "\033[32m", NOTE: "\033[33m", FAIL: "\033[31m"}
_RESET = "\033[0m"


@dataclasses.dataclass(frozen=True)
class Line:
    """One finding. `mark` is OK, NOTE (only some runs need it), or FAIL (the user must fix it)."""

    mark: str
    name: str
    text: str

    def __str__(self) -> str:
        text = " ".join(self.text.split())
        return f"{self.mark:4}  {self.name:9}  {text}"

    def show(self) -> None:
        """Prints the line, in colour on a terminal."""
        text = str(self)
        if sys.stdout.isatty():
            text = f"{_COLORS[self.mark]}{self.mark:4}{_RESET}{text[4:]}"
        print(text, flush=True)
