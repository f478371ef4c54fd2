"""``jwt``: against tokens that PyJWT signs, and keys in files or from a real HTTP server."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from pyramid.security import Denied

from smsgw.model import Credentials, Identity
from smsgw.testing import DelayConformance, OutageConformance
from smsgw.verified import REMEMBERED
from smsgw_plugins.jwt import MAX_LENGTH
from smsgw_plugins.jwt.sources import PAUSE
from tests.conftest import OUTGOING, Gateway, eventually
from tests.provider import AUDIENCE, CURVES, ISSUER, Provider, claims, jwk, make_key, pem, reply, token
from tests.server import Server

LIST = "/api/v1.0/sms/sent/"
PROVIDER = {"smsgw.jwt.issuer": ISSUER, "smsgw.jwt.audience": AUDIENCE}
Make = Callable[..., Gateway]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "provider.pem"
    path.write_text(pem(make_key()))
    return path


@pytest.fixture
def make(make_gateway: Make, key_file: Path) -> Make:
    """Make a gateway that takes tokens by the file of keys, with further settings."""

    def make(**settings: str) -> Gateway:
        own = {f"smsgw.jwt.{name}": value for name, value in settings.items()}
        keys = {} if "jwks_url" in settings else {"smsgw.jwt.key_file": str(key_file)}
        return make_gateway({"smsgw.plugins": "jwt htpasswd allow"} | PROVIDER | keys | own)

    return make


@pytest.fixture
def gateway(make: Make) -> Gateway:
    return make()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


def ask(gateway: Gateway, token: str, status: int = 200, address: str = "10.0.0.1") -> str:
    gateway.app.authorization = None
    headers = {"Authorization": f"Bearer {token}"}
    return str(gateway.app.get(LIST, headers=headers, extra_environ={"REMOTE_ADDR": address}, status=status).text)


def status(gateway: Gateway, token: str) -> int:
    """From an address of its own, so that what is waited for is no guessing."""
    gateway.app.authorization = None
    environ = {"REMOTE_ADDR": os.urandom(8).hex()}
    headers = {"Authorization": f"Bearer {token}"}
    return int(gateway.app.get(LIST, headers=headers, extra_environ=environ, status="*").status_int)


def answer(gateway: Gateway, secret: str, scheme: str = "Bearer") -> Any:
    """What the plugin alone says."""
    plugin = gateway.application.plugins.get_plugin("jwt")
    return plugin.authenticate(Credentials(scheme, "", secret, "10.0.0.1"))


def is_fetching() -> bool:
    """Whether a provider has been asked, and its answer is not there yet."""
    return any("_try" in thread.name for thread in threading.enumerate())


def segment(content: object) -> str:
    """A part of a token."""
    written = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(written).rstrip(b"=").decode()


class TestTaken:
    def test_a_token(self, gateway: Gateway) -> None:
        gateway.app.authorization = None
        headers = {"Authorization": f"Bearer {token(make_key(), sub='ops')}"}
        gateway.app.post_json(OUTGOING, {"mobiles": ["112"], "text": "Hi"}, headers=headers, status=201)
        (content,) = gateway.files().values()
        assert b"From: ops\n" in content

    @pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS512", *CURVES, "EdDSA"])
    def test_every_algorithm(self, make: Make, key_file: Path, algorithm: str) -> None:
        key = make_key(algorithm if algorithm in (*CURVES, "EdDSA") else "RS256")
        for content in (pem(key), json.dumps({"keys": [jwk(key, algorithm)]})):
            key_file.write_text(content)
            gateway = make(algorithms=algorithm)
            ask(gateway, token(key, algorithm))
            other = "RS384" if algorithm != "RS384" else "RS256"
            ask(gateway, token(make_key(), other), 401)

    def test_issued_for_several(self, make: Make) -> None:
        gateway = make(audience="smsgw https://sms.example.com")
        for audience in ("smsgw", "https://sms.example.com", ["other", "smsgw"]):
            ask(gateway, token(make_key(), aud=audience))
        for audience in ("other", ["other"], [], ["smsgw", 1], {"smsgw": 1}, None, "smsg", "smsgwx"):
            ask(gateway, token(make_key(), aud=audience), 401)

    def test_clocks_may_differ(self, make: Make) -> None:
        gateway, now = make(leeway="60"), int(time.time())
        ask(gateway, token(make_key(), exp=now - 50))
        ask(gateway, token(make_key(), exp=now - 61), 401)
        ask(gateway, token(make_key(), nbf=now + 50))
        ask(gateway, token(make_key(), nbf=now + 90), 401)
        ask(gateway, token(make_key(), iat=now + 90), 401)

    def test_what_was_verified_expires(self, make: Make) -> None:
        gateway = make(leeway="0")
        for seconds in (2, 10, 60):  # a busy machine may need longer than the first to look at it at all
            short = token(make_key(), exp=int(time.time()) + seconds)
            if status(gateway, short) == 200:
                break
        else:
            pytest.fail("it was never taken")
        eventually(lambda: status(gateway, short) == 401)

    def test_more_than_are_remembered(self, make: Make, key_file: Path) -> None:
        key = make_key("ES256")
        key_file.write_text(pem(key))
        gateway = make()
        shown = [token(key, "ES256", jti=str(number)) for number in range(REMEMBERED + 10)]
        for one in (*shown, *shown[:10]):
            assert answer(gateway, one) == Identity("ops")


class TestIdentity:
    def test_the_claim_with_the_userid(self, make: Make) -> None:
        gateway = make(userid_claim="preferred_username")
        found = answer(gateway, token(make_key(), preferred_username="LVV"))
        assert found == Identity("LVV")
        assert isinstance(answer(gateway, token(make_key())), Denied)

    @pytest.mark.parametrize(
        ("claim", "written"),
        [
            ("groups", {"groups": ["alarms", "staff"]}),
            ("scope", {"scope": "alarms  staff"}),
            ("realm_access.roles", {"realm_access": {"roles": ["staff", "alarms", "alarms"]}}),
            ("https://acme.example/groups", {"https://acme.example/groups": ["alarms", "staff"]}),
            ("groups", {"groups": ["alarms", "@staff", "staff", "*", "", "a" * 100, "a\nb"]}),
        ],
    )
    def test_groups(self, make: Make, claim: str, written: Mapping[str, object]) -> None:
        gateway = make(groups_claim=claim)
        assert answer(gateway, token(make_key(), **written)) == Identity("ops", frozenset({"alarms", "staff"}))
        assert answer(gateway, token(make_key())) == Identity("ops")

    def test_groups_by_other_names(self, make: Make) -> None:
        gateway = make(
            groups_claim="groups", groups="SMS Alarms: alarms, staff\n  /night shift: night\n  admins: staff"
        )
        found = answer(gateway, token(make_key(), groups=["SMS Alarms", "admins", "alarms", "other"]))
        assert found == Identity("ops", frozenset({"alarms", "staff"}))
        assert answer(gateway, token(make_key(), groups=["alarms"])) == Identity("ops")

    def test_no_groups_unless_asked_for(self, gateway: Gateway) -> None:
        assert answer(gateway, token(make_key(), groups=["alarms"])) == Identity("ops")

    @pytest.mark.parametrize(
        "sub", [1, None, True, [], {}, "", "@alarms", "*", " ops", "a" * 100, "a\nb", "\0", "\ud800"]
    )
    def test_what_is_no_userid(self, gateway: Gateway, sub: object) -> None:
        ask(gateway, forged({"alg": "RS256"}, claims() | {"sub": sub}), 401)

    @pytest.mark.parametrize("groups", [1, True, {}, {"alarms": 1}, [1], ["alarms", None], [["alarms"]]])
    def test_what_are_no_groups(self, make: Make, groups: object) -> None:
        ask(make(groups_claim="groups"), token(make_key(), groups=groups), 401)
        ask(make(groups_claim="a.groups"), token(make_key(), a={"groups": groups}), 401)


def forged(header: object, payload: object, key: Any = None) -> str:
    """A token with any header and payload, signed by RS256 all the same."""
    signed = f"{segment(header)}.{segment(payload)}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signed.encode(), key or make_key())
    return f"{signed}.{segment(signature)}"


class TestRefused:
    def test_unsigned(self, gateway: Gateway) -> None:
        for algorithm in ("none", "None", "NONE", ""):
            for signature in ("", "AAAA", segment(b"x" * 256)):
                unsigned = f"{segment({'alg': algorithm})}.{segment(claims())}.{signature}"
                assert isinstance(answer(gateway, unsigned), Denied)

    def test_signed_with_the_public_key(self, make: Make) -> None:
        """As a secret of HMAC, as PEM writes it or as JSON."""
        import hashlib
        import hmac

        gateway = make(algorithms="RS256 PS256")
        for secret in (pem(make_key()), pem(make_key()).strip(), json.dumps(jwk(make_key()))):
            for algorithm, digest in (("HS256", hashlib.sha256), ("RS256", hashlib.sha256), ("HS512", hashlib.sha512)):
                signed = f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{segment(claims())}"
                code = hmac.new(secret.encode(), signed.encode(), digest).digest()
                assert isinstance(answer(gateway, f"{signed}.{segment(code)}"), Denied)

    def test_signed_with_another_key(self, gateway: Gateway) -> None:
        ask(gateway, token(make_key(number=1)), 401)
        other = make_key(number=1)
        own = jwk(other, kid="mine")
        for headers in (
            {"jwk": own},
            {"jku": "http://127.0.0.1:1/jwks"},
            {"x5u": "http://127.0.0.1:1/cert", "x5c": ["AAAA"]},
            {"kid": "../../../../dev/null"},
            {"kid": "' OR 1=1 --"},
            {"kid": "provider.pem"},
        ):
            ask(gateway, token(other, headers=headers), 401)

    def test_its_own_key_is_ignored_where_the_signature_is_right(self, gateway: Gateway) -> None:
        ask(gateway, token(make_key(), headers={"jwk": jwk(make_key(number=1)), "jku": "http://127.0.0.1:1/"}))

    def test_an_algorithm_that_is_not_allowed(self, make: Make) -> None:
        ask(make(algorithms="RS256"), token(make_key(), "RS512"), 401)
        ask(make(algorithms="ES256"), token(make_key(), "RS256"), 401)

    def test_an_algorithm_that_the_key_is_not_for(self, make: Make, key_file: Path) -> None:
        key_file.write_text(json.dumps({"keys": [jwk(make_key(), alg="RS256")]}))
        gateway = make(algorithms="RS256 PS256 ES256 EdDSA")
        ask(gateway, token(make_key(), "RS256"))
        ask(gateway, token(make_key(), "PS256"), 401)

    @pytest.mark.parametrize(
        "header",
        [
            {},
            [],
            None,
            "RS256",
            {"alg": None},
            {"alg": ["RS256"]},
            {"alg": {"RS256": 1}},
            {"alg": 1},
            {"alg": "RS256", "kid": 1},
            {"alg": "RS256", "kid": ["a"]},
            {"alg": "RS256", "crit": ["exp"], "exp": 1},
            {"alg": "RS256", "crit": []},
            {"alg": "RS256", "b64": False, "crit": ["b64"]},
            {"alg": "RS256", "b64": False},
            b"",
            b"\xff",
            b"[" * 10000,
            b'{"alg":' * 2000,
            b'{"alg":"RS256","x":NaN}',
            b'{"alg":"RS256","x":' + b"9" * 5000 + b"}",
            b'{"alg":"RS256"',
        ],
    )
    def test_headers(self, gateway: Gateway, header: object) -> None:
        assert isinstance(answer(gateway, forged(header, claims())), Denied | None)
        ask(gateway, forged(header, claims()), 401)

    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": None},
            *({"exp": value} for value in (0, -1, "9999999999", True, [], {}, 1e300, 10**400, 253402300800)),
            *({"nbf": value} for value in ("0", True, [], 10**400, -1)),
            *({"iat": value} for value in ("0", [], 1e300)),
            {"jti": 1},
            {"sub": 1},
        ],
    )
    def test_claims(self, gateway: Gateway, changes: dict[str, object]) -> None:
        found = {name: value for name, value in (claims() | changes).items() if value is not None}
        assert isinstance(answer(gateway, forged({"alg": "RS256"}, found)), Denied)

    @pytest.mark.parametrize("exp", ["NaN", "Infinity", "1e999", "-Infinity", "9" * 5000])
    def test_numbers_that_are_none(self, gateway: Gateway, exp: str) -> None:
        payload = json.dumps(claims(exp=None))[:-1] + f', "exp": {exp}}}'
        ask(gateway, forged({"alg": "RS256"}, payload.encode()), 401)

    def test_truncated(self, gateway: Gateway) -> None:
        whole = token(make_key())
        for length in range(0, len(whole), 7):
            assert not isinstance(answer(gateway, whole[:length]), Identity)
        ask(gateway, whole)

    def test_long_ones(self, gateway: Gateway) -> None:
        assert answer(gateway, token(make_key(), padding="x" * MAX_LENGTH)) is None
        assert answer(gateway, "A" * 2**20 + "." + "A" * 2**20 + ".A") is None
        ask(gateway, token(make_key(), padding="x" * 8000))
        ask(gateway, token(make_key(), padding="x" * 2**20), 401)

    @given(data=st.data())
    def test_any_change(self, mangled: tuple[Gateway, str], data: st.DataObject) -> None:
        gateway, whole = mangled
        place = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, 3))
        put = data.draw(st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=3))
        other = whole[:place] + put + whole[place + length :]
        assert status(gateway, other) == (200 if other == whole else 401)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        ),
        st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "groups"]),
    )
    def test_any_claim(self, mangled: tuple[Gateway, str], value: object, name: str) -> None:
        """Signed by the provider itself: no 5xx, whatever it says."""
        assert status(mangled[0], forged({"alg": "RS256"}, claims() | {name: value})) in (200, 401)

    @given(st.binary(), st.binary(), st.binary())
    def test_any_parts(self, mangled: tuple[Gateway, str], header: bytes, payload: bytes, signature: bytes) -> None:
        parts = ".".join(map(segment, (header, payload, signature)))
        assert not isinstance(answer(mangled[0], parts), Identity)
        assert not isinstance(
            answer(mangled[0], f"{segment(header)}.{segment(claims())}.{segment(signature)}"), Identity
        )

    @pytest.fixture
    def mangled(self, gateway: Gateway) -> tuple[Gateway, str]:
        return gateway, token(make_key())

    def test_a_token_is_in_no_log_and_no_reply(self, make: Make, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        gateway = make(groups_claim="groups")
        shown = [
            token(make_key(), sub="Geheim"),
            token(make_key(), sub=" Geheim"),
            token(make_key(), sub="Geheim", groups=["Geheim", 1]),
            token(make_key(), sub="Geheim", aud="Geheim", iat=1),
            token(make_key(number=1), sub="Geheim", headers={"kid": "Geheim"}),
            forged({"alg": "Geheim"}, claims(sub="Geheim")),
            token(make_key(), sub="Geheim", exp=1),
        ]
        replies = [ask(gateway, one, 200 if one == shown[0] else 401) for one in shown]
        said = "".join(replies) + caplog.text
        assert "Geheim" not in said
        assert not any(part in said for one in shown for part in one.split("."))
        assert "it has expired" in said


class TestChain:
    """What is not of this issuer is for others."""

    def test_what_is_left_to_others(self, gateway: Gateway) -> None:
        for other in ("", "token", "a.b", "a.b.c", "a.b.c.d.e", "smsgw_" + "0" * 42, "ä.ö.ü", "\0.\0.\0", "..", "a..b"):
            assert answer(gateway, other) is None
        for issuer in ("https://other.example.com", None, 1, ISSUER + "/", [ISSUER], {"iss": ISSUER}):
            assert (
                answer(
                    gateway,
                    token(make_key(), iss=issuer)
                    if issuer is None or isinstance(issuer, str)
                    else forged({"alg": "RS256"}, claims() | {"iss": issuer}),
                )
                is None
            )
        assert answer(gateway, token(make_key()), "Basic") is None

    def test_tokens_then_an_emergency_account_then_a_provider_that_is_down(
        self, make_gateway: Make, tmp_path: Path
    ) -> None:
        with Provider() as provider:
            gateway = make_gateway(
                {"smsgw.plugins": "token htpasswd jwt allow", "smsgw.jwt.jwks_url": provider.url} | PROVIDER
            )
            shown = provider.token()
            with provider.stopped():
                ask(gateway, shown, 503)
                ask(gateway, shown, 503)
                gateway.send(user="lvv")
                ask(gateway, "smsgw_" + "0" * 42, 401)
                ask(gateway, token(make_key(), iss="https://other.example.com"), 401)
            eventually(lambda: status(gateway, shown) == 200)

    def test_guesses_are_counted_by_address(self, make_gateway: Make, key_file: Path) -> None:
        gateway = make_gateway(
            {"smsgw.plugins": "jwt allow", "smsgw.htpasswd.path": None, "smsgw.guesses_per_address": "5"}
            | PROVIDER
            | {"smsgw.jwt.key_file": str(key_file)}
        )
        for number in range(5):
            ask(gateway, token(make_key(number=1), jti=str(number)), 401)
        ask(gateway, token(make_key()), 429)
        ask(gateway, token(make_key()), address="10.0.0.2")

    def test_a_401_asks_for_bearer(self, gateway: Gateway) -> None:
        asked = gateway.app.get(LIST, status=401).headers["WWW-Authenticate"]
        assert asked == 'Bearer realm="smsgw", Basic realm="smsgw"'


class TestFile:
    def test_a_change_takes_effect_at_once(self, gateway: Gateway, key_file: Path) -> None:
        first, second = token(make_key()), token(make_key(number=1))
        ask(gateway, first)
        ask(gateway, second, 401)
        key_file.write_text(pem(make_key(number=1)))
        ask(gateway, first, 401)
        ask(gateway, second)
        key_file.write_text(pem(make_key(number=1)) + pem(make_key()))
        ask(gateway, first)
        ask(gateway, second)

    def test_one_that_cannot_be_read_any_more(self, gateway: Gateway, key_file: Path) -> None:
        known, new = token(make_key()), token(make_key(), jti="new")
        ask(gateway, known)
        content = key_file.read_text()
        for spoil in (key_file.unlink, lambda: key_file.write_text(""), lambda: key_file.write_text("{}")):
            spoil()
            ask(gateway, known, 503)
            ask(gateway, new, 503)
            ask(gateway, "other", 401)
            gateway.send()
            (problem,) = gateway.get("/health", user="root").json["problems"]
            assert (problem["part"], problem["what"].startswith(f"{key_file} ")) == ("plugin jwt", True)
            key_file.write_text(content)
            ask(gateway, known)

    def test_kids(self, make: Make, key_file: Path) -> None:
        keys = {"one": make_key(), "two": make_key(number=1)}
        key_file.write_text(json.dumps({"keys": [jwk(key, kid=kid) for kid, key in keys.items()]}))
        gateway = make()
        for kid, key in keys.items():
            ask(gateway, token(key, headers={"kid": kid}))
            ask(gateway, token(key))
        ask(gateway, token(keys["one"], headers={"kid": "two"}), 401)
        ask(gateway, token(keys["one"], headers={"kid": "three"}), 401)

    def test_keys_that_are_not_for_signatures(self, make: Make, key_file: Path) -> None:
        good = jwk(make_key(number=2), kid="good")
        strange = [
            jwk(make_key(), kid="enc", use="enc"),
            jwk(make_key(), kid="oaep", alg="RSA-OAEP"),
            {"kty": "oct", "k": segment(b"x" * 64), "kid": "oct"},
            jwk(make_key("weak"), kid="weak"),
            *({"kty": kty, "kid": "odd"} for kty in ("RSA", "EC", "OKP", "XX", 1, None, [], {})),
            {"kty": "RSA", "n": 1, "e": {}, "kid": "odd"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": []},
            jwk(make_key(), alg=["RS256"]),
            "odd",
            None,
        ]
        key_file.write_text(json.dumps({"keys": [*strange, good]}))
        gateway = make(algorithms="RS256")
        ask(gateway, token(make_key(number=2), headers={"kid": "good"}))
        for key in (make_key(), make_key("weak")):
            for kid in ("enc", "oaep", "weak", "odd", "oct"):
                assert status(gateway, forged({"alg": "RS256", "kid": kid}, claims(), key)) == 401
            assert status(gateway, forged({"alg": "RS256"}, claims(), key)) == 401


class TestUrl:
    @pytest.fixture
    def gateway(self, make: Make, provider: Provider) -> Gateway:
        return make(jwks_url=provider.url, timeout="1")

    def test_keys_are_fetched_once(self, gateway: Gateway, provider: Provider) -> None:
        for number in range(5):
            ask(gateway, provider.token(jti=str(number)))
        assert provider.requests == 1

    def test_rotation(self, gateway: Gateway, provider: Provider) -> None:
        ask(gateway, provider.token())
        old = provider.token()
        time.sleep(PAUSE)
        provider.rotate()
        ask(gateway, provider.token())
        ask(gateway, old, 401)
        assert provider.requests == 2

    def test_kids_that_there_are_not_make_no_hammer_of_us(self, gateway: Gateway, provider: Provider) -> None:
        ask(gateway, provider.token())
        begun = time.monotonic()
        for number in range(300):
            assert status(gateway, token(make_key(number=1), headers={"kid": f"hostile-{number}"})) == 401
        ask(gateway, provider.token(jti="new"))
        assert provider.requests <= 1 + (time.monotonic() - begun) / PAUSE + 1

    def test_what_is_withdrawn_counts_no_longer(self, make: Make, provider: Provider) -> None:
        gateway = make(jwks_url=provider.url, refresh_seconds="5")
        old = provider.token()
        ask(gateway, old)
        provider.rotate()
        eventually(lambda: status(gateway, old) == 401, 20)
        ask(gateway, provider.token())

    def test_keys_are_kept_while_it_is_down_for_a_time(self, make: Make, provider: Provider) -> None:
        gateway = make(jwks_url=provider.url, refresh_seconds="5", keep_seconds="7")
        known, new = provider.token(), provider.token(jti="new")
        begun = time.monotonic()
        ask(gateway, known)
        with provider.stopped():
            while time.monotonic() < begun + 6:
                ask(gateway, known)
                time.sleep(0.2)
            ask(gateway, new)
            eventually(lambda: status(gateway, known) == 503)
            ask(gateway, new, 503)
        eventually(lambda: status(gateway, known) == 200)

    def test_a_provider_that_was_never_reached(
        self, gateway: Gateway, provider: Provider, caplog: pytest.LogCaptureFixture
    ) -> None:
        with provider.stopped():
            for _ in range(20):
                ask(gateway, provider.token(), 503)
            gateway.send()
        assert caplog.text.count(provider.url) == 1
        eventually(lambda: status(gateway, provider.token()) == 200)

    def test_health_tells_that_it_cannot_be_reached(self, gateway: Gateway, provider: Provider) -> None:
        """And finds out by itself when it is there again: where health says 503, nobody is sent to the gateway."""

        def wrong() -> list[str]:
            found: list[str] = gateway.get("/health/ready", user=None, status="*").json["wrong"]
            return found

        with provider.stopped():
            eventually(lambda: wrong() == ["plugin"])
            (problem,) = gateway.get("/health", user="root").json["problems"]
            assert problem["part"] == "plugin jwt"
            assert problem["what"].startswith(f"{provider.url} cannot be reached: ")
        eventually(lambda: wrong() == [])
        ask(gateway, provider.token())

    @pytest.mark.parametrize(
        ("content", "code", "headers"),
        [
            (b"", 200, {}),
            (b"<html>", 200, {}),
            (b"[]", 200, {}),
            (b"{}", 200, {}),
            (b'{"keys": []}', 200, {}),
            (b'{"keys": {"a": 1}}', 200, {}),
            (b'{"keys": [1]}', 200, {}),
            (b'{"keys": ' + b"[" * 100000, 200, {}),
            (b"\xff\xfe", 200, {}),
            (b" " * 10**6 + b"{}", 200, {}),
            (b"no", 500, {}),
            (b"no", 404, {}),
            (b"", 204, {}),
            (b"short", 200, {"Content-Length": "1000"}),
            (b"x", 200, {"Content-Length": "-1"}),
            (b"x", 200, {"Transfer-Encoding": "chunked"}),
        ],
    )
    def test_garbage(self, make: Make, provider: Provider, content: bytes, code: int, headers: dict[str, str]) -> None:
        gateway = make(jwks_url=provider.url, timeout="0.5")
        with provider.answering(lambda request: reply(request, content, code, **headers)):
            ask(gateway, provider.token(), 503)
            gateway.send()

    def test_an_empty_reply_is_no_key_set(self, gateway: Gateway, provider: Provider) -> None:
        with provider.answering(lambda request: reply(request, b"")):
            ask(gateway, provider.token(), 503)
        eventually(lambda: status(gateway, provider.token()) == 200)

    def test_garbage_takes_no_keys_away(self, make: Make, provider: Provider) -> None:
        gateway = make(jwks_url=provider.url, refresh_seconds="5")
        ask(gateway, provider.token())
        with provider.answering(lambda request: reply(request, b"{}")):
            eventually(lambda: status(gateway, provider.token()) == 200 and provider.requests > 1, 20)
            ask(gateway, provider.token(jti="new"))

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    def test_redirects_are_not_followed(self, make: Make, provider: Provider, code: int) -> None:
        with Provider() as elsewhere:
            gateway = make(jwks_url=provider.url)
            with provider.answering(lambda request: reply(request, b"", code, Location=elsewhere.url)):
                ask(gateway, provider.token(), 503)
            assert elsewhere.requests == 0

    def test_a_huge_reply(self, gateway: Gateway, provider: Provider) -> None:
        """It is not read to its end, which there is not."""

        def pour(request: BaseHTTPRequestHandler) -> None:
            request.send_response(200)
            request.end_headers()
            while True:
                request.wfile.write(b" " * 65536)

        with provider.answering(pour):
            ask(gateway, provider.token(), 503)
        eventually(lambda: status(gateway, provider.token()) == 200)

    @pytest.mark.parametrize("part", ["head", "body"])
    def test_one_that_sends_a_byte_at_a_time(self, gateway: Gateway, provider: Provider, part: str) -> None:
        """The timeout is for all of it; who comes while it is known to be slow waits for nothing."""
        end = threading.Event()

        def trickle(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(
                b"HTTP/1.1 200 OK\r\n" + (b"X: " if part == "head" else b"Content-Length: 9999\r\n\r\n")
            )
            with contextlib.suppress(OSError):
                while not end.wait(0.1):
                    request.wfile.write(b" ")

        with provider.answering(trickle):
            ask(gateway, provider.token(), 503)
            eventually(lambda: not is_fetching())
            eventually(lambda: status(gateway, provider.token()) == 503 and provider.requests > 1)
            assert is_fetching()
        end.set()
        eventually(lambda: status(gateway, provider.token()) == 200)

    def test_one_that_is_slow_holds_up_nobody_who_is_known(self, make: Make, provider: Provider) -> None:
        """Who is known is answered while the fetch waits, which ends only with the block."""
        gateway = make(jwks_url=provider.url, timeout="60", refresh_seconds="5")
        known = provider.token()
        ask(gateway, known)
        with provider.hanging():
            eventually(lambda: status(gateway, known) == 200 and provider.requests > 1, 50)
            for _ in range(20):
                ask(gateway, known)
            assert is_fetching()

    def test_several_that_come_at_once_fetch_once(self, gateway: Gateway, provider: Provider) -> None:
        shown = [provider.token(jti=str(number)) for number in range(8)]
        found: list[Any] = []
        threads = [threading.Thread(target=lambda one=one: found.append(answer(gateway, one))) for one in shown]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [Identity("ops")] * 8
        assert provider.requests == 1

    def test_https(self, make: Make, tmp_path: Path) -> None:
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(context)
        ca_file = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        with Provider(context) as provider:
            ask(make(jwks_url=provider.url, ca_file=str(ca_file)), provider.token())
            ask(make(jwks_url=provider.url), provider.token(), 503)
            other = provider.url.replace("localhost", "127.0.0.1")
            ask(make(jwks_url=other, ca_file=str(ca_file)), provider.token(), 503)

    def test_in_several_processes(self, base_settings: dict[str, str], provider: Provider, tmp_path: Path) -> None:
        settings = base_settings | PROVIDER | {"smsgw.plugins": "jwt htpasswd allow"}
        settings["smsgw.jwt.jwks_url"] = provider.url
        with Server(tmp_path, settings, workers=2) as server:
            headers = {"Authorization": f"Bearer {provider.token()}"}
            assert {server.request("GET", LIST, user=None, headers=headers).status for _ in range(20)} == {200}
            huge = {"Authorization": f"Bearer {token(make_key(), padding='x' * 2**20)}"}
            with contextlib.suppress(OSError):  # a server may hang up on it
                assert server.request("GET", LIST, user=None, headers=huge).status in (400, 401, 431)
        assert 1 <= provider.requests <= 2
        assert "Traceback" not in server.stderr


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "sentence"),
        [
            ({"algorithms": "none"}, "'none', with which"),
            ({"algorithms": "RS256 HS256"}, "'HS256', with which"),
            ({"algorithms": "HS512"}, "'HS512', with which"),
            ({"algorithms": "RS257"}, "'RS257', and should have some of"),
            ({"algorithms": ""}, "algorithms is empty"),
            ({"audience": ""}, "audience is empty"),
            ({"audience": None}, "audience is missing"),
            ({"issuer": None}, "issuer is missing"),
            ({"key_file": None}, "set either smsgw.jwt.key_file or smsgw.jwt.jwks_url"),
            ({"jwks_url": "https://login.example.com/"}, "set either smsgw.jwt.key_file or smsgw.jwt.jwks_url"),
            ({"key_file": "/no/such"}, "cannot be read: No such file"),
            ({"key_file": "/"}, "cannot be read: Is a directory"),
            ({"ca_file": "/no/such"}, "leave it out"),
            ({"groups": "a: b"}, "groups_claim"),
            ({"groups_claim": "groups", "groups": "a: @b"}, "'@b', which cannot be a group"),
            ({"groups_claim": "groups", "groups": "urn:acme: b"}, "'acme:', which cannot be a group"),
            ({"leeway": "601"}, "leeway"),
            ({"timeout": "0"}, "timeout"),
            ({"keep_seconds": "100"}, "keep_seconds should not be less"),
        ],
    )
    def test_what_stops_the_start(
        self,
        make_gateway: Make,
        key_file: Path,
        capfd: pytest.CaptureFixture[str],
        settings: dict[str, str | None],
        sentence: str,
    ) -> None:
        own = {f"smsgw.jwt.{name}": value for name, value in settings.items()}
        with pytest.raises(SystemExit) as ended:
            make_gateway(
                {"smsgw.plugins": "jwt htpasswd", "smsgw.allow.admins": None, "smsgw.jwt.key_file": str(key_file)}
                | PROVIDER
                | own
            )
        assert ended.value.code == 3
        assert sentence in capfd.readouterr().err

    @pytest.mark.parametrize(
        "url",
        [
            "http://login.example.com/jwks",
            "http://192.0.2.1/jwks",
            "http://localhost.example.com/",
            "http://127.0.0.1.example.com/",
            "http://user:secret@127.0.0.1/",
            "https://",
            "https:///jwks",
            "https://login.example.com:port/",
            "https://[::1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "/etc/passwd",
            "https://login.example.com/a b",
            "https://login.example.com/é",
        ],
    )
    def test_urls(self, make: Make, capfd: pytest.CaptureFixture[str], url: str) -> None:
        with pytest.raises(SystemExit):
            make(jwks_url=url)
        assert "smsgw.jwt.jwks_url" in capfd.readouterr().err

    @pytest.mark.parametrize(
        "url", ["http://[::1]:1/", "http://127.0.0.9/", "http://localhost:1/", "https://a.example/"]
    )
    def test_urls_that_are_safe(self, make: Make, url: str) -> None:
        make(jwks_url=url)

    def test_files_that_have_no_keys(self, make: Make, key_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
        private = make_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        secret = {"kty": "oct", "k": segment(b"x" * 64)}
        for content, sentence in (
            ("", "has no public key"),
            ("nonsense", "has no public key"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
            (private, "has a private key in it"),
            (pem(make_key("weak")), "has no public key"),
            (json.dumps({"keys": [secret]}), "has no public key"),
            ("{", "is no JSON"),
            ('{"keys": 1}', "are no list"),
            ("x" * 10**6, "has over"),
        ):
            key_file.write_text(content)
            with pytest.raises(SystemExit):
                make()
            assert sentence in capfd.readouterr().err


class TestConformance(OutageConformance, DelayConformance):
    """What every authentication plugin must stand."""

    plugin = "jwt"
    schemes = ("Bearer",)

    @pytest.fixture
    def settings(self, provider: Provider) -> dict[str, str]:
        return PROVIDER | {"smsgw.jwt.jwks_url": provider.url, "smsgw.jwt.timeout": "1"}

    @pytest.fixture
    def users(self, provider: Provider) -> dict[str, str]:
        return {"ops": provider.token(), "lvv": provider.token(sub="lvv")}

    @pytest.fixture
    def broken(self, provider: Provider) -> Any:
        return provider.stopped

    @pytest.fixture
    def slow(self, provider: Provider) -> Any:
        return provider.hanging
