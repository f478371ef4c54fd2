"""Requests that are refused, and why. Views and plugins raise these; each API words them in its own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

OF_TEXTS = ("text_refused", "too_many_parts")  # codes of faults of the text, and not of a recipient


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a draft is not sent: its place in the batch, a word for programs, and a reason that names no field.

    ``code`` is ``"invalid_number"``, ``"forbidden"``, ``"duplicate"``, ``"text_refused"``, ``"too_many_parts"`` or
    ``"unavailable"``. ``same_as`` is the place of the draft that a duplicate repeats.
    """

    place: int
    code: str
    detail: str
    same_as: int | None = None


class Refused(Exception):
    """A request that is not done: one sentence, and a reason for each field or recipient at fault."""

    status: ClassVar[int]

    def __init__(self, detail: str, errors: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = dict(errors or {})


class Invalid(Refused):
    """The request makes no sense."""

    status = 400


class Forbidden(Refused):
    """A policy says no."""

    status = 403


class NotFound(Refused):
    """There is no such message, or it is not this user's business whether there is."""

    status = 404

    def __init__(self) -> None:
        super().__init__("Not found")


class NoneAccepted(Refused):
    """Not one draft of a batch can be sent; ``rejected`` says why."""

    status = 422

    def __init__(self, rejected: Sequence[Rejection]) -> None:
        super().__init__("None of the messages can be sent")
        self.rejected = rejected


class NoneAllowed(NoneAccepted):
    """The same, where a policy refused some."""

    status = 403


class TooLate(Refused):
    """smsd has the message, or has dealt with it: it cannot be taken back."""

    status = 409


class KeyInUse(Refused):
    """The first request under this ``Idempotency-Key`` is still under way."""

    status = 409


class KeyReused(Refused):
    """Another request was sent under this ``Idempotency-Key``."""

    status = 422


def invalid(field: str, reason: str) -> Invalid:
    """What is wrong with one field, in words that go on after its name."""
    return Invalid(f"{field} {reason}", {field: reason})
