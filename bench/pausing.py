# SPDX-License-Identifier: Apache-2.0
"""The scene "pausing" of bench/run: four upstreams, of which one neither reads nor answers for 100 ms of every
second, behind gateways that balance by requests under way; open loop (open.c), which is the upstreams, too."""
import contextlib
import json
import os
import statistics

SECONDS = 2
CONNECTIONS = 64
PORTICO = ("least_conn", "p2c_ewma", "random_choose")
NGINX = """daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid TMP/nginx.pid;
error_log TMP/nginx-error.log crit;
events { worker_connections 16384; multi_accept on; }
http {
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    upstream up { least_conn; SERVERS keepalive 128; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:PORT reuseport backlog=4096;
        location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
"""
HAPROXY = """global
    nbthread 1
    maxconn 9500
    tune.maxaccept 64
defaults
    mode http
    timeout client 300s
    timeout server 300s
    timeout connect 5s
    timeout http-keep-alive 300s
    option http-keep-alive
    http-reuse always
frontend gateway
    bind 127.0.0.1:PORT backlog 4096
    default_backend up
backend up
    balance leastconn
"""


def portico(policy, port, upstreams):
    handler = {"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{u}"} for u in upstreams],
               "load_balancing": {"selection_policy": {"policy": policy}}}
    return json.dumps({"admin": {"disabled": True}, "apps": {"http": {"servers": {"gateway": {
        "listen": [f"127.0.0.1:{port}"], "routes": [{"handle": [handler]}]}}}}})


def configuration(name, port, upstreams, folder):
    if name == "nginx":
        servers = " ".join(f"server 127.0.0.1:{u} max_fails=0;" for u in upstreams)
        return NGINX.replace("SERVERS", servers).replace("PORT", str(port)).replace("TMP", folder)
    if name == "haproxy":
        return HAPROXY.replace("PORT", str(port)) + "".join(
            f"    server up{i} 127.0.0.1:{u} pool-max-conn -1\n" for i, u in enumerate(upstreams))
    return portico(name.split()[1], port, upstreams)


class Gateway:
    """A server under test with a configuration of this scene."""

    def __init__(self, run, bench, name, upstreams):
        self.run, self.bench, self.name, self.port = run, bench, name, run.free_port()
        self.server = run.Server(name.split()[0], bench)
        path = os.path.join(self.server.tmp, "pausing.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(configuration(name, self.port, upstreams, self.server.tmp))
        self.server.argv = [a if not a.endswith(".conf") else path for a in self.server.argv]

    @contextlib.contextmanager
    def up(self):
        self.bench.running.append(self.server)
        try:
            self.server.start()
            self.server.await_port(self.port)
            yield self
        finally:
            self.server.stop()
            self.bench.running.remove(self.server)


def names_of(bench):
    names = [n for n in ("nginx", "haproxy") if n in bench.names]
    return ([f"portico {policy}" for policy in PORTICO] if "portico" in bench.names else []) + names


def scene(run, bench):
    tops = [bench.rates.get("gateway", {}).get(n) for n in ("haproxy", "nginx", "portico")]
    top = next((t for t in tops if t), None)
    if not (top or bench.args.rate):
        bench.say("skipped: pausing, which needs the scene gateway before it, or --rate")
        return
    rate = bench.args.rate or int(top / 2)
    upstreams = [run.free_port() for _ in range(4)]
    found = {}
    with contextlib.ExitStack() as stack:
        alive = []
        for name in names_of(bench):
            try:
                alive.append(stack.enter_context(Gateway(run, bench, name, upstreams).up()))
            except (run.BenchError, OSError) as e:
                bench.error(f"{name}, pausing: {e}")
        first = all([run.real_time(g.server.process.pid) for g in alive])
        for _ in range(bench.rounds * 2):
            for g in run.shuffled(alive):
                try:
                    found.setdefault(g.name, []).append(
                        bench.tool("open", "-w", run.WITNESSES, g.port, "/", CONNECTIONS, SECONDS, rate,
                                   *upstreams, limit=SECONDS + 30, first=first))
                except run.BenchError as e:
                    bench.error(f"{g.name}, pausing: {e}")
    peer = [statistics.median(r["p999_us"] for r in found[n]) for n in ("haproxy",) if found.get(n)]
    rows = [[n] + [f"{statistics.median(r[k] for r in runs):.0f}"
                   for k in ("p50_us", "p99_us", "p999_us", "max_us", "paused", "lost")] +
            [f"{statistics.median(r['p999_us'] for r in runs) / peer[0]:.2f}" if peer else "-",
             f"{run.tenths(runs)[0]:.0f}"] + run.tell_quiet(runs)
            for n in names_of(bench) if (runs := found.get(n))]
    bench.table(f"one of four upstreams pauses 100 ms every second, {rate} requests/s, us; "
                + ("servers and load under SCHED_FIFO" if first else "ordinary scheduling"),
                ["server", "p50", "p99", "p99.9", "max", "requests held by the pauses", "lost",
                 "p99.9 / haproxy's", "p99.9 of tenths of a second: median"] + run.QUIET, rows)
