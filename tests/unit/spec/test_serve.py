"""Where an endpoint listens: what would change a proxy's configuration, or never be reached, is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from raypipe.spec.serve import ServeSpec


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "::1", "localhost", "head.cluster_1.local"])
def test_host_that_is_an_address_or_a_name_is_taken(host: str):
    assert ServeSpec(host=host).host == host


NO_HOSTS = "127.0.0.1:80 1.2.3 999.1.1.1 -a a..b http://a a;b *"


@pytest.mark.parametrize(
    "host", [*NO_HOSTS.split(), "", "0.0.0.0\n x", "0.0.0.0\n", "a b", "a\tb", "fe80::1%x\ny", "a" * 300]
)
def test_host_that_is_neither_is_refused(host: str):
    with pytest.raises(ValidationError, match="must be an IP address or a host name"):
        ServeSpec(host=host)


@pytest.mark.parametrize("route", ["/", "/digits", "/v1/digits", "/other/", "/.well-known/x", "/-digits"])
def test_route_prefix_that_can_be_reached_is_taken(route: str):
    assert ServeSpec(route_prefix=route).route_prefix == route


@pytest.mark.parametrize(
    ("route", "message"),
    [
        *(
            (route, "must be / or like /v1/digits")
            for route in ("", "a", "//", "/a//b", "/a/../b", "/..", "/./a", "/a/.")
        ),
        *((route, "must be / or like /v1/digits") for route in ("/a\n", "/{x}", "/a b", "/a?b", "/%2e%2e")),
        *((route, "are Ray Serve's own") for route in ("/-/routes", "/-/healthz", "/-", "/-/")),
    ],
)
def test_route_prefix_that_is_rewritten_or_taken_is_refused(route: str, message: str):
    with pytest.raises(ValidationError, match=message):
        ServeSpec(route_prefix=route)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"auth": {}}, "give one of keys_env"),
        ({"auth": {"keys_env": "A", "keys_file": "/a"}}, "give one of keys_env"),
        ({"auth": {"keys_env": "A B"}}, "keys_env"),
        ({"auth": {"keys_file": "keys.jsonl"}}, "must be an absolute path"),
        ({"auth": {"keys_file": "/a\nb"}}, "must be an absolute path"),
        ({"auth": {"keys_env": "A"}, "host": "0.0.0.0"}, "would send keys in the clear"),
        ({"tls": {"cert_file": "/c", "key_file": "k"}}, "must be an absolute path"),
        ({"tls": {"cert_file": "/c", "key_file": "/k"}, "ingress": "python"}, "tls needs ingress: haproxy"),
        ({"cors": {"origins": []}}, "at least 1"),
        *(
            ({"cors": {"origins": [origin]}}, "must be scheme and host")
            for origin in ("*", "null", "https://a/", "https://a:443", "http://a:80", "https://A", "a", "https://*.a")
        ),
        ({"limits": {"max_header_bytes": 1}}, "max_header_bytes"),
    ],
)
def test_access_that_would_not_be_what_it_says_is_refused(fields: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        ServeSpec.model_validate(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"auth": {"keys_env": "A"}},
        {"auth": {"keys_file": "~/keys.jsonl"}, "host": "localhost"},
        {"auth": {"keys_env": "A"}, "host": "0.0.0.0", "allow_plaintext_keys": True},
        {"auth": {"keys_env": "A"}, "host": "0.0.0.0", "tls": {"cert_file": "/c", "key_file": "/k"}},
        {"cors": {"origins": ["https://a.example", "http://localhost:3000", "http://[::1]:8080"]}},
    ],
)
def test_access_that_is_what_it_says_is_taken(fields: dict[str, object]):
    assert ServeSpec.model_validate(fields)


def test_grpc_needs_a_port_of_its_own():
    assert ServeSpec(grpc_port=9000).grpc_port == 9000 and ServeSpec().grpc_port is None
    with pytest.raises(ValidationError, match="grpc_port=8000 is the port for HTTP"):
        ServeSpec(port=8000, grpc_port=8000)
