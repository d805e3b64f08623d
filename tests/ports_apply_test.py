#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico ports apply, confirm, rollback and unapply, as TAP: in network namespaces, packets really pass or
are really dropped. Usage: ports_apply_test.py PORTICO [TEXT]."""
import json
import os
import re
import sys
import tempfile
import time

import network as net
from server import run_tests

PORTICO = os.path.abspath(sys.argv[1])
PORTS = [22, 80, 443, 3000, 5432, 9999]
FOREIGN = "table inet theirs {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n" \
          "\t\ttcp dport 9 drop\n\t}\n}\n"
CADDYFILE = """{
	admin off
	auto_https off
	ports {
		443 80            world
		22  tcp ssh       from 10.1.0.0/16 2001:db8:1::/64
		3000              device
		5432 postgresql   device from 10.1.7.0/24 2001:db8:1::77
		others            device
	}
}
"""
SOURCES = {"school": (net.SCHOOL4, net.SCHOOL6), "class": (net.CLASS4, net.CLASS6),
           "world": (net.WORLD4, net.WORLD6)}
# Who gets in, by port; everything else is the device's.
WANTED = {80: {"school", "class", "world"}, 443: {"school", "class", "world"}, 22: {"school", "class"},
          5432: {"class"}}


class Place:
    """The neighbourhood, a folder with a configuration, and listeners on the device."""

    def __init__(self):
        self.hood = net.Neighbourhood()
        self.device = self.hood.device
        self.folder = tempfile.TemporaryDirectory()
        self.device.listen(PORTS, udp=[net.DEVICE4, net.DEVICE6, net.DEVICE4_OUT, net.DEVICE6_OUT,
                                       "127.0.0.1", "::1"])

    def write(self, text):
        path = os.path.join(self.folder.name, "Caddyfile")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path

    def portico(self, *arguments, env=""):
        """(status, output, errors)"""
        asan = "ASAN_OPTIONS=detect_leaks=0 " if os.environ.get("ASAN_OPTIONS") is None else ""
        return self.device.sh(f"cd {self.folder.name}; exec env {asan}{env} {PORTICO} " +
                              " ".join(arguments), check=False)

    def apply(self, *more, text=CADDYFILE, env=""):
        return self.portico("ports", "apply", "--config", self.write(text), *more, env=env)

    def clean(self):
        self.device.nft("flush ruleset")

    def rules(self):
        return self.device.sh("nft list ruleset")

    def who(self, port, protocols=("tcp", "udp"), wait=0.2):
        """Who gets in to a port, by both families, of which some are told apart where they differ. On a
        busy machine an answer may be late: then it is waited for longer."""
        got = {}
        for name, pair in SOURCES.items():
            room = self.hood.world if name == "world" else self.hood.school
            asked = [(p, s, (net.DEVICE6, net.DEVICE4)["." in s], port) for p in protocols for s in pair]
            got[name] = room.probe(asked, wait)
        mixed = {n: a for n, a in got.items() if len(set(a)) != 1}
        if mixed and wait < 1:
            return self.who(port, protocols, 3)
        return mixed or {n for n, a in got.items() if a[0] == port}

    def end(self):
        self.hood.end()
        self.folder.cleanup()


def same(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def good(done):
    if done[0] != 0:
        raise AssertionError(f"status {done[0]}: {done[1]}{done[2]}")
    return done[1] + done[2]


def refused(done, *words):
    text = done[1] + done[2]
    if done[0] == 0 or any(w not in text for w in words):
        raise AssertionError(f"status {done[0]}: {text}")


def lets_in(place, port, want=None):
    """That all, or those, come in: an answer that is late on a busy machine is waited for."""
    want = set(SOURCES) if want is None else want
    got = place.who(port)
    same(got if got == want else place.who(port, wait=5), want)


def judged(place):
    for port in PORTS:
        protocols = ("tcp",) if port == 22 else ("tcp", "udp")
        got, want = place.who(port, protocols), WANTED.get(port, set())
        same((port, got if got == want else place.who(port, protocols, 5)), (port, want))


def lets_in_whom_it_says(place):
    """packets pass or are dropped as declared: TCP and UDP, IPv4 and IPv6, school, class and world"""
    good(place.apply())
    judged(place)
    same(place.who(22, ("udp",)), set())


def device_always(place):
    """the device itself comes to each of its ports, by any of its addresses"""
    good(place.apply())
    asked = [(p, "", to, n) for p in ("tcp", "udp") for n in PORTS
             for to in ("127.0.0.1", "::1", net.DEVICE4, net.DEVICE6_OUT)]
    same(place.device.probe(asked, 10), [n for _, _, _, n in asked])


def goes_out(place):
    """what the device asks for outside is answered: TCP, UDP, ICMP errors"""
    place.hood.world.listen([7777], udp=[net.NEAR4, net.NEAR6])
    good(place.apply())
    asked = [(p, "", to, 7777) for p in ("tcp", "udp") for to in (net.NEAR4, net.NEAR6)]
    same(place.device.probe(asked, 10), [7777] * 4)
    # Neighbours are found anew, and a router's advertisement and an echo are let in.
    place.device.sh("ip neigh flush all")
    same(place.device.probe(asked, 10), [7777] * 4)


def path_mtu(place):
    """a packet that is too big for the path still is told so (ICMP and ICMPv6)"""
    place.hood.world.listen([7778], udp=[])
    good(place.apply())
    place.device.sh("ip route flush cache")
    place.hood.world.sh("ip link set dev wire mtu 1280")
    number = place.device.hold("", net.NEAR6, 7778)
    same(place.device.talk(number), True)
    place.hood.world.sh("ip link set dev wire mtu 1500")


def foreign_untouched(place):
    """tables of others stay as they are, and nothing of ours is left after unapply"""
    place.device.nft(FOREIGN)
    before = place.rules()
    good(place.apply())
    same(place.device.sh("nft list table inet theirs"), before)
    good(place.apply("--confirm", "60s"))
    good(place.portico("ports", "confirm"))
    good(place.portico("ports", "unapply"))
    same(place.rules(), before)
    good(place.portico("ports", "unapply"))


def trial_ends(place):
    """a trial ends by itself, also when all that began it is killed"""
    good(place.apply("--confirm", "4s"))
    same(place.who(3000), set())
    until = time.monotonic() + 20
    while place.who(3000) != set(SOURCES) and time.monotonic() < until:
        pass
    lets_in(place, 3000)
    refused(place.portico("ports", "confirm"), "over")
    good(place.portico("ports", "rollback"))
    same(place.rules(), "")


def trial_of_a_change(place):
    """a trial over rules in force goes back to them, or is kept"""
    good(place.apply())
    open3000 = CADDYFILE.replace("3000              device", "3000              world")
    good(place.apply("--confirm", "4s", text=open3000))
    lets_in(place, 3000)
    until = time.monotonic() + 20
    while (place.who(3000) or place.who(3000, wait=1.5)) and time.monotonic() < until:
        time.sleep(0.05)  # that nobody comes in may also be answers that are late
    judged(place)
    good(place.apply("--confirm", "60s", text=open3000))
    good(place.portico("ports", "rollback"))
    judged(place)
    good(place.apply("--confirm", "60s", text=open3000))
    good(place.portico("ports", "confirm"))
    lets_in(place, 3000)
    same("trial" in place.rules(), False)
    refused(place.portico("ports", "confirm"), "no trial")
    refused(place.portico("ports", "rollback"), "no trial")


def no_lockout(place):
    """a change that would cut a connection that exists is refused, unless forced"""
    school = place.hood.school.hold(net.SCHOOL4, net.DEVICE4, 22)
    world = place.hood.world.hold(net.WORLD4, net.DEVICE4, 22)
    env = f"SSH_CONNECTION='{net.WORLD4} 1 {net.DEVICE4} 22'"
    refused(place.apply(env=env), net.WORLD4, "port 22", "Refused", "nothing was changed")
    same(place.rules(), "")
    refused(place.apply("--confirm", "60s"), net.WORLD4)
    good(place.apply(text=CADDYFILE.replace("from 10.1.0.0/16", "from 203.0.113.0/24 10.1.0.0/16")))
    same([place.hood.school.talk(school), place.hood.world.talk(world)], [True, True])
    good(place.apply("--force"))
    same(place.hood.school.talk(school), True)


def established_stay(place):
    """connections that the rules know stay, when new ones of that kind are not let in any more"""
    everything = CADDYFILE.replace("3000              device", "3000              world")
    good(place.apply(text=everything))
    number = place.hood.world.hold(net.WORLD6, net.DEVICE6, 3000)
    good(place.apply("--force"))
    same(place.who(3000), set())
    same(place.hood.world.talk(number), True)


def forwards(place):
    """what is forwarded (containers behind a bridge) is not touched"""
    inner = net.Room()
    try:
        place.device.sh("ip link add br0 type bridge", "ip addr add 172.18.0.1/24 dev br0",
                        f"ip link add c0 type veth peer name wire netns {inner.pid}",
                        "ip link set c0 master br0", "ip link set c0 up", "ip link set br0 up",
                        "echo 1 > /proc/sys/net/ipv4/ip_forward")
        inner.sh("ip addr add 172.18.0.2/24 dev wire", "ip link set dev wire up",
                 "ip route add default via 172.18.0.1")
        inner.listen([3000], udp=["172.18.0.2"])
        place.device.nft("table ip nat {\n chain pre { type nat hook prerouting priority dstnat; policy accept;"
                         f"\n ip daddr {net.DEVICE4_OUT} tcp dport 9999 dnat to 172.18.0.2:3000;\n }}\n}}\n")
        good(place.apply())
        world = place.hood.world
        same(world.probe([("tcp", net.WORLD4, net.DEVICE4_OUT, 9999)], 10), [3000])
        world.sh(f"ip route replace 172.18.0.0/24 via {net.DEVICE4_OUT}")
        same(world.probe([("tcp", net.WORLD4, "172.18.0.2", 3000), ("udp", net.WORLD4, "172.18.0.2", 3000)],
                         10), [3000, 3000])
        same(place.hood.school.probe([("tcp", net.SCHOOL4, "172.18.0.2", 3000)], 10), [3000])
    finally:
        inner.end()
        place.device.sh("ip link del br0")


def counts(place):
    """each declared port counts who came, and writing the same rules again keeps the counts"""
    good(place.apply())
    place.who(80)
    listed = place.device.sh("nft list table inet portico")
    same("80 counter packets 0" in listed, False)
    same("22 counter packets 0" in listed, True)
    told = good(place.portico("ports", "explain", "80/tcp", "--config", place.write(CADDYFILE)))
    same(re.search(r"in force .*: [1-9]\d*\.$", told, re.M) is not None, True)
    told = good(place.portico("ports", "explain", "22/tcp", "--config", place.write(CADDYFILE)))
    same(re.search(r"in force .*: 0\.$", told, re.M) is not None, True)
    table_tells_counts(place)
    good(place.apply())
    same(place.device.sh("nft list table inet portico"), listed)
    good(place.portico("ports", "unapply"))
    same("TRIED" in place.portico("ports", "--config", "Caddyfile")[1], False)
    same("tried" in place.portico("ports", "--json", "--config", "Caddyfile")[1], False)
    same("tried" in place.portico("ports", "--csv", "--config", "Caddyfile")[1], False)


def table_tells_counts(place):
    """In each of its forms, for ports that are declared, and only while they are kept shut."""
    config = ("--this-namespace", "--config", "Caddyfile")
    text = place.portico("ports", *config)[1]
    same("TRIED" in text.splitlines()[0], True)
    column = text.splitlines()[0].index("TRIED")
    cells = {}
    for line in text.splitlines()[1:]:
        if line.split()[1:2] == ["tcp"]:
            cells[int(line.split()[0])] = line[column:column + 5].strip()
    same((int(cells[80]) > 0, cells[22], cells[9999]), (True, "0", ""))
    rows = [r for r in json.loads(place.portico("ports", "--json", *config)[1])["ports"]
            if r["protocol"] == "tcp"]
    tried = {r["port"]: r["tried"] for r in rows}
    same((tried[80] > 0, tried[22], tried[9999]), (True, 0, None))
    lines = place.portico("ports", "--csv", *config)[1].splitlines()
    last = {tuple(x.split(",")[:2]): x.split(",")[-1] for x in lines}
    same(lines[0].split(",")[-1], "tried")
    same((last["80", '"tcp"'], last["22", '"tcp"'], last["9999", '"tcp"']), (str(tried[80]), "0", ""))


def dry_run(place):
    """--dry-run prints the script, which nft takes, and changes nothing"""
    out = good(place.apply("--dry-run"))
    same(place.rules(), "")
    same("add table inet portico" in out, True)
    place.device.nft(out)
    judged(place)


def many_ports(place):
    """65,535 declared ports are applied in one transaction"""
    text = "{\n\tadmin off\n\tports {\n"
    text += "".join(f"\t\t{p} {'world' if p % 2 else 'device'}\n" for p in range(1, 65536))
    text += "\t\tothers device\n\t}\n}\n"
    start = time.monotonic()
    good(place.apply(text=text))
    took = time.monotonic() - start
    same(place.who(22), set())
    same(place.who(3000), set())
    lets_in(place, 443)
    told = good(place.portico("ports", "explain", "443/tcp", "--config", "Caddyfile"))
    same(re.search(r"in force .*: [1-9]\d*\.$", told, re.M) is not None, True)
    # The one run of nft, by CPU time, which hardly depends on what else the machine does.
    good(place.apply("--dry-run", "> script", text=text))
    times = place.device.sh(f"nft -f {place.folder.name}/script", "times")
    _, children = (sum(60 * int(m) + float(s) for m, s in re.findall(r"(\d+)m([\d.]+)s", line))
                     for line in times.splitlines()[-2:])
    print(f"# {took:.2f} s, with reading the configuration; nft takes {children:.2f} s of CPU time")
    if children > 1.5:
        raise AssertionError(f"the transaction takes {children:.2f} s of CPU time")


def errors(place):
    """bad arguments and configurations get a sentence and change nothing"""
    refused(place.apply("--confirm", "no"), "--confirm no")
    refused(place.apply("--confirm", "100h"), "24h")
    refused(place.apply(text=":80\n"), "declares no ports")
    refused(place.apply(text=CADDYFILE.replace("3000 ", "300000 ")), "300000")
    refused(place.portico("ports", "confirm"), "no trial")
    same(place.rules(), "")


def not_root(place):
    """without the right to, nothing is changed and the sentence says so"""
    path = place.write(CADDYFILE)
    os.chmod(place.folder.name, 0o755)
    done = place.device.sh("setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/tmp "
                           f"ASAN_OPTIONS=detect_leaks=0 {PORTICO} ports apply --config {path}", check=False)
    refused(done, "only root")


CASES = [lets_in_whom_it_says, device_always, goes_out, path_mtu, foreign_untouched, trial_ends,
         trial_of_a_change, no_lockout, established_stay, forwards, counts, dry_run, many_ports, errors,
         not_root]


def placed(case):
    place = Place()
    try:
        case(place)
    finally:
        place.end()


def main():
    print("TAP version 13")
    why = net.may()
    if why:
        print(f"1..0 # SKIP {why}")
        return 0
    return run_tests([(case.__doc__, lambda case=case: placed(case)) for case in CASES]) > 0


if __name__ == "__main__":
    sys.exit(main())
