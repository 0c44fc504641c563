"""What the files of a directory say together, and what changes when one of them does. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pyagent.cluster.manifest_file import FILE_PROBLEM, FileContent, Key, file_problem
from pyagent.model.kube_objects import Kind, KubeObject
from pyagent.model.source_events import Changed, Deleted, Malformed, Mended, Problem, SourceEvent


class ManifestState:
    """Objects by file. Of an object in two files, the file whose name sorts first counts.

    A file that can no longer be read, or an object in it that cannot, keeps its last good version: somebody
    who saves a half-edited file must not lose a Service.
    """

    def __init__(self) -> None:
        self._files: dict[str, dict[Key, KubeObject]] = {}
        self._owners: dict[Key, list[str]] = {}  # sorted
        self._found: dict[str, tuple[Problem, ...]] = {}  # in the files themselves
        self._shadowed: dict[Key, tuple[Problem, ...]] = {}
        self._told: dict[Problem, None] = {}

    def names(self) -> set[str]:
        """The files that said something, or that are reported."""
        return self._files.keys() | self._found.keys()

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
            The events that tell what changed: objects first, then problems that are gone and new ones.
        """
        merged = {name: _merged(self._files.get(name, {}), content) for name, content in files.items()}
        touched: dict[Key, None] = {}  # in the files' order; sorting 20,000 keys would be felt
        for name, (after, _) in merged.items():
            touched |= dict.fromkeys(self._files.get(name, {}))
            touched |= dict.fromkeys(after)
        served = {key: self._served(key) for key in touched}
        for name, (after, problems) in merged.items():
            self._hold(name, after, files[name] is None)
            self._found.pop(name, None)
            if problems:
                self._found[name] = tuple(problems)
        events: list[SourceEvent] = []
        for key in touched:
            event = _difference(key, served[key], self._served(key), received)
            if event is not None:
                events.append(event)
        self._look_for_shadows(touched)
        return events + self._news(received)

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

    def _look_for_shadows(self, touched: Iterable[Key]) -> None:
        """Objects of files that do not count, because another file comes first."""
        for key in touched:
            self._shadowed.pop(key, None)
            owners = self._owners.get(key) or []
            if owners[1:]:
                subject = f"{key.namespace}/{key.name}" if key.namespace else key.name
                reason = f"{key.kind} {subject} is already in {owners[0]}, which comes first; remove one"
                self._shadowed[key] = tuple(file_problem(loser, reason) for loser in owners[1:])

    def _news(self, received: float) -> list[SourceEvent]:
        """What became of problems since the last time."""
        held: dict[Problem, None] = {}
        for problems in (*self._found.values(), *self._shadowed.values()):
            held |= dict.fromkeys(map(self._as_told, problems))
        told, self._told = self._told, held
        gone = (Mended(problem.kind, problem, received) for problem in told if problem not in held)
        new = (Malformed(problem.kind, problem, received) for problem in held if problem not in told)
        return [*gone, *new]

    def _as_told(self, problem: Problem) -> Problem:
        """A bad copy of an object that is served is its file's problem: it makes nothing absent."""
        owners = self._owners.get(_key_of(problem))
        return problem if not owners else _of_its_file(problem, f"the one in {owners[0]} counts")

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
    for problem in content.problems:
        key = _key_of(problem)
        if key not in before or key in after:
            problems.append(problem)
        else:
            after[key] = before[key]
            problems.append(_kept(problem))
    return after, problems


def _key_of(problem: Problem) -> Key:
    kind: Kind = problem.kind  # type: ignore[assignment]  # a file's problem has another, which no object has
    return Key(kind, problem.namespace, problem.name)


def _kept(problem: Problem) -> Problem:
    stays = "the last good version stays"
    if problem.kind == FILE_PROBLEM:
        return msgspec.structs.replace(problem, reason=f"{problem.reason}; {stays}")
    return _of_its_file(problem, stays)


def _of_its_file(problem: Problem, instead: str) -> Problem:
    """The same, said of the file: a problem of the object itself would mean that the object is absent."""
    text = str(msgspec.structs.replace(problem, origin=""))
    file_name = problem.origin.rpartition(":")[0]
    return Problem(FILE_PROBLEM, "", file_name, "", f"{text}; {instead}", problem.origin)


def _difference(
    key: Key, before: KubeObject | None, after: KubeObject | None, received: float
) -> SourceEvent | None:
    if after is None:
        return None if before is None else Deleted(key.kind, key.namespace, key.name, received)
    if before is after or before == after:
        return None
    return Changed(key.kind, after, received)
