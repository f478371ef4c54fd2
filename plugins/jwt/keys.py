"""The keys of an identity provider: public ones, from PEM or from a JSON Web Key Set (RFC 7517)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
EC = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}  # by curve (RFC 7518, 3.4)
ED25519 = "EdDSA"
ALGORITHMS = frozenset({*RSA, *EC.values(), ED25519})
RSA_BITS = 2048  # RFC 7518, 3.3: a key of this size or larger must be used

MAX_SIZE = 512 * 1024  # bytes of a file or of a reply

_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----(?:(?!-----).)++-----END \1-----", re.S)

Public = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms for which it may be used: those of its own kind."""

    kid: str | None
    algorithms: frozenset[str]
    public: Public


@dataclass(frozen=True, slots=True, eq=False)
class Keys:
    """All keys of a provider at one time."""

    keys: tuple[Key, ...]

    def fitting(self, kid: str | None, algorithm: str) -> list[Key]:
        """The keys that may have signed a token with that header."""
        return [
            key
            for key in self.keys
            if algorithm in key.algorithms and (kid is None or key.kid is None or kid == key.kid)
        ]


def read(content: bytes) -> Keys:
    """The keys that can be used, of a PEM file or a JSON Web Key Set.

    :raises ValueError: there is none. The message goes on after the name of what was read.
    """
    if len(content) > MAX_SIZE:
        raise ValueError(f"has over {MAX_SIZE} bytes")
    keys = _read_set(content) if content.lstrip()[:1] == b"{" else _read_pem(content)
    if not keys:
        raise ValueError("has no public key for signatures of a kind that is known")
    return Keys(tuple(keys))


def _read_pem(content: bytes) -> list[Key]:
    blocks = list(_PEM.finditer(content))
    if any(b"PRIVATE" in block[1] for block in blocks):
        raise ValueError("has a private key in it; only the provider should have that, and the public one is needed")
    try:
        found = [load_pem_public_key(block[0]) for block in blocks if block[1].endswith(b"PUBLIC KEY")]
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("has a public key that cannot be read") from error
    return [Key(None, algorithms, key) for key in map(_public, found) if key and (algorithms := _algorithms(key))]


def _read_set(content: bytes) -> list[Key]:
    try:
        entries = json.loads(content)["keys"]
    except (ValueError, KeyError, RecursionError) as error:
        raise ValueError("is no JSON with 'keys' in it") from error
    if not isinstance(entries, list):
        raise ValueError("is JSON whose 'keys' are no list")
    return [key for entry in entries if isinstance(entry, dict) and (key := _read_entry(entry)) is not None]


def _read_entry(entry: Mapping[str, Any]) -> Key | None:
    """A JSON Web Key; ``None``: it is not for signatures, or of an unknown kind."""
    if entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use") not in (None, "sig"):
        return None
    if not all(isinstance(entry.get(name, ""), str) for name in ("kid", "alg", "crv")):
        return None
    try:
        public = _public(jwt.PyJWK(dict(entry)).key)
    except jwt.PyJWTError:
        return None
    algorithms = _algorithms(public) if public else frozenset()
    if "alg" in entry:
        algorithms &= {entry["alg"]}
    return Key(entry.get("kid"), algorithms, public) if public and algorithms else None


def _public(key: object) -> Public | None:
    if isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        return key.public_key()
    return key if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) else None


def _algorithms(key: Public) -> frozenset[str]:
    if isinstance(key, RSAPublicKey):
        return RSA if key.key_size >= RSA_BITS else frozenset()
    if isinstance(key, EllipticCurvePublicKey):
        return frozenset({EC[key.curve.name]}) if key.curve.name in EC else frozenset()
    return frozenset({ED25519})
