"""Tracebacks for a log in which nothing that a client sent can pass for a line of its own."""

from __future__ import annotations

import textwrap
import traceback


def indented(error: BaseException) -> str:
    """The traceback of that error, on lines of its own that all begin with a bar."""
    return "\n" + textwrap.indent("".join(traceback.format_exception(error)), "    | ", lambda line: True)
