"""Who owns an address that several service ports claim."""

from __future__ import annotations

from collections.abc import Callable

from pyagent.model.address import Family, Protocol
from pyagent.model.service import ServicePortKey, SetKey

Dialled = tuple[Family, Protocol, int, bytes, str]
"""What makes two frontends collide: `Frontend.dialled`."""

Claim = tuple[ServicePortKey, SetKey]

Rank = Callable[[Dialled, ServicePortKey], tuple[object, ...]]
"""Orders the claimants of an address; the least owns it."""


class FrontendClaims:
    """All claims on frontends; of several on one, the least by rank owns it and the others wait.

    A claimant whose rank changes must withdraw and claim again.
    """

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._claims: dict[Dialled, tuple[Claim, ...]] = {}
        self._before: dict[Dialled, Claim | None] = {}
        self._contested: set[Dialled] = set()  # had several claimants at some time since the last look

    def claim(self, dialled: Dialled, claim: Claim) -> None:
        held = self._claims.get(dialled)
        self._before.setdefault(dialled, held[0] if held else None)
        if held:
            self._contested.add(dialled)
            self._claims[dialled] = tuple(sorted((*held, claim), key=lambda c: self._rank(dialled, c[0])))
        else:
            self._claims[dialled] = (claim,)

    def withdraw(self, dialled: Dialled, key: ServicePortKey) -> None:
        held = self._claims[dialled]
        self._before.setdefault(dialled, held[0])
        rest = tuple(claim for claim in held if claim[0] != key)
        if rest:
            self._contested.add(dialled)
            self._claims[dialled] = rest
        else:
            del self._claims[dialled]

    def owner(self, dialled: Dialled) -> Claim | None:
        held = self._claims.get(dialled)
        return held[0] if held else None

    def waiting(self, dialled: Dialled) -> tuple[Claim, ...]:
        """Those who claim a frontend and do not own it."""
        return self._claims.get(dialled, ())[1:]

    def owners(self) -> dict[Dialled, Claim | None]:
        return {dialled: held[0] for dialled, held in self._claims.items()}

    def take_changes(self) -> tuple[dict[Dialled, Claim | None], set[Dialled]]:
        """(owners that changed, None for nobody; frontends that were contested) since the last call."""
        before, self._before = self._before, {}
        contested, self._contested = self._contested, set()
        changed: dict[Dialled, Claim | None] = {}
        for dialled, old in before.items():
            new = self.owner(dialled)
            if new != old:
                changed[dialled] = new
        return changed, contested
