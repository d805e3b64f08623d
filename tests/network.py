# SPDX-License-Identifier: Apache-2.0
"""Network namespaces that a test makes: each is a process of its own that stands inside, runs commands
there and makes connections. They end with the test; nothing of them is left on the machine."""
import ctypes
import errno
import json
import os
import select
import signal
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000
FIRST_PORT, LAST_PORT = 10000, 32000  # whence probes go


def may():
    """Why it cannot be done here; None: it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for program in ("ip", "nft"):
        if not any(os.access(os.path.join(d, program), os.X_OK)
                   for d in os.environ.get("PATH", "").split(":") + ["/usr/sbin", "/sbin"]):
            return f"{program} is not installed"
    pid = os.fork()
    if pid == 0:
        good = ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
        good = good and subprocess.run(["nft", "add", "table", "inet", "x"], capture_output=True,
                                       check=False).returncode == 0
        os._exit(0 if good else 1)
    return None if os.waitpid(pid, 0)[1] == 0 else "no nftables in a network namespace here"


class Room:
    """A namespace. Calls are answered by the process inside."""

    def __init__(self):
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.pid = os.fork()
        if self.pid == 0:
            here.close()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            end_with_parent()
            if ctypes.CDLL(None).unshare(CLONE_NEWNET) != 0:
                os._exit(1)
            Inside(there).serve()
            os._exit(0)
        there.close()
        self.wire = here.makefile("rw")
        self.sh("ip link set lo up")

    def call(self, what, **more):
        self.wire.write(json.dumps(dict(more, what=what)) + "\n")
        self.wire.flush()
        line = self.wire.readline()
        if not line:
            raise RuntimeError(f"the namespace's process ended in {what}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["is"]

    def sh(self, *lines, check=True):
        """Shell lines; the output of all."""
        return self.call("sh", script="\n".join(lines), check=check)

    def nft(self, text, check=True):
        return self.call("sh", script="nft -f -", input=text, check=check)

    def listen(self, ports, host="::", udp=()):
        """Echoes on ports: TCP on `host`, UDP on each of the addresses `udp`, so that answers come from
        the address that was asked."""
        return self.call("listen", ports=list(ports), host=host, udp=list(udp))

    def probe(self, asked, wait=0.25):
        """asked: (protocol, source or "", destination, port); a list of the ports whose listeners
        answered, 0 where nobody did."""
        return self.call("probe", asked=asked, wait=wait)

    def hold(self, source, to, port):
        """A connection that stays; a number for `talk`."""
        return self.call("hold", source=source, to=to, port=port)

    def talk(self, number, wait=20):
        """Whether a word on it is echoed."""
        return self.call("talk", number=number, wait=wait)

    def end(self):
        if self.pid:
            try:
                self.wire.close()
            except OSError:
                pass
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Inside:
    def __init__(self, wire):
        self.wire = wire
        self.held = []
        self.next_port = FIRST_PORT

    def serve(self):
        file = self.wire.makefile("rw")
        for line in file:
            asked = json.loads(line)
            try:
                answer = {"is": getattr(self, asked.pop("what"))(**asked)}
            except Exception as e:  # pylint: disable=broad-except
                answer = {"error": f"{type(e).__name__}: {e}"}
            file.write(json.dumps(answer) + "\n")
            file.flush()

    def sh(self, script, check, input=None):
        done = subprocess.run(["sh", "-ec", script], input=input, capture_output=True, text=True,
                              check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{script.strip().splitlines()[-1]}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr if check else [done.returncode, done.stdout, done.stderr]

    def listen(self, ports, host, udp):
        pairs, tcp_host = [], host
        for port in ports:
            for host, kind in [(tcp_host, socket.SOCK_STREAM)] + [(h, socket.SOCK_DGRAM) for h in udp]:
                s = socket.socket(family_of(host), kind)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if host == "::":
                    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                s.bind((host, port))
                if kind == socket.SOCK_STREAM:
                    s.listen(256)
                pairs.append((s, kind))
        pid = os.fork()
        if pid == 0:
            end_with_parent()
            self.wire.close()
            echo(pairs)
        for s, _ in pairs:
            s.close()
        return pid

    def probe(self, asked, wait):
        answers = [0] * len(asked)
        waiting = {}
        for i, (protocol, source, to, port) in enumerate(asked):
            s = socket.socket(family_of(to), socket.SOCK_STREAM if protocol == "tcp" else
                              socket.SOCK_DGRAM)
            s.setblocking(False)
            try:
                self.bind(s, source)
                s.connect((to, port))
            except BlockingIOError:
                pass
            except OSError:
                s.close()
                continue
            if protocol == "udp":
                ask(s)
            waiting[s] = i
        until = time.monotonic() + wait
        connecting = {s for s in waiting if s.type == socket.SOCK_STREAM}
        while waiting and time.monotonic() < until:
            left = max(0, until - time.monotonic())
            read, write, _ = select.select([s for s in waiting if s not in connecting], connecting, [],
                                           left)
            for s in write:
                connecting.discard(s)
                if not ask(s):
                    waiting.pop(s)
                    s.close()
            for s in read:
                i = waiting.pop(s)
                try:
                    answers[i] = int(s.recv(99) or b"0")
                except OSError:
                    pass
                s.close()
        for s in waiting:
            s.close()
        return answers

    def bind(self, s, source):
        """To a port that no probe had: what a firewall has once let in may go on for minutes, and of a
        few thousand probes from ports by chance one meets such a flow."""
        while True:
            self.next_port = self.next_port + 1 if self.next_port < LAST_PORT else FIRST_PORT
            try:
                return s.bind((source or {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}[s.family],
                               self.next_port))
            except OSError as e:
                if e.errno != errno.EADDRINUSE:
                    raise

    def hold(self, source, to, port):
        s = socket.socket(family_of(to))
        if source:
            s.bind((source, 0))
        s.settimeout(30)
        s.connect((to, port))
        self.held.append(s)
        return len(self.held) - 1

    def talk(self, number, wait):
        s = self.held[number]
        s.settimeout(wait)
        try:
            s.sendall(b"x")
            return s.recv(1) == b"x"
        except OSError:
            return False


def ask(s):
    try:
        return s.send(b"which?") > 0
    except OSError:
        return False


def answer(word, s):
    return str(s.getsockname()[1]).encode() if word == b"which?" else word


def echo(pairs):
    """All ports by one process: bytes come back as they are, a question is answered by the port."""
    poll = select.poll()
    sockets = {}
    for s, kind in pairs:
        s.setblocking(False)
        sockets[s.fileno()] = (s, kind)
        poll.register(s, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            s, kind = sockets[fd]
            try:
                if kind == "peer":
                    word = s.recv(4096)
                    s.sendall(answer(word, s))
                elif kind == socket.SOCK_STREAM:
                    peer, _ = s.accept()
                    sockets[peer.fileno()] = (peer, "peer")
                    poll.register(peer, select.POLLIN)
                    continue
                else:
                    word, sender = s.recvfrom(4096)
                    s.sendto(answer(word, s), sender)
                    continue
            except OSError:
                word = b""
            if kind == "peer" and not word:
                poll.unregister(fd)
                del sockets[fd]
                s.close()


SCHOOL4, SCHOOL6 = "10.1.0.2", "2001:db8:1::2"
CLASS4, CLASS6 = "10.1.7.7", "2001:db8:1::77"
WORLD4, WORLD6 = "203.0.113.5", "2001:db8:f::5"
NEAR4, NEAR6 = "192.0.2.2", "2001:db8:9::2"
DEVICE4, DEVICE6 = "10.1.0.1", "2001:db8:1::1"
DEVICE4_OUT, DEVICE6_OUT = "192.0.2.1", "2001:db8:9::1"


class Neighbourhood:
    """A device between a school (10.1.0.0/16, 2001:db8:1::/64, interface school) and the world (default
    routes by the interface out)."""

    def __init__(self):
        self.device, self.school, self.world = Room(), Room(), Room()
        for room in (self.device, self.school, self.world):
            room.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad")
        self.join(self.school, "school", [DEVICE4 + "/16", DEVICE6 + "/64"],
                  [SCHOOL4 + "/16", CLASS4 + "/16", SCHOOL6 + "/64", CLASS6 + "/64"])
        self.join(self.world, "out", [DEVICE4_OUT + "/24", DEVICE6_OUT + "/64"],
                  [NEAR4 + "/24", NEAR6 + "/64"])
        self.world.sh(f"ip addr add {WORLD4}/32 dev lo", f"ip addr add {WORLD6}/128 dev lo nodad",
                      f"ip route add default via {DEVICE4_OUT}",
                      f"ip route add default via {DEVICE6_OUT}")
        self.device.sh(f"ip route add default via {NEAR4}", f"ip route add default via {NEAR6}")
        self.school.sh(f"ip route add default via {DEVICE4}", f"ip route add default via {DEVICE6}")

    def join(self, other, name, ours, theirs):
        self.device.sh(f"ip link add {name} type veth peer name wire netns {other.pid}")
        for room, link, addresses in ((self.device, name, ours), (other, "wire", theirs)):
            room.sh(*[f"ip addr add {a} dev {link}" + (" nodad" if ":" in a else "") for a in addresses],
                    f"ip link set dev {link} up")

    def end(self):
        for room in (self.device, self.school, self.world):
            room.end()
