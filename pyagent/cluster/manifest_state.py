"""What the files of a directory say together, and what changes when one of them does. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pyagent.cluster.manifest_file import FILE_PROBLEM, FileContent, Key, file_problem
from pyagent.model.kube_objects import Kind, KubeObject
from pyagent.model.source_events import Changed, Deleted, Malformed, Problem, SourceEvent


class ManifestState:
    """Objects by file. Of an object in two files, the file whose name sorts first counts.

    A file that can no longer be read, or an object in it that cannot, keeps its last good version: somebody
    who saves a half-edited file must not lose a Service.
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[Key, KubeObject]] = {}
        self._owners: dict[Key, list[str]] = {}  # sorted
        self._reported: dict[str, frozenset[Problem]] = {}

    def names(self) -> set[str]:
        """The files that said something, or that are reported."""
        return self._files.keys() | self._reported.keys()

    def objects_of(self, kind: Kind) -> list[KubeObject]:
        """The objects that count now."""
        return [self._files[owners[0]][key] for key, owners in self._owners.items() if key.kind == kind]

    def __len__(self) -> int:
        return len(self._owners)

    def update(self, files: Mapping[str, FileContent | None], received: float) -> list[SourceEvent]:
        """Take in what several files say now, as one change: an object that moved between them stays.

        Args:
            files: new content by file name; None for a file that is gone.
            received: monotonic seconds when they were read.

        Returns:
            The events that tell what changed: objects first, then problems not reported before.
        """
        merged = {name: _merged(self._files.get(name, {}), content) for name, content in files.items()}
        touched: dict[Key, None] = {}  # in the files' order; sorting 20,000 keys would be felt
        for name, (after, _) in merged.items():
            touched |= dict.fromkeys(self._files.get(name, {}))
            touched |= dict.fromkeys(after)
        served = {key: self._served(key) for key in touched}
        for name, (after, _) in merged.items():
            self._hold(name, after, files[name] is None)
        events: list[SourceEvent] = []
        for key in touched:
            event = _difference(key, served[key], self._served(key), received)
            if event is not None:
                events.append(event)
        shadowed = self._shadowed(touched)
        for name, (_, problems) in merged.items():
            events += self._news(name, problems + shadowed.pop(name, []), received)
        for name, problems in shadowed.items():
            events += self._news(name, [*self._reported.get(name, ()), *problems], received)
        return events

    def _hold(self, name: str, after: dict[Key, KubeObject], gone: bool) -> None:
        before = self._files.get(name, {})
        for key in before.keys() - after.keys():
            self._disown(key, name)
        for key in after.keys() - before.keys():
            self._own(key, name)
        if gone:
            self._files.pop(name, None)
        else:
            self._files[name] = after

    def _shadowed(self, touched: Iterable[Key]) -> dict[str, list[Problem]]:
        """By file: its objects that do not count."""
        found: dict[str, list[Problem]] = {}
        for key in touched:
            owners = self._owners.get(key) or []
            for loser in owners[1:]:
                subject = f"{key.namespace}/{key.name}" if key.namespace else key.name
                reason = f"{key.kind} {subject} is already in {owners[0]}, which comes first; remove one"
                found.setdefault(loser, []).append(file_problem(loser, reason))
        return found

    def _news(self, name: str, problems: list[Problem], received: float) -> list[SourceEvent]:
        known = self._reported.pop(name, frozenset())
        if problems:
            self._reported[name] = frozenset(problems)
        fresh = dict.fromkeys(problem for problem in problems if problem not in known)
        return [Malformed(problem.kind, problem, received) for problem in fresh]

    def _served(self, key: Key) -> KubeObject | None:
        owners = self._owners.get(key)
        return self._files[owners[0]][key] if owners else None

    def _own(self, key: Key, name: str) -> None:
        owners = self._owners.setdefault(key, [])
        owners.append(name)
        owners.sort()

    def _disown(self, key: Key, name: str) -> None:
        owners = self._owners[key]
        owners.remove(name)
        if not owners:
            del self._owners[key]


def _merged(
    before: dict[Key, KubeObject], content: FileContent | None
) -> tuple[dict[Key, KubeObject], list[Problem]]:
    """The new objects, with the last good version of what cannot be read now."""
    if content is None:
        return {}, []
    if content.unreadable is not None:
        return before, [_kept(content.unreadable) if before else content.unreadable]
    after, problems = dict(content.objects), []
    by_identity = {(key.kind, key.namespace, key.name): key for key in before}
    for problem in content.problems:
        old = by_identity.get((problem.kind, problem.namespace, problem.name))  # type: ignore[arg-type]
        if old is None or old in after:
            problems.append(problem)
        else:
            after[old] = before[old]
            problems.append(_kept(problem))
    return after, problems


def _kept(problem: Problem) -> Problem:
    """The same, said of the file: a problem of the object itself would mean that the object is absent."""
    stays = "the last good version stays"
    if problem.kind == FILE_PROBLEM:
        return msgspec.structs.replace(problem, reason=f"{problem.reason}; {stays}")
    text = str(msgspec.structs.replace(problem, origin=""))
    file_name = problem.origin.rpartition(":")[0]
    return Problem(FILE_PROBLEM, "", file_name, "", f"{text}; {stays}", problem.origin)


def _difference(
    key: Key, before: KubeObject | None, after: KubeObject | None, received: float
) -> SourceEvent | None:
    if after is None:
        return None if before is None else Deleted(key.kind, key.namespace, key.name, received)
    if before is after or before == after:
        return None
    return Changed(key.kind, after, received)
