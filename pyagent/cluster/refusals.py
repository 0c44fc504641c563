"""What the API server's refusals mean for whoever follows a kind."""

from __future__ import annotations

from pyagent.cluster.connection import Answer
from pyagent.cluster.decode import Status, decode_status
from pyagent.cluster.resources import Resource
from pyagent.model.failures import ClusterUnreachable

MAX_STATUS_BYTES = 1 << 20
LONGEST_RETRY_AFTER = 120.0

TRANSIENT = frozenset({401, 403, 410, 429, 502, 503, 504})


class Refused(ClusterUnreachable):
    """The server answered, but not with what was asked for."""

    def __init__(self, resource: Resource, status: Status, retry_after: float = 0.0) -> None:
        self.code = status.code
        self.retry_after = retry_after
        super().__init__(explain(resource, status))


class Expired(ClusterUnreachable):
    """What is held cannot be continued from: only a new list tells what happened meanwhile."""


def explain(resource: Resource, status: Status) -> str:
    """One line: cause and remedy."""
    match status.code:
        case 401:
            return (
                f"the API server does not accept the credentials (401) for {resource.plural}; "
                "renew the token or the kubeconfig"
            )
        case 403:
            return (
                f"not allowed to list and watch {resource.plural}; add to the agent's ClusterRole: "
                f"{resource.rbac_rule}"
            )
        case 404:
            return f"the API server does not know {resource.plural} (404); Kubernetes 1.29 or newer is needed"
        case 429:
            return f"the API server asks for patience (429) with {resource.plural}"
    detail = f": {status.message}" if status.message else ""
    return f"the API server answered {status.code} for {resource.plural}{detail}"


def refusal(resource: Resource, answer: Answer) -> Refused | Expired:
    """The failure behind an answer other than 200."""
    body = decode_status(answer.read_all(MAX_STATUS_BYTES))
    status = Status(answer.status, body.reason, body.message)
    if answer.status == 410:
        return Expired(f"the version of {resource.plural} held is too old (410)")
    text = answer.header("Retry-After")
    seconds = float(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0
    return Refused(resource, status, min(seconds, LONGEST_RETRY_AFTER))


def failure_in_stream(resource: Resource, status: Status | None) -> Refused | Expired:
    """The failure told by an ERROR event."""
    status = status or Status(500)
    if status.code == 410:
        return Expired(f"the version of {resource.plural} held is too old (410 in the stream)")
    return Refused(resource, status)
