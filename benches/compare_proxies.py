"""The proxies under comparison: each writes its configuration for the same work and says how it is started.

`bare` proxies with the forwarded headers (X-Real-IP, X-Forwarded-For, -Proto, -Host), nothing else; gateway alone makes a request id
there too, as that cannot be turned off. `full` adds what a guarded site has: rate zone, bad-URI, bad-method and scanner filters, a
request id, security headers on every answer, metrics and a JSON access log. The zone admits everything: it is the work that is compared, not refusals.
"""

import http.client
import re
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from compare_proc import Child, Failed, free_port

PLAIN, SECURE = "plain.test", "secure.test"
PATH = "/api/v1/items?page=2&sort=name"
BODY = 925
BIG = 100 * 1024 * 1024

HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline'",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-XSS-Protection": "1; mode=block",
}
HSTS = "max-age=31536000; includeSubDomains"
# The four expressions by which the seeds' nginx refuses a URI, and the usual scanners' names.
BAD_URI = [
    r"(select|union|insert|drop|delete|update|--|;)",
    r"(<script|javascript:|vbscript:|onload|onerror)",
    r"(/\.git|/\.svn|/\.hg)",
    r"\.(asp|aspx|php|jsp)$",
]
SCANNERS = r"(sqlmap|nikto|nmap|masscan|zgrab|dirbuster|gobuster|wpscan|acunetix|nessus)"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@dataclass
class Setting:
    """What all proxies of one run share."""

    config: str  # "bare" | "full"
    workers: int
    connections: int  # accepted at once
    origin: int  # port
    cert: Path
    key: Path
    both: Path  # certificate and key in one file


class Proxy:
    """One proxy, started on two ports of its own."""

    name = ""
    program = ""

    def __init__(self, binary=None):
        self.binary = binary or shutil.which(self.program) or shutil.which(self.program, path="/usr/sbin:/sbin:/usr/local/sbin")
        self.child = None

    def version(self):
        raise NotImplementedError

    def prepare(self, setting, room):
        """Writes the configuration into `room`; returns (argv, environment)."""
        raise NotImplementedError

    def start(self, setting, room):
        room.mkdir(parents=True)
        room.chmod(0o755)
        self.http, self.https, self.extra = free_port(), free_port(), free_port()
        argv, env = self.prepare(setting, room)
        self.child = Child(self.name, argv, room / "stderr.log", env)
        self._await_ready(setting, room)

    def _await_ready(self, setting, room, patience=20.0):
        deadline = time.monotonic() + patience
        last = None
        while time.monotonic() < deadline:
            self.child.check_alive()
            try:
                answers = [ask(self.http, None, PLAIN)[0], ask(self.https, client_context(), SECURE)[0]]
                if answers == [200, 200]:
                    return self._check_work(setting, room)
                last = f"answers {answers}"
            except (OSError, http.client.HTTPException) as error:
                last = error
            time.sleep(0.05)
        tail = self.child.log.read_text(errors="replace")[-2000:]
        raise Failed(f"{self.name} was not ready within {patience:.0f} s ({last})\n{tail}")

    def access_log(self, room):
        """The files that hold its access log in `full`."""
        return [room / "access.log"]

    def _check_work(self, setting, room):
        """That it does what it is measured for: headers, refusals and log lines in `full`, none of the first two in `bare`."""
        for port, context, host in ((self.http, None, PLAIN), (self.https, client_context(), SECURE)):
            headers = ask(port, context, host)[1]
            wanted = {**HEADERS, **({"Strict-Transport-Security": HSTS} if context else {})}
            have = {name for name, value in wanted.items() if headers.get(name) == value}
            if have != (set(wanted) if setting.config == "full" else set()):
                raise Failed(f"{self.name}: {setting.config}: has of the headers only {sorted(have)}, wanted {sorted(wanted)}")
            refusals = [ask(port, context, host, path)[0] for path in ("/.git/config", "/?q=%3Cscript", "/?q=<script")]
            if setting.config == "full" and (refusals[0] < 400 or refusals[2] < 400) or setting.config == "bare" and refusals[0] != 200:
                raise Failed(f"{self.name}: {setting.config}: answers hostile URIs with {refusals}")
        if setting.config == "full":
            deadline = time.monotonic() + 5
            while sum(f.read_text(errors="replace").replace("\\/", "/").count(PATH.split("?")[0]) for f in self.access_log(room) if f.exists()) < 2:
                if time.monotonic() > deadline:
                    raise Failed(f"{self.name}: no access log line within 5 s in {self.access_log(room)}")
                time.sleep(0.05)

    def pids(self):
        self.child.check_alive()
        return self.child.family()

    def stop(self):
        if self.child:
            self.child.stop()
            self.child = None


def client_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def ask(port, context, host, path=PATH):
    """(status, headers) of one GET, with its own connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.connect()
    if context:
        connection.sock = context.wrap_socket(connection.sock, server_hostname=host)
    try:
        connection.request("GET", path, headers={"Host": f"{host}:{port}", "Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()


def tls_facts(port):
    """Version and cipher that the Python client and this proxy agree on."""
    import socket

    with socket.create_connection(("127.0.0.1", port), 5) as raw, client_context().wrap_socket(raw, server_hostname=SECURE) as tls:
        return f"{tls.version()} {tls.cipher()[0]}"


def first_line(argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    return (done.stdout + done.stderr).strip().splitlines()[0].strip()


class Nginx(Proxy):
    name = program = "nginx"

    def version(self):
        return first_line([self.binary, "-v"]).replace("nginx version: ", "")

    def prepare(self, s, room):
        full = s.config == "full"
        maps = guards = answers = secure = log = status = ""
        if full:
            maps = (
                "  limit_req_zone $binary_remote_addr zone=bench:10m rate=1000000r/s;\n"
                + "  map $request_uri $malicious { default 0;\n"
                + "".join(f'    "~*{expression}" 1;\n' for expression in BAD_URI)
                + "  }\n  map $http_user_agent $scanner { default 0;\n"
                + f'    "~*{SCANNERS}" 1;\n  }}\n'
                + "  map $request_method $bad_method { default 1; " + " ".join(f"{m} 0;" for m in METHODS) + " }\n"
                + "  log_format json escape=json '{\"time\":\"$time_iso8601\",\"id\":\"$request_id\",\"client\":\"$remote_addr\",\"site\":\"$host\","
                + '"method":"$request_method","uri":"$request_uri","protocol":"$server_protocol","status":$status,"received":$request_length,"sent":$bytes_sent,'
                + '"took":$request_time,"upstream":"$upstream_addr","upstream_took":"$upstream_response_time","referer":"$http_referer","agent":"$http_user_agent","tls":"$ssl_protocol"}\';\n'
            )
            log = f"    access_log {room}/access.log json buffer=32k flush=1s;\n"
            guards = (
                "    if ($malicious) { return 403; }\n    if ($scanner) { return 403; }\n    if ($bad_method) { return 405; }\n"
                "    limit_req zone=bench burst=100000 nodelay;\n"
            )
            answers = "".join(f'    add_header {k} "{v}" always;\n' for k, v in HEADERS.items()) + "    proxy_hide_header X-Powered-By;\n    add_header X-Request-Id $request_id always;\n"
            secure = f'    add_header Strict-Transport-Security "{HSTS}" always;\n'
            status = f"  server {{ listen 127.0.0.1:{self.extra}; access_log off; location / {{ stub_status; }} }}\n"
        site = (
            log + guards + answers
            + "    location / {\n"
            "      proxy_pass http://origin;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n"
            "      proxy_set_header Host $http_host;\n      proxy_set_header X-Real-IP $remote_addr;\n"
            "      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_set_header X-Forwarded-Proto $scheme;\n"
            "      proxy_set_header X-Forwarded-Host $http_host;\n"
            + ("      proxy_set_header X-Request-Id $request_id;\n" if full else "")
            + "      proxy_max_temp_file_size 0;\n    }\n"
        )
        (room / "nginx.conf").write_text(
            f"daemon off;\npid {room}/nginx.pid;\nerror_log stderr error;\nworker_processes {s.workers};\nworker_rlimit_nofile {s.connections + 2000};\n"
            f"events {{ worker_connections {s.connections + 1000}; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  server_tokens off;\n"
            + "".join(f"  {kind}_temp_path {room}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"  keepalive_timeout 300s;\n  keepalive_requests 100000000;\n{maps}"
            f"  upstream origin {{ server 127.0.0.1:{s.origin}; keepalive 32; keepalive_requests 100000000; }}\n"
            f"  server {{\n    listen 127.0.0.1:{self.http} backlog=4096 reuseport;\n    server_name {PLAIN};\n{site}  }}\n"
            f"  server {{\n    listen 127.0.0.1:{self.https} ssl http2 backlog=4096 reuseport;\n    server_name {SECURE};\n"
            f"    ssl_certificate {s.cert};\n    ssl_certificate_key {s.key};\n    ssl_protocols TLSv1.3;\n    ssl_session_cache shared:tls:10m;\n{secure}{site}  }}\n"
            f"{status}}}\n"
        )
        return [self.binary, "-p", str(room), "-e", "stderr", "-c", str(room / "nginx.conf")], None


class Haproxy(Proxy):
    name = program = "haproxy"

    def version(self):
        return re.sub(r"\s*-\s*https?://.*", "", first_line([self.binary, "-v"]))

    def prepare(self, s, room):
        full = s.config == "full"
        guards = secure = table = metrics = log = ""
        if full:
            tests = "".join(f"  http-request deny deny_status 403 if {{ url -m reg -i '{e}' }}\n" for e in BAD_URI)
            guards = (
                "  log global\n"
                + "  http-request track-sc0 src table zone\n  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 100000000 }\n"
                + f"  http-request deny deny_status 405 unless {{ method {' '.join(METHODS)} }}\n"
                + tests
                + f"  http-request deny deny_status 403 if {{ req.hdr(user-agent) -m reg -i '{SCANNERS}' }}\n"
                + "".join(f'  http-after-response set-header {k} "{v}"\n' for k, v in HEADERS.items())
                + "  http-after-response del-header Server\n  http-after-response del-header X-Powered-By\n"
                + '  log-format \'{"time":"%[date,ltime(%Y-%m-%dT%H:%M:%S)]","id":"%ID","client":"%ci","site":"%[capture.req.hdr(0),json(utf8s)]","method":"%HM",'
                '"uri":"%[capture.req.uri,json(utf8s)]","protocol":"%HV","status":%ST,"received":%U,"sent":%B,"took":%Ta,"upstream":"%s","upstream_took":%Tr,'
                '"agent":"%[capture.req.hdr(1),json(utf8s)]","tls":"%sslv"}\'\n'
                "  declare capture request len 64\n  declare capture request len 256\n  http-request capture req.hdr(host) id 0\n  http-request capture req.hdr(user-agent) id 1\n"
            )
            secure = f'  http-after-response set-header Strict-Transport-Security "{HSTS}"\n'
            table = "backend zone\n  stick-table type ip size 100k expire 60s store http_req_rate(1s)\n"
            metrics = f"frontend metrics\n  bind 127.0.0.1:{self.extra}\n  http-request use-service prometheus-exporter if {{ path /metrics }}\n"
            log = "  log stdout len 4096 format raw local0\n"
        forward = (
            ("  unique-id-format %{+X}o%ci%cp%fi%fp%Ts%rt%pid\n  unique-id-header X-Request-Id\n  http-after-response set-header X-Request-Id %[unique-id]\n" if full else "")
            + "  http-request set-header X-Real-IP %[src]\n  http-request set-header X-Forwarded-Proto PROTO\n"
            "  http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  option forwardfor\n  default_backend origin\n"
        )
        (room / "haproxy.cfg").write_text(
            f"global\n  nbthread {s.workers}\n  maxconn {s.connections}\n  no strict-limits\n{log}"
            "  ssl-default-bind-options ssl-min-ver TLSv1.3\n"
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 300s\n  timeout server 60s\n  timeout http-keep-alive 300s\n  option http-keep-alive\n  http-reuse always\n"
            f"  maxconn {s.connections}\n"
            f"frontend plain\n  bind 127.0.0.1:{self.http} backlog 4096\n{guards}{forward.replace('PROTO', 'http')}"
            f"frontend secure\n  bind 127.0.0.1:{self.https} backlog 4096 ssl crt {s.both} alpn h2,http/1.1\n{guards}{secure}{forward.replace('PROTO', 'https')}"
            f"backend origin\n  server one 127.0.0.1:{s.origin}\n{table}{metrics}"
        )
        return [self.binary, "-db", "-f", str(room / "haproxy.cfg")], None

    def access_log(self, room):
        return [room / "stderr.log"]


class Caddy(Proxy):
    name = program = "caddy"

    def version(self):
        return "caddy " + first_line([self.binary, "version"]).split()[0]

    def prepare(self, s, room):
        full = s.config == "full"
        guards = metrics = ""
        if full:
            block = "".join(f"  @bad{n} vars_regexp bad{n} {{http.request.orig_uri}} (?i){e}\n  respond @bad{n} 403\n" for n, e in enumerate(BAD_URI))
            guards = (
                "\n  header {\n" + "".join(f'    {k} "{v}"\n' for k, v in HEADERS.items()) + "    -Server\n    -X-Powered-By\n  }\n"
                f"{block}  @scanner header_regexp agent User-Agent (?i){SCANNERS}\n  respond @scanner 403\n"
                f"  @method not method {' '.join(METHODS)}\n  respond @method 405\n"
                f"  log {{\n    output file {room}/access.log {{\n      roll_disabled\n    }}\n    format json\n  }}\n"
            )
            metrics = "    metrics\n"
        forward = (
            ("  header X-Request-Id {http.request.uuid}\n" if full else "")
            + f"  reverse_proxy 127.0.0.1:{s.origin} {{\n    header_up X-Real-IP {{remote_host}}\n"
            + ("    header_up X-Request-Id {http.request.uuid}\n" if full else "")
            + "    transport http {\n      keepalive_idle_conns_per_host 128\n    }\n  }\n"
        )
        (room / "Caddyfile").write_text(
            "{\n  admin off\n  auto_https off\n  grace_period 1s\n  log {\n    level ERROR\n  }\n"
            f"  servers {{\n    protocols h1 h2\n    timeouts {{\n      idle 300s\n    }}\n{metrics}  }}\n}}\n"
            f"http://{PLAIN}:{self.http} {{\n  bind 127.0.0.1{guards}\n{forward}}}\n"
            f"https://{SECURE}:{self.https} {{\n  bind 127.0.0.1\n  tls {s.cert} {s.key} {{\n    protocols tls1.3\n  }}{guards}\n"
            + (f'  header Strict-Transport-Security "{HSTS}"\n' if full else "")
            + f"{forward}}}\n"
        )
        env = {"GOMAXPROCS": str(s.workers), "XDG_DATA_HOME": str(room), "XDG_CONFIG_HOME": str(room), "HOME": str(room)}
        return [self.binary, "run", "--config", str(room / "Caddyfile"), "--adapter", "caddyfile"], env


class Gateway(Proxy):
    name = program = "gateway"

    def version(self):
        return first_line([self.binary, "--version"])

    def prepare(self, s, room):
        full = s.config == "full"
        common = 'upstream = "origin"\n' + ('zone = "bench"\n' if full else 'headers = "off"\nfilters = []\n')
        log = f'[log]\nlevel = "warn"\ndir = "{room}/logs"\naccess = {{ format = "json" }}\nrotate = {{ size = "100GB", age = "1d", keep = 2 }}\n' if full else '[log]\nlevel = "warn"\n'
        (room / "gateway.toml").write_text(
            f'state = "{room}/state"\nrun = "{room}/run"\nworkers = {s.workers}\n'
            f'[listen]\nhttp = ["127.0.0.1:{self.http}"]\nhttps = ["127.0.0.1:{self.https}"]\nmax_connections = {s.connections}\n'
            '[timeouts]\nidle = "300s"\n[tls]\nmin = "1.3"\n'
            f'[admin]\nlisten = "{f"127.0.0.1:{self.extra}" if full else "off"}"\n{log}'
            + ('[zone.bench]\nkey = "ip"\nrate = "1000000r/s"\nburst = 100000\n' if full else "")
            + f'[upstream.origin]\nservers = ["127.0.0.1:{s.origin}"]\n'
            f'[[site]]\nhost = "{PLAIN}"\ntls = "off"\n{common}'
            f'[[site]]\nhost = "{SECURE}"\ntls = {{ cert = "{s.cert}", key = "{s.key}" }}\n{common}'
        )
        return [self.binary, "-c", str(room / "gateway.toml")], None

    def access_log(self, room):
        return [room / "logs" / "access.log"]


ALL = {p.name: p for p in (Nginx, Haproxy, Caddy, Gateway)}


class Origin:
    """The one server behind all proxies: nginx, one worker, 925 bytes from memory and 100 MB from a file. Its CPU is not counted."""

    def __init__(self, binary, room):
        room.mkdir(parents=True)
        room.chmod(0o755)
        self.port = free_port()
        with open(room / "big", "wb") as big:
            big.truncate(BIG)
        (room / "big").chmod(0o644)
        text = "x" * BODY
        (room / "nginx.conf").write_text(
            f"daemon off;\npid {room}/nginx.pid;\nerror_log stderr error;\nworker_processes 1;\nworker_rlimit_nofile 15000;\nevents {{ worker_connections 14000; }}\n"
            "http {\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_timeout 300s;\n  keepalive_requests 100000000;\n"
            + "".join(f"  {kind}_temp_path {room}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"  server {{ listen 127.0.0.1:{self.port} backlog=4096; root {room}; location = /big {{ }}\n"
            f'    location / {{ default_type text/plain; return 200 "{text}"; }} }}\n}}\n'
        )
        self.child = Child("origin", [binary, "-p", str(room), "-e", "stderr", "-c", str(room / "nginx.conf")], room / "stderr.log")
        deadline = time.monotonic() + 10
        while True:
            self.child.check_alive()
            try:
                if ask(self.port, None, PLAIN)[0] == 200:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise Failed("the origin was not ready within 10 s")
            time.sleep(0.02)

    def stop(self):
        self.child.stop()
