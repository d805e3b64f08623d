#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""`portico ports` beside `ss`, `lsof` and a connect scan, over layouts that chance makes: sockets of
TCP and UDP on several addresses of IPv4, IPv6 and both, in one to three network namespaces, of
several processes and users, alone, shared and in SO_REUSEPORT groups, with connections and connected
sockets between them. As TAP. Usage: ports_agreement_test.py PORTICO. PORTICO_LAYOUTS is how many (6),
PORTICO_SEED where chance begins."""
import ctypes
import errno
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

PORTICO = os.path.abspath(sys.argv[1])
LAYOUTS = int(os.environ.get("PORTICO_LAYOUTS", "6"))
SEED = int(os.environ.get("PORTICO_SEED", str(random.randrange(1 << 32))))
NEWNET, NEWNS, PRIVATE = 0x40000000, 0x00020000, (1 << 18) | (1 << 14)
FOUR = ["127.0.0.1", "127.0.0.2", "192.0.2.7"]
SIX = ["::1", "2001:db8::7"]
BOUND = FOUR + SIX + ["0.0.0.0", "0.0.0.0", "::", "::", "::ffff:127.0.0.1"]
libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def why_not():
    """Why this machine cannot run it, or None."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("ss", "lsof", "ip"):
        if shutil.which(tool) is None and not os.path.exists(f"/usr/sbin/{tool}"):
            return f"{tool} is not installed"
    try:
        call("unshare", NEWNET | NEWNS)
        call("mount", b"none", b"/", None, PRIVATE, None)
        os.makedirs("/run/netns", exist_ok=True)
        call("mount", b"netns", b"/run/netns", b"tmpfs", 0, None)
    except OSError as e:
        return f"no right to make namespaces ({e})"
    return None


def ip(*words):
    subprocess.run(["ip", *words], check=True, stdout=subprocess.DEVNULL)


def furnish(namespace):
    """Addresses for the namespace that we are in ("") or for a named one."""
    where = ["-n", namespace] if namespace else []
    ip(*where, "link", "set", "lo", "up")
    ip(*where, "address", "add", "192.0.2.7/24", "dev", "lo")
    ip(*where, "-6", "address", "add", "2001:db8::7/64", "dev", "lo", "nodad")


def enter(namespace):
    if namespace:
        fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        call("setns", fd, NEWNET)
        os.close(fd)


def inside(namespace, *command):
    if namespace:
        command = ("nsenter", f"--net=/run/netns/{namespace}", *command)
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True).stdout


class Holder:
    """A process that opens sockets in a namespace and waits; `made` are those that it could."""

    def __init__(self, namespace, wishes, user, children):
        ours, its = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                ours.close()
                self.hold(namespace, wishes, user, children, its)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        its.close()
        self.namespace = namespace
        answer = b""
        while part := ours.recv(65536):
            answer += part
        self.made, self.pids = json.loads(answer)

    @staticmethod
    def hold(namespace, wishes, user, children, its):
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        enter(namespace)
        if user:
            os.setuid(user)
            libc.prctl(1, signal.SIGKILL)
        kept, made, pids = [], [], [os.getpid()]
        for wish in wishes:
            opened = open_wish(wish, kept)
            if opened:
                made.append(opened)
        for _ in range(children):
            pid = os.fork()
            if pid == 0:
                libc.prctl(1, signal.SIGKILL)
                its.close()
                signal.pause()
            pids.append(pid)
        its.sendall(json.dumps([made, pids]).encode())
        its.close()
        signal.pause()

    def end(self):
        for pid in reversed(self.pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        os.waitpid(self.pid, 0)


def open_wish(wish, kept):
    """Opens what is wished; None when the kernel refuses, as it may by chance."""
    six = ":" in wish["address"]
    kind = socket.SOCK_STREAM if wish["protocol"] == "tcp" else socket.SOCK_DGRAM
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, kind)
    try:
        if six:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(wish["v6only"]))
        if wish["reuse"]:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if wish["device"]:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
        s.bind((wish["address"], wish["port"]))
        if wish["use"] == "listen" and kind == socket.SOCK_STREAM:
            s.listen(1024)
        elif wish["use"] == "connect":
            s.connect(("::1" if six else "127.0.0.1", 9))
    except OSError:
        if wish["use"] != "connect":
            s.close()
            return None
    kept.append(s)
    if wish["use"] == "client":  # a connection of its own: neither end is a port
        a = socket.socket()
        a.connect(("127.0.0.1", s.getsockname()[1]))
        kept.append(a)
        kept.append(s.accept()[0])
    return {**wish, "port": s.getsockname()[1]}


def wish_of(chance, ports):
    address = chance.choice(BOUND)
    protocol = chance.choice(["tcp", "tcp", "udp"])
    uses = ["listen"] * 8 + (["idle"] if protocol == "tcp" else ["connect"])
    use = chance.choice(uses)
    return {"protocol": protocol, "address": address, "use": use,
            "port": 0 if use == "idle" else chance.choice(ports + [0, 0]), # so that rows are not mixed
            "v6only": address == "::" and chance.random() < 0.5,
            "reuse": chance.random() < 0.5, "device": chance.random() < 0.1}


class Layout:
    def __init__(self, chance):
        self.namespaces = ["", "blue", "red"][:chance.randint(1, 3)]
        self.ports = chance.sample(range(2000, 30000), 12)
        self.holders = []
        for namespace in self.namespaces[1:]:
            ip("netns", "add", namespace)
            furnish(namespace)
        for namespace in self.namespaces:
            for _ in range(chance.randint(1, 4)):
                wishes = [wish_of(chance, self.ports) for _ in range(chance.randint(1, 8))]
                user = chance.choice([0, 0, 65534, 12345])
                self.holders.append(Holder(namespace, wishes, user, chance.choice([0, 0, 0, 2])))

    def end(self):
        for h in self.holders:
            h.end()
        for namespace in self.namespaces[1:]:
            ip("netns", "delete", namespace)


# ---- what each tool says: {(protocol, family, address, port): (sockets, owners)} per namespace

def portico_says(namespaces):
    text = subprocess.run([PORTICO, "ports", "--json"], stdout=subprocess.PIPE, check=True).stdout
    said = {n: [] for n in namespaces}
    for p in json.loads(text)["ports"]:
        namespace = p["namespace"] or ""
        if namespace in said and p["owners"]:
            said[namespace].append((p["protocol"], p["family"], p["address"], p["port"],
                                         tuple(sorted(o["pid"] for o in p["owners"]))))
    return {n: sorted(rows) for n, rows in said.items()}


def ss_says(namespace):
    rows = {}
    for line in inside(namespace, "ss", "-H", "-tulnp").splitlines():
        protocol, _, _, _, local, _, *users = line.split(None, 6)
        address, port = local.rsplit(":", 1)
        address, _, device = address.partition("%")
        address = address.strip("[]")
        family = "ip6" if ":" in address else "ip4"
        if address == "*":
            family, address = "dual", "::"
        mapped = family == "ip6" and ipaddress.ip_address(address).ipv4_mapped
        if mapped:
            family, address = "ip4", str(mapped)
        pids = {int(n) for n in re.findall(r"pid=(\d+)", users[0] if users else "")}
        rows.setdefault((protocol, family, address, int(port), device), set()).update(pids)
    return sorted((*key[:4], tuple(sorted(pids))) for key, pids in rows.items())


def lsof_says(namespace):
    """(protocol, IPv4 or IPv6 of a wildcard, address, port, pid)"""
    said, pid = set(), 0
    kind = protocol = name = state = ""
    for line in inside(namespace, "lsof", "-nP", "-i", "-FpftPnT").splitlines() + ["f"]:
        tag, rest = line[0], line[1:]
        if tag in "pf":
            if name and "->" not in name and (protocol == "UDP" or state == "LISTEN"):
                address, port = name.rsplit(":", 1)
                said.add((protocol.lower(), kind if address == "*" else "", address.strip("[]"),
                          int(port), pid))
            kind = protocol = name = state = ""
        if tag == "p":
            pid = int(rest)
        elif tag == "t":
            kind = rest
        elif tag == "P":
            protocol = rest
        elif tag == "n":
            name = rest
        elif tag == "T" and rest.startswith("ST="):
            state = rest[3:]
    return sorted(said)


def as_lsof(rows):
    """What lsof would say of portico's rows."""
    said = set()
    for protocol, family, address, port, pids in rows:
        wild = address in ("0.0.0.0", "::")
        kind = ("IPv4" if family == "ip4" else "IPv6") if wild else ""
        for pid in pids:
            said.add((protocol, kind, "*" if wild else address, port, pid))
    return sorted(said)


def is_open(protocol, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        if protocol == "tcp":
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.settimeout(5)
        try:
            s.connect((address, port))
            if s.getsockname()[:2] == (address, port):
                return False  # the port that the kernel gave us by chance: we spoke to ourselves
            if protocol == "udp":
                s.send(b"")
                s.setblocking(False)
                s.recv(1)
        except BlockingIOError:
            return True
        except OSError as e:
            if e.errno == errno.ECONNREFUSED:
                return False
            raise
    return True


def scan(namespace, targets):
    """Those of (protocol, address, port) that answer, from inside the namespace."""
    ours, its = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            enter(namespace)
            its.sendall(json.dumps([is_open(*t) for t in targets]).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    its.close()
    answer = b""
    while part := ours.recv(65536):
        answer += part
    os.waitpid(pid, 0)
    return {t for t, opened in zip(targets, json.loads(answer)) if opened}


def answers(rows, idle, protocol, address, port):
    """Whether a connection should be taken, by portico's rows."""
    for p, family, bound, number, _ in rows:
        if (p, number) != (protocol, port) or (p, family, bound, number) in idle:
            continue
        if ":" in address:
            taken = family == "dual" or family == "ip6" and bound in (address, "::")
        else:
            taken = family == "dual" or family == "ip4" and bound in (address, "0.0.0.0")
        if taken:
            return True
    return False


# ---- the comparison

def normal(wish):
    address, family = wish["address"], "ip6" if ":" in wish["address"] else "ip4"
    if address.startswith("::ffff:"):
        address, family = address[7:], "ip4"
    if address == "::" and not wish["v6only"]:
        family = "dual"
    return (wish["protocol"], family, address, wish["port"])


def idle_rows(layout, namespace):
    """TCP rows in which nobody listens: only portico tells them."""
    idle, listening = set(), set()
    for h in layout.holders:
        for wish in h.made if h.namespace == namespace else []:
            (idle if wish["use"] == "idle" else listening).add(normal(wish))
    return idle - listening


def difference(what, left, right):
    return f"{what}: only portico {sorted(set(left) - set(right))}, only it {sorted(set(right) - set(left))}"


def compare(layout, chance):
    faults = []
    said = portico_says(layout.namespaces)
    for namespace in layout.namespaces:
        idle = idle_rows(layout, namespace)
        rows = said[namespace]
        listening = [r for r in rows if r[:4] not in idle]
        others, files = ss_says(namespace), lsof_says(namespace)
        if listening != others:
            faults.append(difference(f"ss in {namespace!r}", listening, others))
        if as_lsof(listening) != files:
            faults.append(difference(f"lsof in {namespace!r}", as_lsof(listening), files))
        ports = layout.ports + [r[3] for r in rows] + chance.sample(range(1, 65536), 30)
        targets = [(p, a, n) for p in ("tcp", "udp") for a in FOUR + SIX for n in sorted(set(ports))]
        opened = scan(namespace, targets)
        for t in targets:
            if answers(rows, idle, *t) != (t in opened):
                again = t in scan(namespace, [t])  # the kernel counts its refusals, and stops some
                if answers(rows, idle, *t) != again:
                    faults.append(f"scan in {namespace!r}: {t} is {'open' if again else 'shut'}")
    return faults


def main():
    reason = why_not()
    if reason:
        print(f"ok 1 - portico, ss, lsof and a scan agree # SKIP {reason}\n1..1")
        return 0
    furnish("")
    failed, sockets = [], 0
    started = time.monotonic()
    for number in range(LAYOUTS):
        chance = random.Random(SEED + number)
        layout = Layout(chance)
        try:
            sockets += sum(len(h.made) for h in layout.holders)
            for fault in compare(layout, chance):
                failed.append(f"layout {SEED + number}: {fault}")
        finally:
            layout.end()
    print(f"{'not ok' if failed else 'ok'} 1 - portico, ss, lsof and a connect scan agree over {LAYOUTS} "
          f"layouts ({sockets} sockets)\n1..1")
    for line in failed[:40]:
        print(f"# {line}")
    print(f"# PORTICO_SEED={SEED}, {time.monotonic() - started:.1f} s")
    return 1 if failed else 0


sys.exit(main())
