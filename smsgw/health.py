"""How the gateway and smsd are: what is wrong, since when, and what to do. Knows no HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pluggy

from smsgw.journal.alarms import Trouble, standing
from smsgw.journal.journal import Journal
from smsgw.logs import indented
from smsgw.model import Unavailable
from smsgw.plugins import ask, implementations
from smsgw.spool.modems import Modems, Smsd
from smsgw.spool.sending.writer import Writer

OUTGOING = "queue outgoing"  # where nothing leaves it, smsd takes nothing
OK, WARNING, ERROR = "ok", "warning", "error"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one part, since when (UTC; ``None``: nobody knows), and what to do.

    ``level`` is ``error`` where messages do not go out, else ``warning``. ``part`` is ``spool``, ``smsd``,
    ``modem NAME``, ``queue NAME``, ``journal``, ``authentication`` or ``plugin NAME``.
    """

    level: str
    part: str
    what: str
    remedy: str
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All that is known at a moment. ``is_ready``: something can be sent."""

    problems: Sequence[Problem]
    smsd: Smsd
    is_ready: bool

    @property
    def status(self) -> str:
        """The worst of the problems' levels, or ``ok``."""
        levels = {problem.level for problem in self.problems}
        return next((level for level in (ERROR, WARNING) if level in levels), OK)


class Health:
    """Looks at all parts; shared by all threads."""

    def __init__(
        self,
        hook: pluggy.HookRelay,
        writer: Writer,
        modems: Modems,
        journal: Journal,
    ) -> None:
        self._backends = [backend.plugin_name for backend in implementations(hook.authenticate)]
        self._faults = implementations(hook.fault)
        self._writer = writer
        self._modems = modems
        self._journal = journal

    def look(self) -> Report:
        """All of it, as it stands now."""
        smsd = self._modems.look()
        needed = [*self._of_spool(), *_of_smsd(smsd), *self._of_backends()]
        is_ready = not any(problem.level == ERROR for problem in needed)
        known, of_journal = self._of_journal()
        found = [_dated(problem, known) for problem in needed]
        queues = [*_of_queues(known.values())]
        is_ready = is_ready and not any(problem.level == ERROR and problem.part == OUTGOING for problem in queues)
        return Report([*found, *queues, *of_journal], smsd, is_ready)

    def _of_spool(self) -> Iterator[Problem]:
        try:
            self._writer.probe()
        except Unavailable as error:
            yield Problem(ERROR, "spool", error.detail, "Run 'smsgw check', which looks at the spool's folders.")

    def _of_journal(self) -> tuple[Mapping[str, Trouble], Sequence[Problem]]:
        """What the journal knows of modems and queues, and what is wrong with the journal."""
        try:
            self._journal.seen()
            return standing(self._journal), ()
        except Unavailable as error:
            remedy = "Messages go out all the same. Run 'smsgw check', which opens the database, and see the log."
            return {}, [Problem(WARNING, "journal", error.detail, remedy)]

    def _of_backends(self) -> Iterator[Problem]:
        faults = dict(self._of_plugins())
        for name, what in faults.items():
            remedy = "Mend that. Where the reason is not clear, run 'smsgw check', and see the log."
            yield Problem(WARNING, f"plugin {name}", what, remedy)
        if self._backends and faults.keys() >= set(self._backends):
            yield Problem(ERROR, "authentication", "nobody can get in", "Mend what the plugins need that know users.")

    def _of_plugins(self) -> Iterator[tuple[str, str]]:
        """The plugins that something is wrong with, and what."""
        for plugin in self._faults:
            try:
                what = ask(plugin, {})
            except Exception as error:
                log.error("the plugin %r failed to tell how it is%s", plugin.plugin_name, indented(error))
                what = "it failed to tell how it is"
            if what is not None:
                yield plugin.plugin_name, str(what)


def _of_smsd(smsd: Smsd) -> Iterator[Problem]:
    if smsd.fault:
        level = ERROR if smsd.is_running is False else WARNING
        yield Problem(level, "smsd", smsd.fault, smsd.remedy or "")
    if smsd.is_running is False:
        return
    for modem in smsd.modems:
        if modem.fault:
            level = WARNING if smsd.can_send else ERROR
            since = modem.since if modem.state in ("blocked", "receiving") else None
            yield Problem(level, f"modem {modem.name}", modem.fault, modem.remedy or "", since)


def _of_queues(known: Iterable[Trouble]) -> Iterator[Problem]:
    for trouble in known:
        kind, _, name = trouble.part.partition("/")
        if kind != "modem":
            level = ERROR if kind == "queue" else WARNING
            yield Problem(level, f"queue {name}", trouble.what, trouble.remedy, trouble.since)


def _dated(problem: Problem, known: Mapping[str, Trouble]) -> Problem:
    """The problem, with the time that the journal has for it."""
    trouble = known.get(problem.part.replace(" ", "/", 1))
    return problem if problem.since or trouble is None else replace(problem, since=trouble.since)
