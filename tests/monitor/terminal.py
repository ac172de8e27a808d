"""A terminal that understands the few codes that are drawn with."""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\x1b\[(\d*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class FakeTerminal:
    """Keeps what stands on the screen."""

    def __init__(self) -> None:
        self.lines = [""]
        self.row = self.column = 0

    def isatty(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def write(self, text: str) -> None:
        assert "".join(m.group() for m in _TOKEN.finditer(text)) == text
        for number, code, back, down, words in _TOKEN.findall(text):
            if back:
                self.column = 0
            elif down:
                # A terminal begins the new line at the left.
                self.row, self.column = self.row + 1, 0
                if self.row == len(self.lines):
                    self.lines.append("")
            elif code == "A":
                self.row = max(0, self.row - int(number or 1))
            elif code == "J":
                self.lines[self.row] = self.lines[self.row][: self.column]
                del self.lines[self.row + 1 :]
            elif words:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = (
                    line[: self.column] + words + line[self.column + len(words) :]
                )
                self.column += len(words)
            else:
                raise AssertionError(code)

    @property
    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines if line.strip()]
