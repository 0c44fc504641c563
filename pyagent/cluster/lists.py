"""Requests for one kind, and its lists: in pages, bounded in memory."""

from __future__ import annotations

from typing import NamedTuple

from pyagent.cluster.connection import Answer, Connection, is_about_trust
from pyagent.cluster.decode import Narrow, NotReadable, as_it_is, decode_list
from pyagent.cluster.refusals import Expired, refusal
from pyagent.cluster.resources import PAGE, Resource, count_query, list_query, metadata_form
from pyagent.cluster.surroundings import Figures, Surroundings, Timing
from pyagent.model.failures import ClusterUnreachable
from pyagent.model.kube_objects import KubeObject
from pyagent.model.source_events import Problem

MAX_PAGE_BYTES = 1 << 29  # servers before 1.34 ignore `limit` for resourceVersion=0
MAX_LIST_BYTES = 1 << 31
MAX_LIST_PAGES = 5000
MAX_LIST_OBJECTS = 500_000
"""Three times the Pods, fifty times the Services that Kubernetes is tested with: a list beyond is a fault."""


class Listed(NamedTuple):
    """A whole list."""

    objects: list[KubeObject]
    problems: list[Problem]
    version: str
    received: float  # monotonic seconds
    size: int  # bytes

    @property
    def total(self) -> int:
        return len(self.objects) + len(self.problems)


class Lists:
    """Asks one server for one kind. Used by one thread."""

    def __init__(
        self,
        resource: Resource,
        connection: Connection,
        around: Surroundings,
        timing: Timing,
        narrow: Narrow = as_it_is,
    ) -> None:
        """Args:
        narrow: applied to the objects of lists, which are many.
        """
        self.resource = resource
        self.figures = Figures()
        self.fields = True  # send the field selector
        self._connection = connection
        self._around = around
        self._timing = timing
        self._narrow = narrow
        self._path = 0

    def request(self, query: str, accept: str) -> Answer:
        """Send it; read the credentials again once where they, or the server's certificate, are refused.

        Raises:
            Refused, Expired: any answer but 200.
            ClusterUnreachable, UsageError: no answer.
        """
        path = f"{self.resource.paths[self._path]}?{query}"
        self.figures.requests += 1
        try:
            answer = self._connection.get(path, self._timing.read, accept)
            renew = answer.status == 401
        except ClusterUnreachable as error:
            if not is_about_trust(error):
                raise
            renew = True
        if renew:
            self._connection.close()
            self._connection.renew()
            self.figures.requests += 1
            answer = self._connection.get(path, self._timing.read, accept)
        if answer.status != 200:
            raise refusal(self.resource, answer)
        return answer

    def other_path(self) -> bool:
        """Ask for the next older version of the API; False, and the newest again, after the oldest."""
        self._path = (self._path + 1) % len(self.resource.paths)
        return self._path > 0

    def read(self, version: str) -> Listed:
        """The whole list; `version` as of `list_query`.

        A list that the server forgets while its pages are read (410) is asked for at once and whole, as
        client-go's pager does: in pages it would take as long the next time.

        Raises:
            NotReadable, TooLarge: it is no list, or beyond measure. Others: as of `request`.
        """
        self.figures.lists += 1
        objects: list[KubeObject] = []
        problems: list[Problem] = []
        token, size, limit = "", 0, PAGE
        for _ in range(MAX_LIST_PAGES):
            query = list_query(self.resource, self.fields, version, token, limit)
            try:
                body = self.request(query, self.resource.accept(watch=False)).read_all(MAX_PAGE_BYTES)
            except Expired:
                if not token or not limit:
                    raise
                objects, problems, token, size, limit = [], [], "", 0, 0
                continue
            size += len(body)
            page = decode_list(self.resource.kind, body, self._narrow)
            received = self.figures.last_byte = self._around.now()
            objects += page.objects
            problems += page.problems
            self.check_size(len(objects) + len(problems), size)
            token = page.continue_token
            if not token:
                return Listed(objects, problems, page.resource_version, received, size)
        raise NotReadable(f"the list of {self.resource.plural} has more than {MAX_LIST_PAGES} pages")

    def check_size(self, objects: int, size: int) -> None:
        """Raises `NotReadable` for what is beyond measure; `size` in bytes."""
        if objects > MAX_LIST_OBJECTS or size > MAX_LIST_BYTES:
            raise NotReadable(
                f"the list of {self.resource.plural} is beyond measure: more than {MAX_LIST_OBJECTS} objects "
                f"or {MAX_LIST_BYTES >> 20} MiB"
            )

    def count(self, most: int) -> int:
        """How many objects there are, without selectors; one more than `most` stands for all above."""
        answer = self.request(count_query(most), metadata_form(watch=False))
        page = decode_list(self.resource.kind, answer.read_all(MAX_PAGE_BYTES))
        return len(page.objects) + len(page.problems) + bool(page.continue_token)

    def current_version(self) -> str:
        """That of the server's data now: one object's metadata, read from a quorum."""
        answer = self.request(count_query(0), metadata_form(watch=False))
        return decode_list(self.resource.kind, answer.read_all(MAX_PAGE_BYTES)).resource_version
