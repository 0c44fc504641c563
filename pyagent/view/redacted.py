"""Text without secrets, for what leaves the machine.

Nothing that we write holds any; error texts, log lines and command lines of others may.
"""

from __future__ import annotations

import re

REMOVED = "[removed]"

_WHOLE = (
    re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
    # The same in base64, on one line or several.
    re.compile(r"LS0tLS1CRUdJTi(?:[A-Za-z0-9+/=]|\\n|\n\s*(?=[A-Za-z0-9+/=]{32}))*"),
    re.compile(r"\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?"),  # a JSON web token
    re.compile(r"(?<=://)[^/\s@\"']+(?=@)"),  # user and password in a URL
)
_NAMES = (
    r"token|password|passwd|secret|credentials?|api[-_]?key|client-key-data|client-certificate-data"
    r"|certificate-authority-data"
)
_AFTER = (
    re.compile(r"(?i)(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{6,}"),
    # As YAML, JSON (also within a JSON text), flags and environment write them. A Service may be called
    # `token`: shop/token:http stays.
    re.compile(
        rf"(?im)((?:^|[\s\\\"'{{,\[(?&]|--)[\w.-]*(?:{_NAMES})\\*[\"']?(?:=|\s*:\s+|(?<=[\"']):)\s*\\*[\"']?)"
        r"(?<!null)[^\s,}}\]\"'\\&]+"
    ),
)


def redacted(text: str) -> str:
    """The text with `[removed]` in place of keys, certificates, tokens, passwords and the like."""
    for pattern in _WHOLE:
        text = pattern.sub(REMOVED, text)
    for pattern in _AFTER:
        text = pattern.sub(rf"\1{REMOVED}", text)
    return text
