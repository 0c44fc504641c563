"""Objects in the form in which the snapshot keeps them, made where they arrive.

Of a list of any length, only the part that is being decoded then exists in the form of the API; and what
keeps objects itself, as the manifests directory does, shares them with the snapshot.
"""

from __future__ import annotations

from sys import intern

from pyagent.desired.endpoints import SliceEndpoints, read_slice
from pyagent.desired.names import MAX_LABEL, MAX_NAME, is_label, is_name
from pyagent.desired.slim import slim_service
from pyagent.model.kube_objects import (
    ANNOTATION_TRIGGER_TIME,
    LABEL_HEADLESS,
    LABEL_SERVICE_NAME,
    EndpointSlice,
    KubeObject,
    Metadata,
    Service,
)

API_SERVER = ("default", "kubernetes")
"""The Service whose endpoints are the API server itself; others want to read its slices as they are."""


class ReadSlice(EndpointSlice, frozen=True, gc=False):
    """An EndpointSlice that was read: what it says is in `read` alone."""

    read: SliceEndpoints | None = None


def narrowed(obj: KubeObject, own_node: str) -> KubeObject:
    """The same object to every rule; as it is if the snapshot would refuse it.

    Args:
        own_node: this node's name, as in `read_slice`.
    """
    if isinstance(obj, EndpointSlice) and not isinstance(obj, ReadSlice):
        return _narrowed_slice(obj, own_node)
    if isinstance(obj, Service):
        return slim_service(obj)
    return obj


def _narrowed_slice(obj: EndpointSlice, own_node: str) -> EndpointSlice:
    metadata = obj.metadata
    labels = metadata.labels or {}
    service = labels.get(LABEL_SERVICE_NAME, "")
    usable = (
        is_name(metadata.name, MAX_NAME)
        and is_label(metadata.namespace)
        and is_name(service, MAX_LABEL)
        and LABEL_HEADLESS not in labels
        and (metadata.namespace, service) != API_SERVER
    )
    if not usable:
        return obj
    read = read_slice(obj, intern(service), own_node)
    triggered = (metadata.annotations or {}).get(ANNOTATION_TRIGGER_TIME)
    kept = Metadata(
        metadata.name,
        intern(metadata.namespace),
        annotations={ANNOTATION_TRIGGER_TIME: triggered} if triggered else None,
        resourceVersion=metadata.resourceVersion,
    )
    return ReadSlice(kept, obj.addressType, read=read)
