#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico doctor, link by link, as TAP: in a network namespace with an address of the internet's, and with /etc/hosts,
/etc/resolv.conf and a name server of the test's own, each site has one link broken, and is told that one and what to
do. Usage: doctor_test.py PORTICO."""
import datetime
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
import network as net  # noqa: E402 (beside this file)
from certificates import Authority  # noqa: E402
from server import free_port, has, run_tests, same  # noqa: E402

PORTICO = os.path.abspath(sys.argv[1])
OWN, OTHER = "203.0.113.7", "203.0.113.99"
HOSTS = {"good.example": OWN, "moved.example": OTHER, "both.example": OWN, "here.example": "127.0.0.1",
         "shut.example": OWN, "plain.example": OWN, "taken.example": OWN, "old.example": OWN, "young.example": OWN,
         "late.example": OWN, "wrong.example": OWN, "dead.example": OWN, "socket.example": OWN, "office.test": OWN,
         "up.example": OWN, "none.example": OWN}


def day(days):
    return (datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


class NameServer:
    """Says that no name exists, or nothing at all."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            asked, who = self.socket.recvfrom(512)
            if b"silent" not in asked:
                self.socket.sendto(asked[:2] + b"\x81\x83" + asked[4:6] + bytes(6) + asked[12:], who)


class World:
    def __init__(self, folder):
        self.folder, self.authority = folder, Authority("Doctor Root")
        self.port = {name: free_port() for name in HOSTS}
        self.admin, self.gone, self.alive = free_port(), free_port(), free_port()
        for name, where in (("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")):
            with open(f"{folder}/{name}", "w", encoding="ascii") as f:
                f.write("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in HOSTS.items()) + f"{OTHER} both.example\n"
                        if name == "hosts" else "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
            subprocess.run(["mount", "--bind", f"{folder}/{name}", where], check=True)
        subprocess.run(["sh", "-ec", f"ip link add out type veth peer name far; ip addr add {OWN}/24 dev out;"
                                     "ip link set out up; ip link set far up; ip route add default dev out"], check=True)
        subprocess.run(["nft", "-f", "-"], input=self.rules(), text=True, check=True)
        self.taken = socket.create_server(("0.0.0.0", self.port["taken.example"]))
        self.upstream = socket.create_server(("127.0.0.1", self.alive))
        self.names = NameServer()
        self.document = f"{folder}/Caddyfile"
        with open(self.document, "w", encoding="ascii") as f:
            f.write(self.caddyfile())
        self.env = dict(os.environ, HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder, PORTICO_WORKERS="1",
                        SSL_CERT_FILE=self.authority.root, CADDY_ADMIN=f"localhost:{self.admin}")
        self.log = open(f"{folder}/log", "w+", encoding="utf-8")
        self.process = subprocess.Popen([PORTICO, "run", "--config", self.document], stdout=self.log, env=self.env,
                                        stdin=subprocess.DEVNULL, stderr=self.log, cwd=folder)
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < end, self.text()
            time.sleep(0.05)

    def rules(self):
        return ("table inet fw {\n chain input {\n type filter hook input priority 0; policy accept;\n iif lo accept\n"
                f" tcp dport {self.port['shut.example']} drop\n tcp dport {self.port['office.test']} drop\n"
                f" tcp dport {self.port['plain.example']} ip saddr != 10.0.0.0/8 drop\n }}\n}}\n")

    def caddyfile(self):
        leaf = self.authority.leaf
        certificates = {
            "good.example": leaf("good.example", "DNS:good.example"),
            "old.example": leaf("old.example", "DNS:old.example", expired=True),
            "young.example": leaf("young.example", "DNS:young.example", dates=(day(3), day(30))),
            "late.example": leaf("late.example", "DNS:late.example", dates=(day(-80), day(4.5))),
            "wrong.example": leaf("other.example", "DNS:other.example")}
        text = f"{{\n\tadmin localhost:{self.admin}\n\tauto_https off\n}}\n"
        for name, port in self.port.items():
            body = {"dead.example": f"reverse_proxy 127.0.0.1:{self.gone}",
                    "socket.example": f"reverse_proxy unix/{self.folder}/none.sock",
                    "up.example": f"respond /x ok\n\treverse_proxy /api 127.0.0.1:{self.alive}"}.get(name, "respond ok")
            tls = "\n\ttls " + " ".join(certificates[name]) if name in certificates else ""
            if name not in ("taken.example", "none.example"):
                text += f"{'https' if tls else 'http'}://{name}:{port} {{{tls}\n\t{body}\n}}\n"
        return text

    def extended(self):
        """With sites that the running one could not have."""
        path = f"{self.folder}/Caddyfile.more"
        with open(path, "w", encoding="ascii") as f:
            f.write(self.caddyfile() + "".join(f"http://{n}:{self.port.get(n, p)} {{\n\trespond ok\n}}\n" for n, p in (
                ("taken.example", 0), ("none.example", 0), ("nowhere.example", self.port["up.example"]),
                ("silent.example", self.port["up.example"]))))
        return path

    def answers(self):
        try:
            socket.create_connection(("localhost", self.admin), 5).close()
            return True
        except OSError:
            return False

    def text(self):
        with open(f"{self.folder}/log", encoding="utf-8", errors="replace") as f:
            return f.read()

    def doctor(self, site, config=None):
        done = subprocess.run([PORTICO, "doctor", site, "--this-namespace", "--json", "--config", config or self.document],
                              env=self.env, capture_output=True, text=True, timeout=120, check=False, cwd=self.folder)
        assert "Sanitizer" not in done.stderr and done.stdout, done.stderr
        links = {link["name"]: link for link in json.loads(done.stdout)["sites"][0]["links"]}
        broken = sorted(n for n, link in links.items() if link["state"] == "broken")
        same(done.returncode, 1 if broken else 0)
        return links, broken

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert "Sanitizer" not in self.text(), self.text()[-4000:]


def only(world, site, link, *words, config=None, state="broken", advice=()):
    """This link is so, with these words; and no other is broken."""
    links, broken = world.doctor(site, config)
    same((links[link]["state"], broken), (state, [link] if state == "broken" else []))
    has(links[link]["text"], *words)
    has(links[link]["advice"] or "", *advice)
    return links


def whole(w):
    """a whole chain is whole"""
    links, broken = w.doctor("good.example")
    same((broken, {link["state"] for link in links.values()}), ([], {"ok"}))
    has(links["TLS"]["text"], "Doctor Root", "days")
    same(w.doctor("up.example")[0]["upstream"]["state"], "ok")


def names(w):
    """DNS: another machine's address, one of two, only /etc/hosts', none, no name server"""
    only(w, "moved.example", "DNS", OTHER, "no address of this machine", advice=("A and AAAA records",))
    only(w, "both.example", "DNS", "1 are not this machine's", state="note")
    only(w, "here.example", "DNS", "127.0.0.1", "what others get is not seen", state="note", advice=("another machine",))
    more = w.extended()
    only(w, "nowhere.example", "DNS", "no address", config=more, advice=("Add an A or AAAA record",))
    only(w, "silent.example", "DNS", "could not be asked for", config=more, advice=("/etc/resolv.conf",))


def firewall(w):
    """firewall: shut for all, for some, for a name that is not the internet's"""
    only(w, "shut.example", "firewall", "only this device", advice=("open the port in the firewall",))
    only(w, "plain.example", "firewall", "only some networks", state="note")
    only(w, "office.test", "firewall", "only this device", state="note", advice=("portico ports explain",))


def ports(w):
    """port: another program has it, nobody has it"""
    more = w.extended()
    links = only(w, "taken.example", "port", "python3", f"listens on port {w.port['taken.example']}", config=more,
                 advice=("Stop that program",))
    same((links["route"]["state"], links["route"]["text"]), ("skipped", "another program answers"))
    links = only(w, "none.example", "port", "nobody listens", config=more, advice=("portico reload",))
    same((links["firewall"]["state"], links["route"]["state"]), ("skipped", "skipped"))


def certificates(w):
    """TLS: over, not valid yet (the clock), over soon, for another name"""
    only(w, "old.example", "TLS", "over since 2020-02-01", advice=("why it was not renewed",))
    only(w, "young.example", "TLS", "is valid from", "and it is", advice=("clock",))
    only(w, "late.example", "TLS", "is over in 4 days", state="note", advice=("not renewed yet",))
    only(w, "wrong.example", "TLS", "is for other.example", "not for wrong.example", advice=("for its name",))


def upstreams(w):
    """upstream: nobody listens, no such socket; the route says so, too"""
    links = only(w, "dead.example", "upstream", f"127.0.0.1:{w.gone}", "refused", advice=("Start the program",))
    same(links["route"]["state"], "note")
    has(links["route"]["text"], "502")
    only(w, "socket.example", "upstream", "none.sock", "No such file", advice=("Start the program",))


TESTS = (whole, names, firewall, ports, certificates, upstreams)


def inside(folder):
    world = World(folder)
    try:
        return run_tests([(test.__doc__, lambda test=test: test(world)) for test in TESTS], "") > 0
    finally:
        world.end()


def main():
    folder = os.environ.get("DOCTOR_TEST_FOLDER")
    if folder is not None:
        return inside(folder)
    why = "only root can mount" if os.geteuid() != 0 else net.may()
    if why is not None:
        print(f"1..0 # SKIP {why}")
        return 0
    with tempfile.TemporaryDirectory(prefix="portico-doctor-") as folder:
        os.chmod(folder, 0o755)
        return subprocess.run(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec",
                               'ip link set lo up; exec "$@"', "sh", sys.executable, *sys.argv], check=False,
                              env={**os.environ, "DOCTOR_TEST_FOLDER": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
