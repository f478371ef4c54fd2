"""``audit``: writes down who sent what to whom, and what users changed and administrators read."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import colander
from pyramid.config import Configurator
from pyramid.events import NewResponse
from pyramid.response import Response

from smsgw.api import ROOT, application, authenticated, origin
from smsgw.files import unreadable
from smsgw.hookspecs import hookimpl
from smsgw.model import Change, ConfigurationError, Identity, Message, Origin, Submission
from smsgw.numbers import e164
from smsgw.resources import moment

from .writers import File, Syslog

V1 = "/api/v1.0/sms/outgoing"
SENDS = {f"POST {V1}", f"GET {V1}", f"HEAD {V1}", f"POST {ROOT}/messages"}  # whose messages have records of their own
CHANGES_NOTHING = {f"POST {ROOT}/preview"}
ACTIONS = {"GET": "read", "HEAD": "read", "DELETE": "delete"}  # others change something
FULL, SHORTENED, HASHED, NONE = "full", "shortened", "hashed", "none"
SHORT = 20  # characters of a shortened text
HIDDEN = 3  # digits that a shortened number lacks

Delivered = Sequence[Message]

log = logging.getLogger(__name__)


class Audit:
    """Notes what was done, after it was done. Where a record cannot be written, that is an error in the log."""

    class Settings(colander.MappingSchema):
        path = colander.SchemaNode(
            colander.String(), missing=None, description="the file of the records; it may be rotated"
        )
        syslog = colander.SchemaNode(
            colander.String(), missing=None, description="or syslog: a socket such as /dev/log, or ADDRESS:PORT (UDP)"
        )
        numbers = colander.SchemaNode(
            colander.String(),
            missing=FULL,
            validator=colander.OneOf((FULL, SHORTENED, HASHED)),
            description="how recipients are written",
        )
        texts = colander.SchemaNode(
            colander.String(),
            missing=FULL,
            validator=colander.OneOf((FULL, SHORTENED, HASHED, NONE)),
            description="how texts are written",
        )
        key_file = colander.SchemaNode(
            colander.String(), missing=None, description="the file with the key of hashes, which keeps them secret"
        )

    def __init__(
        self, path: str | None, syslog: str | None, numbers: str, texts: str, key_file: str | None = None
    ) -> None:
        if (path is None) == (syslog is None):
            raise ConfigurationError("set either smsgw.audit.path, a file, or smsgw.audit.syslog")
        if path is not None and not Path(path).parent.is_dir():
            raise ConfigurationError(f"smsgw.audit.path: there is no folder {Path(path).parent}; make it")
        if HASHED in (numbers, texts) and key_file is None:
            raise ConfigurationError("smsgw.audit.key_file is missing; hashes need a key, or any number is soon found")
        self._key = _read_key(key_file) if key_file else b""
        self._write = File(Path(path)).write if path is not None else Syslog(syslog or "").write
        self._numbers, self._texts = numbers, texts

    def includeme(self, config: Configurator) -> None:
        config.add_subscriber(self._note_request, NewResponse)

    @hookimpl(wrapper=True)
    def deliver(self, submission: Submission) -> Generator[None, Delivered, Delivered]:
        delivered = yield
        who = _who("send", submission.identity, origin())
        self._record([who | self._shown(message) for message in delivered])
        return delivered

    @hookimpl
    def changed(self, change: Change) -> None:
        self._record([_who(change.action, None, change.origin) | {"owner": change.owner, "ids": change.ids}])

    def _note_request(self, event: NewResponse) -> None:
        """Note a request that was served and did something else than send."""
        request, response, found = event.request, event.response, origin()
        identity = authenticated(request)
        if identity is None or found is None or response.status_int >= 400 or found.via in SENDS | CHANGES_NOTHING:
            return
        action = ACTIONS.get(request.method, "change")
        if action == "read" and not application(request).permits(identity, "read-all"):
            return
        ids = _ids(response)
        if ids or action != "read":
            self._record([_who(action, identity, found) | {"ids": ids}])

    def _shown(self, message: Message) -> dict[str, Any]:
        content = message.content
        number, text = e164(message.to), content.text
        shown = {"id": message.id, "to": self._as_set(self._numbers, number, number[:-HIDDEN]), "parts": content.parts}
        return shown if self._texts == NONE else shown | {"text": self._as_set(self._texts, text, text[:SHORT])}

    def _as_set(self, how: str, whole: str, beginning: str) -> str:
        if how == HASHED:
            return "sha256:" + hmac.new(self._key, whole.encode(), hashlib.sha256).hexdigest()
        return whole if how == FULL or beginning == whole else f"{beginning}…"

    def _record(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            self._write([json.dumps(record, ensure_ascii=False) for record in records])
        except OSError as error:
            log.error("%d audit records could not be written: %s", len(records), error)


def _who(action: str, identity: Identity | None, found: Origin | None) -> dict[str, Any]:
    """:param identity: ``None``: whoever ran a command."""
    found = found or Origin("", "background")  # a plugin, of its own accord
    named = {"via": found.via, "address": found.address, "scheme": found.scheme, "account": found.account}
    who = {"user": identity.userid, "credential": identity.credential} if identity else {}
    known = {**who, **named, "request_id": found.request_id}
    at = moment(datetime.now(UTC))
    return {"at": at, "action": action} | {name: word for name, word in known.items() if word}


def _ids(response: Response) -> list[str]:
    """The ids of the messages, or the webhook, that a reply of ours shows, lists or says to be deleted."""
    try:
        content = json.loads(response.body) if response.content_type == "application/json" else None
    except ValueError:
        return []
    if not isinstance(content, dict):
        return []
    found = content.get("message_id") or content.get("messages") or content.get("id") or []
    if not found and "deleted" in content:
        found = str(content["deleted"]).partition("/")[2]  # of folder/id
    if isinstance(found, list):
        return [str(each.get("id", "") if isinstance(each, dict) else each) for each in found]
    return [str(found)]


def _read_key(path: str) -> bytes:
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(f"smsgw.audit.key_file: {unreadable(path, error)}") from error
    if len(key) < 16:
        raise ConfigurationError(f"smsgw.audit.key_file: {path} should have 16 bytes or more")
    return key
