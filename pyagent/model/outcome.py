"""What a hook did. One enum for C (`bpf/contract.h`), counters, metrics, events, `explain` and docs."""

from __future__ import annotations

import errno
from enum import IntEnum

PROBE_ERRNO = errno.EL2HLT


class Outcome(IntEnum):
    """Values equal `enum outcome` in `bpf/contract.h`; the loader compares them."""

    NOT_A_SERVICE = 0
    TRANSLATED = 1
    TRANSLATED_BY_AFFINITY = 2
    TRANSLATED_SAME_SOCKET = 3
    REFUSED_NO_ENDPOINTS = 4
    REFUSED_NO_LOCAL_ENDPOINTS = 5
    REFUSED_UNDEFINED_PORT = 6
    REFUSED_UNALLOCATED_ADDRESS = 7
    REFUSED_SOURCE_RANGE = 8
    REFUSED_UNKNOWN_SOURCE = 9
    REFUSED_UNSTABLE = 10
    PASSED_OTHER_PROXY = 11
    PASSED_BOUND_TO_LOOPBACK = 12
    PASSED_OPTED_OUT = 13
    ORIGIN_NOT_STORED = 14
    REPLY_TRANSLATED = 15
    PEER_TRANSLATED = 16
    PROBED = 17
    EVENT_NOT_STORED = 18
    REFUSED_NO_SOURCE_PORT = 19  # packets only
    PASSED_UNKNOWN_FLOW = 20  # packets only

    @property
    def label(self) -> str:
        """The name in metrics labels, events and JSON."""
        return self.name.lower()


OUTCOME_COUNT = 32
"""Slots of the `outcomes` map; room for outcomes to come without a new layout."""

ERRNO_OF: dict[Outcome, int] = {
    Outcome.REFUSED_NO_ENDPOINTS: errno.ECONNREFUSED,
    Outcome.REFUSED_NO_LOCAL_ENDPOINTS: errno.EHOSTUNREACH,
    Outcome.REFUSED_UNDEFINED_PORT: errno.ECONNREFUSED,
    Outcome.REFUSED_UNALLOCATED_ADDRESS: errno.ECONNREFUSED,
    Outcome.REFUSED_SOURCE_RANGE: errno.EHOSTUNREACH,
    Outcome.REFUSED_UNKNOWN_SOURCE: errno.EHOSTUNREACH,
    Outcome.REFUSED_UNSTABLE: errno.EAGAIN,
    Outcome.PROBED: PROBE_ERRNO,
}
"""The errno an application sees (kernels with bpf_set_retval, 5.18 on); others pass or translate."""
