#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Whether the reach that is worked out is the reach that packets have, as TAP: rulesets that are made up
of what is followed, in network namespaces, and connections from each of them. REACH_ROUNDS says how
many rulesets (12), REACH_SEED which. Usage: reach_packets_test.py REACH_DRIVER."""
import ipaddress
import os
import random
import sys

import network as net

DRIVER = os.path.abspath(sys.argv[1])
ROUNDS = int(os.environ.get("REACH_ROUNDS", "12"))
SEED = int(os.environ.get("REACH_SEED", "1"))
PORTS = [22, 53, 80, 443, 3000, 8080]
# Who asks: namespace, source, over IPv4 or 6.
ASKERS = [("school", net.SCHOOL4), ("school", net.CLASS4), ("school", net.SCHOOL6),
          ("school", net.CLASS6), ("world", net.WORLD4), ("world", net.NEAR4), ("world", net.WORLD6),
          ("world", net.NEAR6)]


def ports(r):
    some = sorted(r.sample(PORTS, r.randint(1, 3)))
    return r.choice([str(some[0]), "{ %s }" % ", ".join(map(str, some)), "1-1024", "{ 1-100, 3000 }",
                     "!= 22", "!= { 80, 443 }", ">= 1024", "@some_ports"])


def sources(r):
    return r.choice(["10.1.0.0/16", "10.1.7.0/24", "203.0.113.5", "!= 10.0.0.0/8", "192.0.2.0/24",
                     "{ 10.1.7.7, 203.0.113.0/24 }", "0.0.0.0/0", "@some_four",
                     "10.1.0.2-10.1.4.4"]), \
        r.choice(["2001:db8:1::/64", "2001:db8:f::5", "!= 2001:db8:1::/64", "@some_six", "::/0",
                  "{ 2001:db8:1::77, 2001:db8:9::/64 }"])


def condition(r):
    four, six = sources(r)
    protocol = r.choice(["tcp", "udp"])
    return r.choice([
        lambda: f"{protocol} dport {ports(r)}", lambda: f"ip saddr {four}", lambda: f"ip6 saddr {six}",
        lambda: r.choice(["iifname school", "iifname != out", 'iifname "sch*"', "iif lo",
                          'iifname { "out", "x" }']),
        lambda: f"meta l4proto {{ tcp, udp }} th dport {ports(r)}",
        lambda: f"meta nfproto {r.choice(['ipv4', 'ipv6'])}", lambda: f"meta l4proto {protocol}",
        lambda: "ct state new", lambda: "ct state established,related", lambda: "ct state != invalid",
        lambda: f"ip daddr {r.choice(['10.1.0.1', '192.0.2.1', '!= 10.1.0.1'])}",
        lambda: f"ip saddr . {protocol} dport {{ 10.1.0.2 . 22, 203.0.113.0/24 . 80-443 }}",
        lambda: "tcp flags & (fin|syn|rst|ack) == syn", lambda: "limit rate 10000/second burst 500 packets",
        lambda: "fib daddr type local", lambda: "fib daddr type { broadcast, multicast }",
        lambda: "ip protocol tcp", lambda: "ip6 nexthdr udp", lambda: "meta pkttype host",
        lambda: "fib saddr . iif oif missing", lambda: "counter"])()


def verdict(r, chains):
    words = ["accept"] * 3 + ["drop"] * 3 + ["reject", "return", "continue", "counter"]
    words += [f"{w} {c}" for c in chains for w in ("jump", "goto")]
    return r.choice(words)


def rule(r, chains):
    if r.random() < 0.15:
        deeper = ["accept", "drop"] + [f"jump {c}" for c in chains]
        return r.choice(["tcp", "udp"]) + " dport vmap { 22 : %s, 80-100 : %s, 3000 : %s }" % (
            r.choice(deeper), r.choice(deeper), r.choice(deeper))
    parts = []
    for _ in range(r.randint(1, 2)):
        parts.append(condition(r))
    return " ".join(parts) + " " + verdict(r, chains)


def basics(chain):
    """Neighbour discovery has to work, or nothing of IPv6 does."""
    return [f"add rule inet t {chain} meta l4proto {{ icmp, ipv6-icmp }} accept",
            f"add rule inet t {chain} ct state established,related accept"]


def ruleset(r):
    lines = ["add table inet t", "add table ip four",
             "add set inet t some_ports { type inet_service; flags interval; elements = { 443-3000 }; }",
             "add set inet t some_four { type ipv4_addr; flags interval; elements = { 10.1.0.0/20, "
             "192.0.2.2 }; }",
             "add set inet t some_six { type ipv6_addr; flags interval; elements = { 2001:db8:f::/48 }; }"]
    side = ["deep", "side"]
    for chain in side:
        lines.append(f"add chain inet t {chain}")
    lines += ["add chain inet t early { type filter hook prerouting priority -150; policy accept; }",
              "add chain inet t input { type filter hook input priority 0; policy %s; }"
              % r.choice(["accept", "drop"]),
              "add chain ip four late { type filter hook input priority 10; policy %s; }"
              % r.choice(["accept", "accept", "drop"]), "add rule ip four late ct state established accept"]
    lines += basics("early") + basics("input")  # who drops what is established lets nobody in
    if r.random() < 0.4:
        lines += ["add chain inet t nat { type nat hook prerouting priority -100; policy accept; }",
                  "add rule inet t nat " + r.choice([
                      "tcp dport 80 redirect to :8080", "ip saddr 10.1.0.0/16 tcp dport 443 redirect to :3000",
                      "ip daddr 192.0.2.1 tcp dport 22 dnat ip to 10.1.0.1:3000"])]
    for chain, count, below in (("deep", 2, []), ("side", 3, ["deep"]), ("early", 2, ["side"]),
                                ("input", r.randint(2, 7), side)):
        for _ in range(r.randint(0, count) if chain != "input" else count):
            lines.append(f"add rule inet t {chain} {rule(r, below)}")
    for _ in range(r.randint(0, 2)):
        lines.append(f"add rule ip four late ip saddr {sources(r)[0].replace('@some_four', '10.1.0.0/24')} "
                     + r.choice(["accept", "drop", "tcp dport 22-80 accept", "udp dport 53 drop"]))
    return "\n".join(lines) + "\n"


def good_ruleset(hood, r):
    """One that nft takes: conditions may exclude each other."""
    while True:
        text = ruleset(r)
        if hood.device.nft("flush ruleset\n" + text, check=False)[0] == 0:
            return text


def parse(line):
    """(word, ranges)"""
    word, *rest = line.split(" ")
    spans = []
    for span in rest if word in ("network", "world") else []:
        first, last = span.split("-")
        spans.append((ipaddress.ip_address(first), ipaddress.ip_address(last)))
    return word, spans


def has(spans, address):
    a = ipaddress.ip_address(address)
    return any(f.version == a.version and f <= a <= t for f, t in spans)


def one_round(hood, text, told, patience=0.3):
    hood.device.nft("flush ruleset\n" + text)
    asked = [(p, n) for p in ("tcp", "udp") for n in PORTS]
    lines = hood.device.sh(" ".join([DRIVER] + [f"{p}/::/{n}" for p, n in asked])).splitlines()
    worked_out = dict(zip(asked, map(parse, lines)))
    device = dict(zip(asked, hood.device.probe([(p, "", "127.0.0.1", n) for p, n in asked], patience)))
    # Any address of the device counts: what gets in by one of them gets in.
    got = {}
    for room in ("school", "world"):
        probes = [(p, source, to, n, who) for who, (r, source) in enumerate(ASKERS) if r == room
                  for p, n in asked
                  for to in ((net.DEVICE6, net.DEVICE6_OUT) if ":" in source else
                             (net.DEVICE4, net.DEVICE4_OUT))]
        answers = getattr(hood, room).probe([x[:4] for x in probes], patience)
        for (p, _, _, _, who), answer in zip(probes, answers):
            got[p, answer, who] = True  # a rule may have changed the port
    wrong = []
    for (p, n), (word, spans) in worked_out.items():
        told[word] = told.get(word, 0) + 1
        if word == "unknown":
            continue
        for who, (_, source) in enumerate(ASKERS):
            if ((p, n, who) in got) != has(spans, source):
                wrong.append(f"{p} {n} from {source}: worked out {has(spans, source)}, packets say "
                             f"{(p, n, who) in got}")
        if word == "nobody" and device[p, n] == n:
            wrong.append(f"{p} {n}: nobody, but the device itself gets in")
    return wrong


def main():
    print("TAP version 13")
    why = net.may()
    if why:
        print(f"1..0 # SKIP {why}")
        return 0
    hood = net.Neighbourhood()
    told, failed = {}, 0
    try:
        hood.device.listen(PORTS, udp=[net.DEVICE4, net.DEVICE6, net.DEVICE4_OUT, net.DEVICE6_OUT,
                                         "127.0.0.1", "::1"])
        for i in range(ROUNDS):
            text = good_ruleset(hood, random.Random(SEED * 1000 + i))
            wrong = one_round(hood, text, told)
            if wrong:  # a packet may have been late
                wrong = [w for w in one_round(hood, text, {}, 3) if w in wrong]
            print(f"{'not ' if wrong else ''}ok {i + 1} - ruleset {SEED * 1000 + i} lets in whom it is "
                  "said to")
            if wrong:
                failed += 1
                for w in wrong[:8]:
                    print(f"# {w}")
                for line in text.splitlines():
                    print(f"#   {line}")
    finally:
        hood.end()
    unknown, all_of = told.get("unknown", 0), sum(told.values())
    good = unknown * 10 <= all_of and len(told) >= 3
    print(f"{'' if good else 'not '}ok {ROUNDS + 1} - most of it can be followed, and the answers differ "
          f"# {told}")
    print(f"1..{ROUNDS + 1}")
    return 1 if failed or not good else 0


if __name__ == "__main__":
    sys.exit(main())
