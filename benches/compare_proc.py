"""What the kernel says of a process and its children, and how we start and end only our own."""

import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A step of the comparison could not be done; the text says which and why."""


def raise_nofile():
    """Takes every descriptor the system allows; children inherit it. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 65536), max(hard, 65536)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stat(pid):
    """Fields of /proc/PID/stat after the name, which may hold blanks and parentheses."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def family(root):
    """`root` and all its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                children.setdefault(int(_stat(entry)[1]), []).append(int(entry))
            except (OSError, ValueError):
                continue
    found, queue = [], [root]
    while queue:
        pid = queue.pop()
        found.append(pid)
        queue.extend(children.get(pid, []))
    return found


def cpu_seconds(pids):
    """utime + stime of these processes, all their threads."""
    total = 0
    for pid in pids:
        try:
            fields = _stat(pid)
        except OSError as gone:
            raise Failed(f"process {pid} of a proxy ended while it was measured") from gone
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(pids):
    """(RSS, PSS) in bytes, summed over these processes. Pages they share count once in PSS."""
    rss = pss = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return rss, pss


def processes(pids):
    """One line a process: name and RSS in KiB, for the JSON report."""
    return [{"pid": p, "name": Path(f"/proc/{p}/comm").read_text().strip(), "rss_kib": int(Path(f"/proc/{p}/statm").read_text().split()[1]) * PAGE // 1024} for p in pids]


def _tied_to_us():
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A program we started, in a process group of its own; it gets TERM should we die."""

    def __init__(self, name, argv, log, env=None):
        self.name, self.argv, self.log = name, argv, Path(log)
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_tied_to_us,
            )

    @property
    def pid(self):
        return self.process.pid

    def family(self):
        return family(self.pid)

    def check_alive(self):
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Failed(f"{self.name} ended with status {self.process.returncode}: {' '.join(map(str, self.argv))}\n{tail}")

    def stop(self, patience=10.0):
        """TERM, then KILL of the group after `patience` seconds. Only processes that this object started."""
        if self.process.poll() is None:
            members = self.family()
            self.process.terminate()
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            deadline = time.monotonic() + 2
            while any(_is_ours(p, self.pid) for p in members) and time.monotonic() < deadline:
                time.sleep(0.02)
            for pid in members:
                if _is_ours(pid, self.pid):
                    os.kill(pid, signal.SIGKILL)


def _is_ours(pid, group):
    """True while `pid` runs in the session of the child we started."""
    try:
        fields = _stat(pid)
        return int(fields[3]) == group and fields[0] != "Z"
    except OSError:
        return False
