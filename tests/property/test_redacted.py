"""No secret survives, in whatever form somebody wrote it into a text; names of Services do."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyagent.view.redacted import redacted

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
SECRETS = st.text(LETTERS + "-_", min_size=12, max_size=60).filter(lambda text: text[0].isalnum())
FORMS = (
    "token: {}",
    "  token: {}\nname: x",
    "password={}",
    '{{"token": "{}", "kind": "x"}}',
    '{{"id-token":"{}"}}',
    "users: [{{user: {{client-key-data: {}}}}}]",
    "Authorization: Bearer {}",
    "authorization: basic {}",
    "--bearer-token={}",
    "kubesock run --token {{x}} --api-key={}",
    "AWS_SECRET={} PATH=/bin",
    "GET https://admin:{}@10.0.0.1:6443/api",
    "GET /api?access_token={}&watch=1",
    "{{'password': '{}'}}",
)


@pytest.mark.parametrize("form", FORMS)
@given(secret=SECRETS, before=st.text(max_size=20), after=st.text(max_size=20))
@example(secret="abcdefghijkl", before="", after="")
def test_no_secret_survives(form: str, secret: str, before: str, after: str) -> None:
    text = f"{before}\n{form.format(secret)}\n{after}"
    if secret not in before + after:
        assert secret not in redacted(text)
        # The same as a field of a JSON document, where quotes are escaped.
        document = json.dumps({"error": text, "next": 1})
        hidden = redacted(document)
        assert secret not in hidden
        assert json.loads(hidden)["next"] == 1


@given(data=st.binary(min_size=40, max_size=400), kind=st.sampled_from(["CERTIFICATE", "RSA PRIVATE KEY"]))
def test_no_key_and_no_certificate_survives(data: bytes, kind: str) -> None:
    lines = base64.encodebytes(data).decode()
    pem = f"-----BEGIN {kind}-----\n{lines}-----END {kind}-----\n"
    assert lines.split()[0] not in redacted(f"x\n{pem}y")
    assert redacted(f"x\n{pem}y").startswith("x\n")
    assert redacted(f"x\n{pem}y").endswith("y")
    encoded = base64.b64encode(pem.encode()).decode()
    assert encoded[20:] not in redacted(f"anything: {encoded}\nname: y")
    assert "name: y" in redacted(f"anything: {encoded}\nname: y")


def test_a_web_token_is_known_without_a_name() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
    assert "eyJ" not in redacted(f"401 for {token}, retried")


@pytest.mark.parametrize(
    "text",
    [
        "shop/token:http/TCP",
        '{"service": "shop/secret:http/TCP", "name": "token"}',
        "kube-system/password-store",
        "Secrets are not watched",
        "unauthorized: the token expired",
        "10.96.0.1:443 10.1.0.2:8080",
    ],
)
def test_what_only_sounds_like_one_stays(text: str) -> None:
    assert redacted(text) == text
