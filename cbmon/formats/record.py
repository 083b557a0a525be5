"""cbmon's own record (`.jsonl`): one event a line."""

from __future__ import annotations

import msgspec

from cbmon.events import EpochsEnded, Event, Malformed, decode_line
from cbmon.formats.lines import LINE_MAX, LineSplitter


class RecordDecoder:
    """Decodes a record incrementally; any cutting of the bytes gives the same events."""

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of the file, give the events that they complete."""
        events: list[Event] = []
        for number, line in self._lines.feed(data):
            if line is None:
                events.append(Malformed(line=number, reason=f"left out, longer than {LINE_MAX} bytes"))
            elif line.strip():
                event = decode_line(line, number)
                if isinstance(event, EpochsEnded) and len(event.epochs) == 1:
                    event = msgspec.structs.replace(event, first_line=number)
                events.append(event)
        return events

    def finish(self) -> list[Event]:
        """The file ends here: name an unfinished last line."""
        if not self._lines.has_rest:
            return []
        return [
            Malformed(line=self._lines.number + 1, reason="left out, no newline at its end: it may be cut")
        ]
