"""Children that start in a network namespace and a cgroup, and never outlive the process that forked them.

Order matters: a socket belongs to the cgroup that its process was in when it was made, so a child is moved
before it runs anything. `ip netns exec` is no way in, because it hides the cgroup mount.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pyagent.demo.syscalls import die_with_parent, enter_network
from pyagent.model.failures import KubesockError


class SpawnFailed(KubesockError):
    """A child could not be started where it was wanted."""


class Child:
    """A forked process: its pid, and a pidfd so that a reused pid is never signalled or waited for."""

    def __init__(self, pid: int, label: str) -> None:
        self.pid = pid
        self.label = label
        self._pidfd = os.pidfd_open(pid)
        self._exit_code: int | None = None

    def wait(self, timeout: float) -> int | None:
        """The exit code (negative: minus the signal), or None if it still runs after `timeout` seconds."""
        if self._exit_code is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if poller.poll(max(0, round(timeout * 1000))):
                _, status = os.waitpid(self.pid, 0)
                self._exit_code = os.waitstatus_to_exitcode(status)
                os.close(self._pidfd)
        return self._exit_code

    @property
    def running(self) -> bool:
        return self.wait(0) is None

    def send(self, signal_number: signal.Signals) -> None:
        """Signal the child; nothing happens if it has ended."""
        if self.running:
            signal.pidfd_send_signal(self._pidfd, signal_number)

    def kill(self) -> int:
        """End the child now. Returns its exit code."""
        self.send(signal.SIGKILL)
        return self._ended(10.0)

    def stop(self, patience: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after `patience` seconds. Returns the exit code."""
        self.send(signal.SIGTERM)
        code = self.wait(patience)
        return self.kill() if code is None else code

    def _ended(self, timeout: float) -> int:
        code = self.wait(timeout)
        if code is None:
            raise KubesockError(
                f"process {self.pid} ({self.label}) does not end; look at /proc/{self.pid}/stack"
            )
        return code


def spawn(
    what: Sequence[str] | Callable[[], object],
    *,
    netns: Path | None = None,
    cgroup: Path | None = None,
    log: Path | None = None,
    label: str = "",
) -> Child:
    """Start a command, or a Python callable in a fork, inside a network namespace and a cgroup.

    Returns as soon as the child is where it belongs and its program is loaded. It has its own session, so
    that Ctrl-C reaches only the owner, and it is killed by the kernel when the calling thread ends.

    Args:
        what: an argument list, or a callable; an exception in it becomes exit code 1 and a traceback.
        netns: path that the namespace is mounted on; None: the caller's.
        cgroup: cgroup v2 folder; None: the caller's.
        log: file that stdout and stderr are appended to; None: the caller's.

    Raises:
        SpawnFailed: the cgroup, the namespace or the program is not usable.
    """
    label = label or (getattr(what, "__name__", "callable") if callable(what) else what[0])
    sys.stdout.flush()
    sys.stderr.flush()
    owner = os.getpid()
    verdict_in, verdict_out = os.pipe()
    with warnings.catch_warnings():
        # Python warns about forks beside threads; the child takes no lock that a thread could hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(verdict_in)
        _become(what, owner, netns, cgroup, log, verdict_out)
    os.close(verdict_out)
    child = Child(pid, label)
    with os.fdopen(verdict_in, "rb") as verdict:
        complaint = verdict.read().decode(errors="replace")
    if complaint:
        child.kill()
        raise SpawnFailed(f"cannot start {label}: {complaint}")
    return child


def _become(
    what: Sequence[str] | Callable[[], object],
    owner: int,
    netns: Path | None,
    cgroup: Path | None,
    log: Path | None,
    verdict: int,
) -> None:
    """The child's life; never returns."""
    code = 1
    try:
        try:
            _settle(owner, netns, cgroup, log)
            if not callable(what):
                os.execvp(what[0], list(what))
        except OSError as error:
            os.write(verdict, str(error).encode())
            return
        os.close(verdict)
        what()
        code = 0
    except SystemExit as request:
        code = request.code if isinstance(request.code, int) else 1
    except BaseException:  # noqa: BLE001 - a fork must not run its parent's code below this frame
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _settle(owner: int, netns: Path | None, cgroup: Path | None, log: Path | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    die_with_parent(signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(1)
    if cgroup is not None:
        (cgroup / "cgroup.procs").write_text("0")
    if netns is not None:
        enter_network(netns)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)


def close_inherited(*keep: int) -> None:
    """For long-lived forks: drop the owner's files, so that its pipes and locks end when it closes them."""
    low = 3
    for number in sorted(keep):
        os.closerange(low, number)
        low = max(low, number + 1)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    os.closerange(low, highest + 1)


def started_at(pid: int) -> int | None:
    """A process's start in clock ticks since boot (proc_pid_stat(5), field 22); None: no such process.

    With the pid it names one process for ever, while the pid alone may be reused.
    """
    try:
        text = (Path("/proc") / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else int(fields[19])


def wait_until(condition: Callable[[], bool], timeout: float, interval: float = 0.02) -> bool:
    """Poll a condition until it holds. Returns whether it did within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True
