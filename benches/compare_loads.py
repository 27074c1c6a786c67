"""The loads: each does a fixed amount of work against one proxy and says how it went.

h2load, wrk or oha make the request loads. New TLS connections, downloads and idle connections are made here by worker
processes (`python3 compare_loads.py KIND …` prints one JSON object): Python's `ssl` never resumes a session unless told to,
so every handshake is a full one.
"""

import json
import os
import re
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from compare_proc import Failed
from compare_proxies import BIG, PATH, PLAIN, SECURE, client_context

LIMIT = 120  # seconds that any one load may take


@dataclass
class Outcome:
    done: int  # operations that ended as they should
    seconds: float
    p99: float | None  # seconds


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def run(argv, what):
    """Runs a generator in its own process group, bounded by LIMIT, and returns what it printed."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, errors = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{what}: {argv[0]} took longer than {LIMIT} s") from late
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise Failed(f"{what}: {' '.join(argv)} ended with {process.returncode}\n{out[-1000:]}{errors[-1000:]}")
    return out


# --- requests ---------------------------------------------------------------------------------------------------------


def h2load(proxy, secure, h2, requests, clients, streams, room):
    port, host = (proxy.https, SECURE) if secure else (proxy.http, PLAIN)
    log = Path(room) / "h2load.tsv"
    log.unlink(missing_ok=True)
    argv = ["h2load", "-n", str(requests), "-c", str(clients), "-t", "1", "-m", str(streams), f"--log-file={log}", f"--connect-to=127.0.0.1:{port}", "-T", "10", "-N", "10"]
    argv += ["--npn-list=h2"] if h2 else ["--h1"]
    out = run([*argv, f"{'https' if secure else 'http'}://{host}:{port}{PATH}"], proxy.name)
    seconds = re.search(r"finished in ([\d.]+)(us|ms|s|min)?\b", out)
    good = re.search(r"status codes: (\d+) 2xx", out)
    if not seconds or not good:
        raise Failed(f"{proxy.name}: h2load printed no result\n{out[-1000:]}")
    if int(good[1]) != requests:
        raise Failed(f"{proxy.name}: {good[1]} of {requests} answers were 2xx\n{out[-1000:]}")
    took = float(seconds[1]) * {"us": 1e-6, "ms": 1e-3, "min": 60}.get(seconds[2], 1)
    times = [int(line.rsplit("\t", 1)[1]) / 1e6 for line in log.read_text().splitlines()]
    log.unlink()
    return Outcome(requests, took, percentile(times, 0.99))


def wrk(proxy, secure, h2, requests, clients, streams, room):
    """wrk knows no count: it runs 5 s. HTTP/1.1 only."""
    if h2:
        return h2load(proxy, secure, h2, requests, clients, streams, room)
    port, host = (proxy.https, SECURE) if secure else (proxy.http, PLAIN)
    out = run(["wrk", "-t1", f"-c{clients}", "-d5s", "--latency", "-H", f"Host: {host}:{port}", f"{'https' if secure else 'http'}://127.0.0.1:{port}{PATH}"], proxy.name)
    total, p99 = re.search(r"(\d+) requests in ([\d.]+)s", out), re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    if not total or not p99 or "Non-2xx" in out or "Socket errors" in out:
        raise Failed(f"{proxy.name}: wrk met errors\n{out}")
    return Outcome(int(total[1]), float(total[2]), float(p99[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1}[p99[2]])


def oha(proxy, secure, h2, requests, clients, streams, room):
    port, host = (proxy.https, SECURE) if secure else (proxy.http, PLAIN)
    argv = [oha_binary(), "-n", str(requests), "-c", str(clients), "--no-tui", "--output-format", "json", "--insecure", "--connect-to", f"{host}:{port}:127.0.0.1:{port}"]
    argv += ["--http2", "-p", str(streams)] if h2 else []
    answer = json.loads(run([*argv, f"{'https' if secure else 'http'}://{host}:{port}{PATH}"], proxy.name))
    if answer["statusCodeDistribution"] != {"200": requests}:
        raise Failed(f"{proxy.name}: oha counted {answer['statusCodeDistribution']} {answer['errorDistribution']}, not {requests} × 200")
    return Outcome(requests, answer["summary"]["total"], answer["latencyPercentiles"]["p99"])


def cache():
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gateway-bench"


def oha_binary():
    return os.environ.get("OHA") or shutil.which("oha") or str(cache() / "bin" / "oha")


GENERATORS = {"h2load": h2load, "wrk": wrk, "oha": oha}


# --- what workers do --------------------------------------------------------------------------------------------------


def workers(kind, count, proxy, *arguments):
    """Runs `count` worker processes of one kind side by side and returns their reports."""
    argv = [sys.executable, __file__, kind, *map(str, arguments)]
    running = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(count)]
    reports = []
    try:
        deadline = time.monotonic() + LIMIT
        for one in running:
            out, errors = one.communicate(timeout=max(0.1, deadline - time.monotonic()))
            if one.returncode:
                raise Failed(f"{proxy.name}: worker {kind} failed\n{errors[-1500:]}")
            reports.append(json.loads(out))
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{proxy.name}: worker {kind} took longer than {LIMIT} s") from late
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
                one.wait()
    return reports


def merged(reports):
    times = [t for r in reports for t in r["times"]]
    return Outcome(len(times), max(r["end"] for r in reports) - min(r["start"] for r in reports), percentile(times, 0.99))


def handshakes(proxy, count, resumed):
    each = max(1, count // 4)
    return merged(workers("handshake", 4, proxy, proxy.https, each, int(resumed)))


def downloads(proxy, count, secure):
    return merged(workers("download", 1, proxy, proxy.https if secure else proxy.http, count, int(secure)))


def _handshake_worker(port, count, resumed):
    """One connection after the other: handshake, (for a ticket: one request,) orderly end, wait until the server has closed."""
    port, count, resumed = int(port), int(count), int(resumed)
    context, session, times, seen = client_context(), None, [], 0
    if resumed:
        session = _ticket(context, port)
    start = time.time()
    for _ in range(count):
        begun = time.perf_counter()
        raw = socket.create_connection(("127.0.0.1", port), 10)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = context.wrap_socket(raw, server_hostname=SECURE, session=session)
        times.append(time.perf_counter() - begun)
        seen += bool(tls.session_reused)
        tls.shutdown(socket.SHUT_WR)
        try:
            while tls.recv(65536):
                pass
        except OSError:
            pass
        tls.close()
    if seen != (count if resumed else 0):
        raise SystemExit(f"{seen} of {count} handshakes were resumed, wanted {'all' if resumed else 'none'}")
    return {"times": times, "start": start, "end": time.time()}


def _ticket(context, port):
    raw = socket.create_connection(("127.0.0.1", port), 10)
    with context.wrap_socket(raw, server_hostname=SECURE) as tls:
        tls.sendall(f"GET {PATH} HTTP/1.1\r\nHost: {SECURE}:{port}\r\nConnection: close\r\n\r\n".encode())
        while tls.recv(65536):
            pass
        return tls.session


def _download_worker(port, count, secure):
    port, count, secure = int(port), int(count), int(secure)
    times, buffer = [], bytearray(1 << 18)
    context = client_context() if secure else None
    start = time.time()
    for _ in range(count):
        begun = time.perf_counter()
        wire = socket.create_connection(("127.0.0.1", port), 10)
        host = SECURE if secure else PLAIN
        if context:
            wire = context.wrap_socket(wire, server_hostname=host)
        wire.sendall(f"GET /big HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            more = wire.recv(4096)
            if not more:
                raise SystemExit("closed before the headers were complete")
            head += more
        head, body = head.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(head.decode(errors="replace"))
        got = len(body)
        while got < BIG:
            size = wire.recv_into(buffer)
            if not size:
                raise SystemExit(f"closed after {got} of {BIG} bytes")
            got += size
        wire.close()
        times.append(time.perf_counter() - begun)
    return {"times": times, "start": start, "end": time.time()}


class IdleConnections:
    """Keep-alive connections of which each has been answered once; held open by a process of their own until `close`."""

    def __init__(self, proxy, count):
        self.proxy = proxy
        self.process = subprocess.Popen([sys.executable, __file__, "idle", str(proxy.http), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        watchdog = threading.Timer(LIMIT, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        if not line:
            self.process.kill()
            raise Failed(f"{proxy.name}: the idle connections could not be opened\n{self.process.communicate()[1][-1500:]}")

    def still_open(self):
        """Asks the holder how many the proxy has not closed."""
        self.process.stdin.write("count\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(20)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()


def _idle_worker(port, count):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    request = f"GET {PATH} HTTP/1.1\r\nHost: {PLAIN}:{port}\r\n\r\n".encode()
    held = []
    for _ in range(int(count)):
        wire = socket.create_connection(("127.0.0.1", int(port)), 10)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT left behind
        wire.sendall(request)
        answer = wire.recv(65536)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"connection {len(held)}: {answer[:200]!r}")
        held.append(wire)
    for wire in held:
        wire.setblocking(False)
    print("open", flush=True)
    for _ in sys.stdin:
        alive = 0
        for wire in held:
            try:
                while wire.recv(65536):
                    pass
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        print(alive, flush=True)


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    kind, *rest = sys.argv[1:]
    if kind == "idle":
        _idle_worker(*rest)
    else:
        print(json.dumps({"handshake": _handshake_worker, "download": _download_worker}[kind](*rest)))
