"""A folder of ours, held open: what is read from it nobody else wrote, and no link in it is followed.

All is done relative to the open folder, so that nothing can be exchanged for something else meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from pyagent.model.failures import KubesockError

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class NotOurs(KubesockError):
    """Somebody else could have written it, or it is no plain file or folder."""


class OwnFolder:
    """Made by `opened`."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    def read(self, name: str, limit: int) -> bytes:
        """A file's first `limit` bytes.

        Raises:
            NotOurs: another user owns it or may write it, or it is a link or no plain file.
            OSError: it is not there, or cannot be read.
        """
        try:
            fd = os.open(name, _READ, dir_fd=self._fd)
        except OSError as error:
            if error.errno == errno.ELOOP:  # O_NOFOLLOW, open(2)
                raise NotOurs(f"{self._path / name} is not used: it is a link") from None
            raise
        try:
            _check(self._path / name, os.fstat(fd), stat.S_ISREG)
            with os.fdopen(fd, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(fd)

    def write(self, name: str, data: bytes, unfinished: str) -> None:
        """Put a file in its place: a reader sees the old one or the new one, never half of it.

        Args:
            unfinished: how its name begins until then; an agent that is killed leaves such a file behind.

        Raises:
            OSError: there is no room or no permission.
        """
        temporary = f"{unfinished}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=self._fd), "wb") as file:
                file.write(data)
            os.replace(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)
            raise

    def names(self) -> list[str]:
        """What is in it."""
        return sorted(os.listdir(self._fd))  # noqa: PTH208  pathlib lists no descriptors

    def status(self, name: str) -> os.stat_result:
        """Of a file, or of a link itself.

        Raises:
            OSError: it is not there.
        """
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False)

    def remove(self, name: str) -> None:
        """Remove a file, or a link itself.

        Raises:
            OSError: it is a folder, is not there, or may not be removed.
        """
        os.unlink(name, dir_fd=self._fd)


@contextlib.contextmanager
def opened(path: Path, *, through_link: bool = False) -> Iterator[OwnFolder]:
    """The folder, if it is ours alone to write.

    Args:
        through_link: for a path that the command line names: whoever gave it chose the link. Else a link is
            not followed.

    Raises:
        NotOurs: another user owns it or may write it, or it is a link or no folder.
        OSError: it is not there, or cannot be opened.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if through_link else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags)
    except NotADirectoryError:
        kind = "it is a link" if path.is_symlink() else "it is no folder"
        raise NotOurs(f"{path} is not used: {kind}") from None
    try:
        _check(path, os.fstat(fd), stat.S_ISDIR)
        yield OwnFolder(path, fd)
    finally:
        os.close(fd)


def _check(path: Path, status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if not is_kind(status.st_mode):
        raise NotOurs(f"{path} is not used: it is no plain file or folder")
    if status.st_uid != os.geteuid():
        raise NotOurs(f"{path} is not used: it belongs to uid {status.st_uid}; remove it")
    if status.st_mode & 0o022:
        raise NotOurs(f"{path} is not used: others may write it, mode {stat.S_IMODE(status.st_mode):04o}")
