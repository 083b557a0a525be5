"""Bytes into numbered lines, however they were cut.

Line ends are LF, CRLF and CR-CR-LF (CSVLogger on Windows wrote those). A line longer than `LINE_MAX` is never
held: a file without a newline must not fill the memory.
"""

from __future__ import annotations

from collections.abc import Iterator

LINE_MAX = 1 << 20
"""1 MiB: a CSVLogger row of 10,000 metrics has 200 KB."""


class LineSplitter:
    """Keeps the unfinished last line until its rest arrives.

    `feed` yields `(number, line)`; the line is None where it was longer than `LINE_MAX`.
    """

    def __init__(self) -> None:
        self.number = 0
        """Lines finished so far."""
        self.rest = b""
        """The unfinished last line, as far as it is known."""
        self.is_too_long = False
        """The unfinished last line has lost its beginning."""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Take bytes, give the lines that they finish, without their line ends."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            self.number += 1
            too_long, self.is_too_long = self.is_too_long or len(line) > LINE_MAX, False
            yield self.number, None if too_long else line.rstrip(b"\r")
        if len(self.rest) > LINE_MAX:
            self.rest, self.is_too_long = b"", True

    @property
    def has_rest(self) -> bool:
        """Whether a last line is unfinished."""
        return bool(self.rest.strip()) or self.is_too_long

    def take_rest(self) -> bytes:
        """Give the unfinished line away, to be fed again in front of what follows."""
        rest, self.rest = self.rest, b""
        return rest
