"""How the log is written: with request ids, and so that nothing that a client sent can pass for a line of its own."""

from __future__ import annotations

import logging
import textwrap
import traceback

from smsgw.origin import origin


class Formatter(logging.Formatter):
    """A formatter for ini files, whose format may have ``%(request_id)s``: ``-`` where no request is served."""

    def format(self, record: logging.LogRecord) -> str:
        found = origin()
        record.request_id = found.request_id if found else "-"
        return super().format(record)


def indented(error: BaseException) -> str:
    """The traceback of that error, on lines of its own that all begin with a bar."""
    return "\n" + textwrap.indent("".join(traceback.format_exception(error)), "    | ", lambda line: True)
