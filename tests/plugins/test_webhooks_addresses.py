"""URLs of receivers and their addresses: what leads into a network is refused, whatever it is written like."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smsgw_plugins.webhooks.addresses import is_public, read_url

PRIVATE = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
    *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1"),
    *("64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:7f00:1::", "2001:db8::1", "2002:7f00:1::"),
    *("2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "fec0::1"),
    *("ff02::1", "4000::1"),
)
PUBLIC = (
    *("1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.254"),
    *("2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_private(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_what_ipv6_wraps_is_judged_as_it_is(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address within an IPv6 address leads to the same place, where it leads anywhere."""
    for prefix in ("::ffff:0:0", "64:ff9b::"):
        wrapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert is_public(str(wrapped)) == is_public(str(address))
    for wrapped in (
        ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80),  # 6to4
        ipaddress.IPv6Address(0x20010000 << 96 | int(address)),  # Teredo
        ipaddress.IPv6Address(int(address)),  # as it was once written
    ):
        assert not is_public(str(wrapped))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast
    if special and not getattr(address, "ipv4_mapped", None):
        assert not is_public(str(address))


HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z][a-z0-9]{1,5}){0,3}", fullmatch=True)
PATHS = st.from_regex(r"(/[A-Za-z0-9._~%!$&'()*+,;=:@-]{0,9}){0,3}(\?[A-Za-z0-9=&/?._~-]{0,9})?", fullmatch=True)


@given(st.sampled_from(["http", "https", "HTTPS"]), HOSTS, st.none() | st.integers(1, 65535), PATHS)
def test_urls_are_read_as_others_read_them(scheme: str, host: str, port: int | None, path: str) -> None:
    url = f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"
    target, other = read_url(url, is_http_allowed=True), urlsplit(url)
    assert target.host == other.hostname
    assert target.is_tls == (scheme != "http")
    assert target.port == (port or (443 if target.is_tls else 80))
    assert target.path == (other.path or "/") + (f"?{other.query}" if "?" in url else "")
    assert urlsplit(f"//{target.authority}").hostname == other.hostname
    assert repr(target) == f"Target({target.host!r}, {target.port})"


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.com", "//example.com/", "https:example.com", "https:///sms", "https://", "ftp://example.com/"),
        *("https://a@example.com/", "https://a:b@example.com/", "https://example.com@127.0.0.1/", "https://a.b\\@c/"),
        *("https://example.com/#part", "https://example.com:0/", "https://example.com:65536/", "https://example.com:/"),
        *(
            "https://exa mple.com/",
            "https://example.com/a b",
            "https://example.com/\r\nHost: a",
            "https://example.com/\0",
        ),
        *("https://example.com/ä", "https://bücher.example/", "https://[::1/", "https://::1/", "https://[v1.a]/"),
        *(
            "https://exam%70le.com/",
            "https://-a/",
            "javascript:alert(1)",
            " https://example.com/",
            "https://example.com/\n",
        ),
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ValueError, match="should be a URL"):
        read_url(url, is_http_allowed=True)


@given(st.text(max_size=30))
@example("https://[::1]:443/")
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            target = read_url(url, is_http_allowed=False)
        except ValueError:
            continue
        assert (target.host + target.path + target.authority).isascii()
        assert (target.host + target.path + target.authority).isprintable()
