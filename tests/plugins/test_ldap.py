"""``ldap``: against a real OpenLDAP server: whom it lets in, and as whom. The rest is in ``test_ldap_faults.py``."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pyramid.security import Denied

from smsgw.model import Identity, Unavailable
from smsgw_plugins.ldap import Ldap
from smsgw_plugins.ldap.names import fill_name, parse
from tests import slapd
from tests.conftest import Gateway, eventually
from tests.directory import SECRET, Recorder, ask, gateway_settings, make, send
from tests.slapd import GROUPS, PEOPLE, SUFFIX, Certificate, Slapd, certify, group, person

pytestmark = pytest.mark.skipif(slapd.missing() is not None, reason=f"{slapd.missing()} is not installed")

PEOPLE_LDIF = (person("lvv", SECRET), person("ops", "Alarm!ng"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certify(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, authority: Certificate) -> Iterator[Slapd]:
    """One server for all tests that leave it as it is."""
    odd = base64.b64encode(b" odd ").decode()
    with Slapd(tmp_path_factory.mktemp("slapd"), *PEOPLE_LDIF, certificate=authority) as server:
        server.add(
            person("twin", "x", "mail: twin@example.com"),
            person("twin2", "x", "mail: twin@example.com"),
            person("Doe, J\\+(*)", SECRET, dn=f"uid=Doe\\, J\\\\\\+(*),{PEOPLE}"),
            person("alias", SECRET, "uid: second"),
            person("müller", SECRET),
            person("x" * 100, SECRET),
            person("@alarms", SECRET),
            person("hidden", SECRET, dn=f"cn=hidden,{PEOPLE}"),
            f"dn: uid=none,{PEOPLE}\nobjectClass: inetOrgPerson\nuid: none\ncn: none\nsn: none\n",
            person("sam", SECRET, "sAMAccountName: Sam", "userPrincipalName: s.smith@corp.example", of="user"),
            group("alarms", "lvv", "ops"),
            group("Night Shift", "lvv"),
            group("admins", "ops"),
            f"dn: cn=posix,{GROUPS}\nobjectClass: posixGroup\ncn: posix\ngidNumber: 1\nmemberUid: lvv\n",
            f"dn: ou=lists,{SUFFIX}\nobjectClass: organizationalUnit\nou: lists\n",
            group("admins", "lvv", dn=f"cn=admins,ou=lists,{SUFFIX}"),
            group("a, b", "alias", dn=f"cn=a\\2C b,{GROUPS}"),
            group("tab", "alias", dn=f"cn=t\\09ab,{GROUPS}").replace(
                "cn: tab", "cn:: " + base64.b64encode(b"t\tab").decode()
            ),
            group("odd", "alias", dn=f"cn=\\20odd\\20,{GROUPS}").replace("cn: odd", "cn:: " + odd),
        )
        yield server


def settings_of(server: Slapd, way: str) -> dict[str, str]:
    return server.by_search if way == "search" else server.by_template


WAYS = pytest.mark.parametrize("way", ["search", "template"])


# Who is let in


@WAYS
def test_the_right_password(directory: Slapd, way: str) -> None:
    plugin = make(settings_of(directory, way))
    for _ in range(2):
        assert ask(plugin, "lvv") == Identity("lvv")
        assert ask(plugin, "ops", "Alarm!ng") == Identity("ops")
        assert ask(plugin, "müller") == Identity("müller")
        assert ask(plugin, "Doe, J\\+(*)") == Identity("Doe, J\\+(*)")
        assert ask(plugin, "lvv", scheme="Bearer") is None


@WAYS
@pytest.mark.parametrize("shown", ["LVV", "Lvv"])
def test_the_userid_is_spelt_as_in_the_directory(directory: Slapd, way: str, shown: str) -> None:
    assert ask(make(settings_of(directory, way)), shown) == Identity("lvv")


def test_what_a_search_tells_of_a_wrong_password(directory: Slapd) -> None:
    plugin = make(directory.by_search)
    assert isinstance(ask(plugin, "lvv", "wrong"), Denied)
    assert isinstance(ask(plugin, "none", "wrong"), Denied)
    assert ask(plugin, "nobody") is None


def test_a_template_tells_nothing_of_a_wrong_password(directory: Slapd) -> None:
    plugin = make(directory.by_template)
    for userid in ("lvv", "none", "nobody"):
        assert ask(plugin, userid, "wrong") is None


HOSTILE_USERIDS = [
    *("", " ", "*", "l*", "lvv*", " lvv", "lvv ", "l  vv", "\u00a0lvv", "lvv\0", "\0", "lvv\n", "\ud800", "l\ud800"),
    *("lvv)(uid=*", "*)(uid=*))(|(uid=*", "lvv)(|(password=*", "(lvv)", "\\6cvv", "lvv\\", "\\", "\\2a"),
    *(f"lvv,{PEOPLE}", f"lvv,{PEOPLE},", "lvv+cn=lvv", "ops,uid=lvv", '"lvv"', "#6c7676", "#", "lvv;", "<lvv>", "="),
    *("ｌｖｖ", "lvv\u00ad", "l\u200bvv", "x" * (1 << 20), "ü" * 1000, "{userid}", "{dn}", "%s", "<GUID=1>"),
]


@WAYS
@pytest.mark.parametrize("userid", HOSTILE_USERIDS, ids=lambda value: ascii(value)[:20])
def test_hostile_userids(directory: Slapd, way: str, userid: str) -> None:
    assert ask(make(settings_of(directory, way)), userid) is None


@WAYS
@pytest.mark.parametrize(
    "secret", ["", "\0", SECRET + "\0", "\ud800", "x" * (1 << 20), SECRET + " ", SECRET.lower(), "*"]
)
def test_hostile_passwords(directory: Slapd, way: str, secret: str) -> None:
    plugin = make(settings_of(directory, way))
    for userid in ("lvv", "nobody", "none"):
        assert not isinstance(ask(plugin, userid, secret), Identity)


@pytest.mark.parametrize("userid", ["", " lvv", "lvv\0", "\ud800", "x" * (1 << 20)])
def test_the_directory_is_not_bothered_with_what_is_no_userid(directory: Slapd, userid: str) -> None:
    plugin = make(directory.by_search)
    ask(plugin, "lvv")
    before = directory.count("SRCH base"), directory.count("BIND dn")
    assert ask(plugin, userid) is None
    for secret in ("", "lvv\0", "\ud800", "x" * (1 << 20)):
        assert ask(plugin, "lvv", secret) is None
    ask(plugin, "lvv")
    eventually(lambda: directory.count("SRCH base") > before[0])
    assert directory.count("SRCH base") == before[0] + 1


@given(st.text(), st.text())
@example("lvv", SECRET)
@example("LVV", SECRET)
def test_any_credentials(any_way: list[Ldap], userid: str, secret: str) -> None:
    for plugin in any_way:
        answer = ask(plugin, userid, secret)
        assert isinstance(answer, Identity) == (userid.lower() == "lvv" and secret == SECRET)


@pytest.fixture(scope="module")
def any_way(directory: Slapd) -> list[Ldap]:
    return [make(directory.by_search), make(directory.by_template)]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30))
def test_any_name_is_one_value(any_way: list[Ldap], userid: str) -> None:
    """Whatever is in it, it is neither more of a name nor more of a filter."""
    if userid.strip():
        assert parse(fill_name(f"uid={{userid}},{PEOPLE}", userid))[0] == (("uid", userid),)


# Entries that are odd


def test_several_entries(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    plugin = make(directory.by_search, search_filter="(mail={userid})", userid_attribute="uid")
    assert isinstance(ask(plugin, "twin@example.com", "x"), Denied)
    assert "more than one entry" in caplog.text


def test_several_entries_of_which_a_server_tells_one(tmp_path: Path) -> None:
    twins = (person(name, SECRET, "mail: twin@example.com") for name in ("twin", "twin2"))
    with Slapd(tmp_path, *twins) as server:
        server.limit(1)
        plugin = make(server.by_search, search_filter="(mail={userid})", userid_attribute="uid")
        with pytest.raises(Unavailable):
            ask(plugin, "twin@example.com")
        assert ask(make(server.by_search), "twin") == Identity("twin")


def test_of_several_userids_the_one_in_the_name_counts(directory: Slapd) -> None:
    plugin = make(directory.by_search)
    for shown in ("alias", "second", "SECOND"):
        assert ask(plugin, shown) == Identity("alias")


def test_an_entry_without_a_userid(directory: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(ask(make(directory.by_search, userid_attribute="mail"), "lvv"), Denied)
    assert "smsgw.ldap.userid_attribute" in caplog.text


def test_a_user_whose_entry_is_elsewhere(directory: Slapd) -> None:
    plugin = make(directory.by_template, user_dn=f"cn={{userid}},{PEOPLE}", userid_attribute="uid")
    assert ask(plugin, "hidden") == Identity("hidden")
    assert ask(plugin, "lvv") is None


@pytest.mark.parametrize("userid", ["x" * 100, "@alarms"])
def test_a_userid_that_cannot_be_one_gets_nobody_in(
    directory: Slapd, make_gateway: Callable[..., Gateway], userid: str
) -> None:
    gateway = make_gateway(gateway_settings(directory.by_search))
    send(gateway, userid, status=401)


def test_a_template_with_the_service_account(directory: Slapd) -> None:
    service = {key: value for key, value in directory.by_search.items() if "service" in key}
    plugin = make(directory.by_template | service, group_base=GROUPS)
    assert ask(plugin, "LVV") == Identity("lvv", frozenset({"alarms", "Night Shift", "posix"}))
    assert ask(plugin, "lvv", "wrong") is None


def test_an_entry_that_may_not_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Slapd(tmp_path, *PEOPLE_LDIF) as server:
        path = next(tmp_path.glob("slapd-*/slapd.conf"))
        server.stop()
        path.write_text(path.read_text().replace("by self read", "by self none"))
        server.start()
        assert isinstance(ask(make(server.by_template), "lvv"), Denied)
        assert "may not be read" in caplog.text
        assert ask(make(server.by_search), "lvv") == Identity("lvv")


def test_searching_as_nobody(tmp_path: Path) -> None:
    with Slapd(tmp_path, *PEOPLE_LDIF, others="read") as server:
        plugin = make({"smsgw.ldap.url": server.url, "smsgw.ldap.search_base": SUFFIX})
        assert ask(plugin, "Lvv") == Identity("lvv")
        assert isinstance(ask(plugin, "lvv", "wrong"), Denied)
        assert ask(plugin, "nobody") is None


def test_a_referral_is_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither one that a search meets, nor one that a bind does."""
    with Slapd(tmp_path, person("away", SECRET)) as other:
        referral = (
            f"dn: uid=away,{PEOPLE}\nobjectClass: referral\nobjectClass: extensibleObject\nuid: away\n"
            f"ref: {other.url}/uid=away,{PEOPLE}\n"
        )
        with Slapd(tmp_path, *PEOPLE_LDIF, referral) as server:
            assert ask(make(server.by_search), "lvv") == Identity("lvv")
            for way in ("search", "template"):
                assert ask(make(settings_of(server, way)), "away") is None
        assert other.count("BIND") == other.count("SRCH base") == 0


# Groups


@pytest.mark.parametrize("way", ["search", "template"])
def test_groups_by_search(directory: Slapd, way: str) -> None:
    changes = {"group_base": GROUPS, "user_dn": None, "search_base": None}
    service = (
        directory.by_search
        if way == "search"
        else directory.by_template | {key: value for key, value in directory.by_search.items() if "service" in key}
    )
    plugin = make(service, group_base=changes["group_base"])
    assert ask(plugin, "lvv") == Identity("lvv", frozenset({"alarms", "Night Shift", "posix"}))
    assert ask(plugin, "sam") == Identity("sam")


def test_groups_by_a_filter(directory: Slapd) -> None:
    plugin = make(directory.by_search, group_base=GROUPS, group_filter="(memberUid={userid})")
    assert ask(plugin, "LVV") == Identity("lvv", frozenset({"posix"}))


@WAYS
def test_groups_by_an_attribute(directory: Slapd, way: str) -> None:
    plugin = make(settings_of(directory, way), group_attribute="memberOf")
    assert ask(plugin, "lvv") == Identity("lvv", frozenset({"alarms", "Night Shift", "admins"}))
    plugin = make(settings_of(directory, way), group_attribute="memberof", group_base=GROUPS.upper())
    assert ask(plugin, "lvv") == Identity("lvv", frozenset({"alarms", "Night Shift"}))


@pytest.mark.parametrize("how", [{"group_base": SUFFIX}, {"group_attribute": "memberOf"}])
def test_groups_called_otherwise(directory: Slapd, how: dict[str, str]) -> None:
    """By a name alone, any group of that name counts; by a distinguished name, only that one."""
    lines = f"\nNIGHT SHIFT: night, alarms\ncn=Admins, {GROUPS}: root\nadmins: helpers\nnone: none"
    plugin = make(directory.by_search, groups=lines, **how)
    assert ask(plugin, "lvv") == Identity("lvv", frozenset({"night", "alarms", "helpers"}))
    assert ask(plugin, "ops", "Alarm!ng") == Identity("ops", frozenset({"root", "helpers"}))
    assert ask(plugin, "sam") == Identity("sam")


@pytest.mark.parametrize("how", [{"group_base": GROUPS}, {"group_attribute": "memberOf", "group_base": GROUPS}])
def test_odd_names_of_groups(directory: Slapd, how: dict[str, str]) -> None:
    """A comma is a part of the name; what no line of an ini file can name is left out."""
    assert ask(make(directory.by_search, **how), "alias") == Identity("alias", frozenset({"a, b"}))
    lines = f"\na, b: odd\ncn=\\20odd\\20,{GROUPS}: odder"
    assert ask(make(directory.by_search, groups=lines, **how), "alias") == Identity(
        "alias", frozenset({"odd", "odder"})
    )


@pytest.mark.parametrize("required", ["admins", "ADMINS", f"CN=admins,{GROUPS}"])
@pytest.mark.parametrize("how", [{"group_base": GROUPS}, {"group_attribute": "memberOf", "group_base": GROUPS}])
def test_a_required_group(
    directory: Slapd, required: str, how: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    plugin = make(directory.by_search, required_group=required, **how)
    assert ask(plugin, "ops", "Alarm!ng") == Identity("ops", frozenset({"alarms", "admins"}))
    assert isinstance(ask(plugin, "lvv"), Denied)
    assert isinstance(ask(plugin, "ops", "wrong"), Denied)
    assert "'lvv' has the right password, and is not in smsgw.ldap.required_group" in caplog.text


def test_groups_that_are_not_all_told_are_none(tmp_path: Path) -> None:
    """A group can also take a permission away, so that the others alone would be too much."""
    with Slapd(tmp_path, *PEOPLE_LDIF, *(group(f"g{n}", "lvv") for n in range(3))) as server:
        assert len(ask(make(server.by_search, group_base=GROUPS), "lvv").groups) == 3
        server.limit(2)
        with pytest.raises(Unavailable):
            ask(make(server.by_search, group_base=GROUPS), "lvv")


def test_active_directory(directory: Slapd) -> None:
    """As far as OpenLDAP can play it: its names of attributes, and an extensible match in a filter."""
    wanted = "(&(objectClass=user)(|(sAMAccountName={userid})(userPrincipalName={userid})))"
    plugin = make(directory.by_search, search_filter=wanted)
    for shown in ("sam", "SAM", "s.smith@corp.example", "S.Smith@corp.example"):
        assert ask(plugin, shown) == Identity("Sam")
    assert ask(plugin, "lvv") is None
    with Recorder(directory.port) as recorder:
        rule = "(member:1.2.840.113556.1.4.1941:={dn})"
        nested = make(directory.by_search, url=recorder.url, group_base=GROUPS, group_filter=rule)
        assert ask(nested, "lvv") == Identity("lvv")  # OpenLDAP does not know that rule
        assert b"1.2.840.113556.1.4.1941\x82\x06member\x83" in recorder.sent
    by_rule = make(directory.by_search, group_base=GROUPS, group_filter="(member:distinguishedNameMatch:={dn})")
    assert ask(by_rule, "lvv") == Identity("lvv", frozenset({"alarms", "Night Shift"}))
