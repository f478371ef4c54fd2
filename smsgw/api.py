"""What plugins call: to send, find, search and cancel messages, and for endpoints of their own in the v2 API. Public.

``docs/recipes.md`` shows both, and ``docs/plugin-reference.md`` has all names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from cornice import Service
from pyramid.registry import Registry
from pyramid.request import Request
from pyramid.response import Response

from smsgw import security
from smsgw.application import Application, application
from smsgw.batch import Batch, Draft, Outcome
from smsgw.gateway import Reply, once
from smsgw.logs import indented
from smsgw.mailbox import Found
from smsgw.model import Identity, Measure, Options, Query, StatusReport, StoredMessage, Unavailable
from smsgw.options import stray
from smsgw.origin import origin
from smsgw.plugins import Misbehaved, ask, implementations, kind
from smsgw.refusals import Forbidden, Invalid, NoneAccepted, NotFound, Refused, Rejection, TooLate, invalid
from smsgw.security import AUTHENTICATED
from smsgw.settings import is_userid
from smsgw.spool.modems import Modem, Smsd
from smsgw.spool.waiting import Waiting, look
from smsgw.status import BY_NAME
from smsgw.tracing import authenticated
from smsgw.views import problem as problems
from smsgw.views.body import Flag, Text, WholeNumber, Word, response
from smsgw.views.problem import ROOT, Malformed
from smsgw.views.v2_body import Items, Moment, Reference, SendSchema, batch_of, draft_fault, malformed, strict_body
from smsgw.views.v2_search import read_query

__all__ = [
    "ROOT",
    "Application",
    "Batch",
    "Draft",
    "Flag",
    "Forbidden",
    "Found",
    "Invalid",
    "Items",
    "Malformed",
    "Modem",
    "Moment",
    "NoneAccepted",
    "NotFound",
    "Reference",
    "Refused",
    "Rejection",
    "SendSchema",
    "Sent",
    "Smsd",
    "Text",
    "TooLate",
    "Waiting",
    "WholeNumber",
    "Word",
    "application",
    "authenticated",
    "batch_of",
    "cancel",
    "client_address",
    "find",
    "find_received",
    "journal_lag",
    "malformed",
    "measures",
    "origin",
    "problem",
    "read_query",
    "reply",
    "search",
    "send",
    "service",
    "smsd",
    "strict_body",
    "waiting",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a send: the message's id by the place of its draft, and why each other draft is not sent."""

    ids: Mapping[int, str]
    rejected: Sequence[Rejection]


def send(
    registry: Registry,
    identity: Identity,
    drafts: Sequence[Draft],
    options: Options = Options(),  # noqa: B008
    *,
    key: str | None = None,
) -> Sent:
    """Send messages as that user would: all plugins are asked, as for a request. It needs no request.

    :param registry: what ``includeme`` is given as ``config.registry``.
    :param key: 8 to 128 visible ASCII characters. What that user sends under a key is sent once, for a day at least:
        the next call returns what the first returned. A key that a client of the same user has used is refused.
    :raises Refused: nothing is sent. ``NoneAccepted`` says in ``rejected`` why not.
    :raises TooMany: a limit would be exceeded; nothing is sent.
    :raises Unavailable: nothing is sent.
    """
    _check(identity, drafts, options)
    parts: Application = registry.application
    found = parts.gateway.send(identity, Batch(drafts, options), _Kept(), None if key is None else once(identity, key))
    return _read(found)


def find(registry: Registry, identity: Identity, id: str) -> tuple[StoredMessage, StatusReport | None]:
    """One message that this user may read, and the status report that says finally what became of it.

    :raises NotFound: there is none.
    :raises Unavailable: nobody can know now.
    """
    parts: Application = registry.application
    message = parts.mailbox.locate(identity, id)
    return message, parts.mailbox.fate(message)


def find_received(registry: Registry, identity: Identity, id: str) -> StoredMessage:
    """One message from outside that this user may read.

    :raises NotFound: there is none.
    :raises Unavailable: nobody can know now.
    """
    parts: Application = registry.application
    return parts.mailbox.received(identity, id)


def search(registry: Registry, identity: Identity, query: Query) -> Found:
    """The messages of this user that the query asks for, or everybody's for who may read all.

    A page can be short, or empty, before the end: go on with ``last`` as the next query's ``before``.

    :raises Invalid: there is no such status, or the page is to have no message.
    :raises Forbidden: this user may not list messages.
    :raises Unavailable: the journal is out of service.
    """
    if strays := set(query.statuses) - BY_NAME.keys():
        raise invalid("statuses", f"has {min(strays)!r}, and should be of {', '.join(BY_NAME)}")
    if query.limit < 1:
        raise invalid("limit", "should be at least 1")
    parts: Application = registry.application
    return parts.mailbox.search(identity, query)


def cancel(registry: Registry, identity: Identity, id: str) -> StoredMessage:
    """Cancel a message of this user: it will never be sent. One that is cancelled already is returned too.

    :raises NotFound: there is none that the user may read.
    :raises Forbidden: the user may not cancel it.
    :raises TooLate: smsd has it.
    :raises Unavailable: nobody can know now.
    """
    parts: Application = registry.application
    return parts.mailbox.cancel(identity, id)


def smsd(registry: Registry) -> Smsd:
    """smsd and its modems as they stand now: some small files and processes are looked at, in under a millisecond."""
    parts: Application = registry.application
    return parts.modems.look()


def waiting(registry: Registry) -> Sequence[Waiting]:
    """What waits in each queue now. It lists their folders, which takes the longer, the more waits."""
    parts: Application = registry.application
    return look(parts.layout, parts.queue)


def journal_lag(registry: Registry) -> float:
    """Seconds for which the journal has lacked something that is in smsd's folders; 0: it has all.

    They are counted from the first call in this process that found it so: call it regularly.

    :raises Unavailable: the journal is out of service.
    """
    parts: Application = registry.application
    return parts.journal.lag()


def measures(registry: Registry) -> Sequence[Measure]:
    """The numbers of all plugins (the hook ``measures``), without those of a plugin that has none now."""
    parts: Application = registry.application
    found: list[Measure] = []
    for plugin in implementations(parts.plugins.hook.measures):
        try:
            answer = ask(plugin, {})
            if not isinstance(answer, list | tuple) or not all(isinstance(each, Measure) for each in answer):
                raise Misbehaved(plugin, f"should answer a list of Measure, and answered {kind(answer)}")
            labels = {
                each.name: each.labels.keys() for each in reversed([*found, *answer])
            }  # of the first of that name
            for each in answer:
                if each.labels.keys() != labels[each.name]:
                    raise Misbehaved(plugin, f"has {each.name!r} with other labels than before")
            found += answer
        except Unavailable as error:
            log.warning("the plugin %r has no numbers now: %s (%s)", plugin.plugin_name, error, error.__cause__)
        except Exception as error:
            log.error("the plugin %r failed to tell its numbers%s", plugin.plugin_name, indented(error))
    return found


def _check(identity: Identity, drafts: Sequence[Draft], options: Options) -> None:
    """Check what is checked of a request: all of it is written to files that smsd reads."""
    if not is_userid(identity.userid):
        raise invalid("userid", "has 1 to 99 bytes, no control character, and no @ at its beginning")
    if name := stray(options):
        raise invalid(name, "has a value of a wrong type")
    for place, draft in enumerate(drafts):
        fields = {"to": draft.number, "text": draft.text, "reference": draft.reference}
        if draft.reference is None:
            del fields["reference"]
        if faults := draft_fault(fields):
            raise malformed({f"#/{place}{pointer}": why for pointer, why in faults.items()})


class _Kept:
    """Writes an outcome into the receipt, from which ``_read`` reads it again."""

    def accepted(self, outcome: Outcome) -> Reply:
        ids = [(place, message.id) for place, message in outcome.accepted.items()]
        return Reply(0, json.dumps({"ids": ids, "rejected": [astuple(why) for why in outcome.rejected]}))

    def refused(self, refusal: Refused) -> Reply:
        raise refusal


def _read(kept: Reply) -> Sent:
    content = json.loads(kept.body)
    return Sent(dict(content["ids"]), [Rejection(*why) for why in content["rejected"]])


def client_address(request: Request) -> str:
    """The client's IP address; behind proxies that ``smsgw.trusted_proxies`` names, the one that they tell."""
    return security.client_address(request, application(request).settings.trusted_proxies)


def service(name: str, path: str) -> Service:
    """A Cornice service under ``/api/v2/``, for every user that is known.

    Made once, beside the views; ``includeme`` adds it with ``config.add_cornice_service``.

    :param name: nobody else's.
    :param path: such as ``stamps/{id}``.
    """
    return Service(name, f"{ROOT}/{path}", permission=AUTHENTICATED)


def reply(content: dict[str, Any], status: int = 200, **headers: str) -> Response:
    """That object as JSON, and further headers by their names, with ``_`` for ``-``."""
    return response(Reply(status, json.dumps(content)), **headers)


def problem(status: int, detail: str, errors: Mapping[str, str] | None = None, **headers: str) -> Response:
    """Problem details (RFC 9457), as the core's own errors have them.

    :param detail: one sentence for the client.
    :param errors: a reason for each JSON pointer into the body, such as ``#/to/0``.
    """
    return problems.respond(problems.problem(status, detail, errors), **headers)
