#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""portico in chains with Debian's nginx, caddy and HAProxy, before and behind them, over HTTP/1.1, h2c and TLS, as
TAP: each case goes through each chain, on both I/O back ends, from a client made by hand to a server made by
hand. What a chain's other programs cannot do without portico either is skipped and said.
Usage: chain_test.py PORTICO [TEXT]."""
import asyncio
import concurrent.futures
import itertools
import logging
import os
import signal
import sys
import threading
import time

sys.dont_write_bytecode = True
import peers  # noqa: E402 (beside this file)
from certificates import Authority  # noqa: E402
from origin import BIG, Origin, Talk, digest, piece  # noqa: E402
from server import BACK_ENDS, Skip, has, same  # noqa: E402

try:
    import websockets
    import websockets.server
except ImportError:
    websockets = None

logging.getLogger("websockets").setLevel(logging.CRITICAL + 1)  # a connection that ends is a case here
PORTICO = os.path.abspath(sys.argv[1])
ONLY = sys.argv[2] if len(sys.argv) > 2 else ""

# Programs from the client's to the server's; behind the plus how it listens, "http" if not said.
CHAINS = [
    "portico", "portico portico",
    "nginx portico", "portico nginx",
    "caddy portico", "portico caddy",
    "haproxy portico", "portico haproxy",
    "caddy portico caddy", "nginx portico haproxy",
    "caddy portico+h2c", "haproxy portico+h2c",
    "caddy portico+https", "haproxy portico+https", "nginx portico+https",
    "portico nginx+https", "portico caddy+https",
    "haproxy portico+https nginx+https",
    "haproxy portico+h2c portico+h2c", "portico caddy+h2c", "portico haproxy+h2c", "portico nginx+h2c", "portico portico+h2c",
    "portico portico+https", "portico haproxy+https", "caddy portico+h2c caddy+h2c",
    "haproxy portico+https portico+h2c nginx+h2c",
]
numbers = itertools.count(1)


def token():
    return b"t%d" % next(numbers)


class Chain:
    """Places of one chain, wired from its end."""

    def __init__(self, text, origin, ws_port):
        self.name, self.origin, to = text, origin, origin.port
        self.places = []
        for word in reversed(text.split()):
            program, _, kind = word.partition("+")
            to = peers.Place(program, kind or "http", to, ws_port)
            self.places.insert(0, to)
        self.port = self.places[0].port
        self.label = text.replace(" ", ">").encode()
        self.patience = 20

    def programs(self):
        return {p.program for p in self.places}

    def talk(self):
        return Talk(self.port, self.patience)

    def get(self, path, *fields, **more):
        t = self.talk()
        t.ask(path, *fields, **more)
        a = t.answer(more.get("method") == b"HEAD")
        t.close()
        return a

    def seen(self, t):
        return self.origin.seen[t.decode()]

    def event(self, t, what):
        return self.origin.event(t.decode(), what)

    def awaits(self, t, what, otherwise):
        assert self.event(t, what).wait(self.patience), otherwise


# ---- the cases -------------------------------------------------------------

def kept(c):
    """One connection of the client, few to the server."""
    t, before = c.talk(), c.origin.connections[c.label]
    for _ in range(12):
        mark = token()
        t.ask(b"/hello?t=" + mark, b"X-Chain: " + c.label, b"Accept: */*")
        a = t.answer()
        same((a.status, a.body, a.field(b"x-twice")), (200, b"hello " + mark, b"a, b"))
        same(len(c.seen(mark)), 1)
        same(c.seen(mark)[0].all(b"host"), [b"origin.example"])
        if "portico" in c.name:
            has(b", ".join(c.seen(mark)[0].all(b"via")), b"portico")
            has(b", ".join(c.seen(mark)[0].all(b"x-forwarded-for")), b"127.0.0.1")
    t.close()
    used = c.origin.connections[c.label] - before
    assert used <= 6, f"{used} connections to the server"


def uploads(c):
    t = c.talk()
    for n in (1, 16384, 100001, 2 << 20):
        body, mark = piece(7, n), token()
        t.ask(b"/sum?t=" + mark, method=b"POST", body=body)
        same(t.answer().body, b"%d %s" % (n, digest(body)))
        mark = token()
        t.ask(b"/sum?t=" + mark, b"Transfer-Encoding: chunked", method=b"PUT")
        at = 0
        while at < n:
            size = min(n - at, at * 5 % 30011 + 1)
            t.chunk(body[at:at + size])
            at += size
        t.last()
        same(t.answer().body, b"%d %s" % (n, digest(body)))
        same([s.method for s in c.seen(mark)], [b"PUT"])
    t.close()


def echoes(c):
    """Both ways at once, in chunks, more than any buffer on the way."""
    body = piece(3, 3 << 20)
    t = c.talk()
    t.ask(b"/echo?t=" + token(), b"Transfer-Encoding: chunked", method=b"POST")

    def send():
        for at in range(0, len(body), 10007):
            t.chunk(body[at:at + 10007])
        t.last()
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    a = t.answer()
    sender.join(20)
    same((a.status, len(a.body), digest(a.body)), (200, len(body), digest(body)))
    t.ask(b"/hello?t=x")
    same(t.answer().body, b"hello x")
    t.close()


def trailers_down(c):
    t = c.talk()
    for _ in range(2):
        t.ask(b"/trailers?t=" + token(), b"TE: trailers", b"Connection: TE")
        a = t.answer()
        same((a.body, sorted(a.trailers)), (b"hello", [(b"x-more", b"two words"), (b"x-sum", b"1")]))
    t.close()


def trailers_up(c):
    mark = token()
    t = c.talk()
    t.ask(b"/sum?t=" + mark, b"Transfer-Encoding: chunked", b"Trailer: X-Sum", method=b"POST")
    t.chunk(b"hello")
    time.sleep(0.05)
    t.last(b"X-Sum: 17")
    same(t.answer().status, 200)
    same([(s.body, s.trailers) for s in c.seen(mark)], [(b"hello", [(b"x-sum", b"17")])])
    t.close()


def expects(c):
    t = c.talk()
    for n in (5, 200000):
        t.ask(b"/sum?t=" + token(), b"Expect: 100-continue", b"Content-Length: %d" % n, method=b"POST")
        same(t.line()[:12], b"HTTP/1.1 100")
        t.fields()
        t.send(piece(0, n))
        a = t.answer()
        same((a.status, a.body), (200, b"%d %s" % (n, digest(piece(0, n)))))
    t.close()


def refuses(c):
    """Whether its 100 or its 417 comes first is the next server's matter: some read the body by themselves."""
    t = c.talk()
    t.ask(b"/refuse?t=" + token(), b"Expect: 100-continue", b"Content-Length: 500", method=b"POST")
    status = t.line()[9:12]
    if status == b"100":
        t.fields()
        t.send(piece(0, 500))
    while status == b"100":
        status = t.line()[9:12]
        if status == b"100":
            t.fields()
    same(status, b"417")
    same(b"".join(p for p in t.pieces(t.fields()) if p), b"no")
    t.close()
    same(c.get(b"/hello?t=x").body, b"hello x")


def heads(c):
    t = c.talk()
    for path, length in ((b"/hello?t=heads", b"11"), (b"/headchunks?t=x", None)):
        t.ask(path, method=b"HEAD")
        a = t.answer(to_head=True)
        same(a.status, 200)
        assert a.field(b"content-length") == length, a.fields
        t.ask(b"/hello?t=behind")
        same(t.answer().body, b"hello behind")
    t.close()


def bodiless(c):
    t = c.talk()
    for status in (204, 304, 200, 404, 500):
        t.ask(b"/status/%d?t=x" % status, b"If-None-Match: \"x\"")
        a = t.answer()
        same((a.status, a.body), (status, b""))
        same(a.field(b"etag"), b'"x"' if status == 304 else None)
        t.ask(b"/hello?t=behind")
        same(t.answer().body, b"hello behind")
    t.ask(b"/status/204?t=x", method=b"POST", body=b"abc")
    same(t.answer().status, 204)
    t.ask(b"/hello?t=last")
    same(t.answer().body, b"hello last")
    t.close()


def big(c):
    for path in (b"/big?t=", b"/bigchunks?t="):
        a = c.get(path + token())
        same((a.status, len(a.body), digest(a.body)), (200, BIG, digest(piece(0, BIG))))


def reads_slowly(c):
    """The client takes a little, waits, and takes the rest."""
    t = c.talk()
    t.ask(b"/big?t=" + token())
    a = t.head()
    parts = t.pieces(a.fields, until_end=True)
    got = next(parts)
    time.sleep(0.3)
    got += b"".join(p for p in parts if p)
    same((len(got), digest(got)), (BIG, digest(piece(0, BIG))))
    t.close()


def flows_down(c):
    """What the server has said is there, though it says more later."""
    for path, rest in ((b"/wait/chunks?t=", b"second"), (b"/wait/length?t=", b"later")):
        mark, t = token(), c.talk()
        t.ask(path + mark)
        a = t.head()
        parts = t.pieces(a.fields, until_end=True)
        same(next(parts), b"first")
        c.event(mark, "go").set()
        same(b"".join(p for p in parts if p), rest)
        t.close()


def flows_up(c):
    for chunked in (True, False):
        mark, t = token(), c.talk()
        t.ask(b"/waitup?t=" + mark, b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 11", method=b"POST")
        t.send(b"5\r\nfirst\r\n" if chunked else b"first")
        c.awaits(mark, "came", "the server saw nothing of it")
        t.send(b"6\r\nsecond\r\n0\r\n\r\n" if chunked else b"second")
        same(t.answer().body, b"firstsecond")
        t.close()


def hints(c):
    mark, t = token(), c.talk()
    t.ask(b"/hints?t=" + mark)
    same(t.line()[:12], b"HTTP/1.1 103")
    has(dict(t.fields()), b"link")
    c.event(mark, "go").set()
    a = t.answer()
    same((a.status, a.body), (200, b"ok"))
    t.close()


def early(c):
    """The answer comes though the body does not end."""
    t = c.talk()
    t.ask(b"/early?t=" + token(), b"Content-Length: 100000000", method=b"POST")
    t.send(piece(0, 10000))
    a = t.answer()
    same((a.status, a.body), (413, b"much"))
    t.close()


def cut(how, c):
    mark, t = token(), c.talk()
    t.ask(b"/cut/%s?t=%s" % (how, mark))
    a = t.head()
    parts = t.pieces(a.fields, until_end=True)
    same(next(parts), b"first")
    c.event(mark, "go").set()
    try:
        rest = list(parts)
    except (EOFError, ConnectionResetError):
        rest = None
    assert rest is None, f"the answer ended with {rest}"
    t.close()
    same(c.get(b"/hello?t=x").body, b"hello x")


def cut_length(c):
    cut(b"length", c)


def cut_chunks(c):
    cut(b"chunks", c)


def cut_reset(c):
    cut(b"reset", c)


def closes(c):
    same(c.get(b"/close?t=" + token()).body, b"to the end")


def old_client(c):
    t = c.talk()
    t.ask(b"/trailers?t=" + token(), version=b"1.0")
    a = t.answer()
    same((a.body, a.field(b"transfer-encoding"), a.trailers), (b"hello", None, []))
    t.close()


def pipelined(c):
    t, marks = c.talk(), [token() for _ in range(8)]
    t.send(*[b"POST /sum?t=%s HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" % m if i % 2 else
             b"GET /hello?t=%s HTTP/1.1\r\nHost: h\r\n\r\n" % m for i, m in enumerate(marks)])
    for i, m in enumerate(marks):
        same(t.answer().body, b"3 " + digest(b"abc") if i % 2 else b"hello " + m)
    t.close()


def leaves(c):
    """A client that goes away while it is answered is missed by the server."""
    mark, t = token(), c.talk()
    t.ask(b"/endless?t=" + mark)
    t.head()
    t.close()
    c.awaits(mark, "left", "the server still writes")


def leaves_early(c):
    mark, t = token(), c.talk()
    t.ask(b"/silent?t=" + mark)
    c.awaits(mark, "came", "the server saw no request")
    t.close()
    c.awaits(mark, "left", "the server still waits")


def many_fields(c):
    long = [b"X-Long-%d: %s" % (i, b"w" * 300) for i in range(20)]
    mark = token()
    a = c.get(b"/fields?t=" + mark, *long, b"Cookie: a=1; b=2")
    same((a.status, a.body, a.field(b"x-long-19")), (200, b"ok", b"v" * 300))
    same([v for n, v in a.fields if n == b"set-cookie"], [b"a=1", b"b=2"])
    seen = c.seen(mark)[0]
    same((seen.all(b"x-long-19"), b"; ".join(seen.all(b"cookie"))), ([b"w" * 300], b"a=1; b=2"))


def at_once(c):
    """Many clients; each gets what it asked for."""
    def client(i):
        t = c.talk()
        for n in range(6):
            mark = token()
            if (i + n) % 3 == 0:
                body = piece(i * 100 + n, 5000 * n + i)
                t.ask(b"/sum?t=" + mark, method=b"POST", body=body)
                same(t.answer().body, b"%d %s" % (len(body), digest(body)))
            elif (i + n) % 3 == 1:
                t.ask(b"/trailers?t=" + mark)
                same(t.answer().body, b"hello")
            else:
                t.ask(b"/hello?t=" + mark)
                same(t.answer().body, b"hello " + mark)
        t.close()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(client, i) for i in range(1, 13)]:
            done.result()


def socket_talk(c):
    """A WebSocket: texts, a large one, pings, and the closing words of each side."""
    if websockets is None:
        raise Skip("python3-websockets is not installed")

    async def talk():
        async with websockets.connect(f"ws://127.0.0.1:{c.port}/ws", subprotocols=["chat"], max_size=None,
                                      open_timeout=30, close_timeout=30) as ws:
            same(ws.subprotocol, "chat")
            for message in ("hello", "", "é" * 1000, b"\0\1\2", bytes(piece(0, 1 << 20))):
                await ws.send(message)
                same(await asyncio.wait_for(ws.recv(), 30), message)
            await asyncio.wait_for(await ws.ping(b"x"), 30)
        async with websockets.connect(f"ws://127.0.0.1:{c.port}/ws", open_timeout=30) as ws:
            await ws.send("close")
            try:
                await asyncio.wait_for(ws.recv(), 30)
                raise AssertionError("not closed")
            except websockets.ConnectionClosed:
                same((ws.close_code, ws.close_reason), (4321, "as you wish"))
    asyncio.run(talk())


async def on_websocket(ws, *_):
    async for message in ws:
        if message == "close":
            await ws.close(4321, "as you wish")
            return
        await ws.send(message)


class SocketServer:
    """Of WebSockets, on a thread with a loop."""

    def __init__(self):
        self.port, ready = 0, threading.Event()
        if websockets is None:
            return

        async def main():
            server = await websockets.serve(on_websocket, "127.0.0.1", 0, subprotocols=["chat"], max_size=None)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await asyncio.Future()
        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(10)


CASES = [
    ("twelve requests on one connection, few connections to the server", kept),
    ("bodies go up by length and in chunks", uploads),
    ("3 MiB go up and down at the same time", echoes),
    ("trailers of an answer", trailers_down),
    ("trailers of a request", trailers_up),
    ("a body waits for 100 Continue", expects),
    ("417 instead of 100", refuses),
    ("HEAD, by length and in chunks", heads),
    ("204, 304 and other answers without a body", bodiless),
    ("4 MiB by length and in chunks", big),
    ("a client that waits in the middle", reads_slowly),
    ("an answer comes down as it is made", flows_down),
    ("a body goes up as it comes", flows_up),
    ("103 before the answer", hints),
    ("an answer before the body's end", early),
    ("an answer that ends before its length breaks off", cut_length),
    ("chunks without the last one break off", cut_chunks),
    ("an answer that is reset breaks off", cut_reset),
    ("an answer that ends with its connection", closes),
    ("a client of HTTP/1.0", old_client),
    ("eight requests in one piece", pipelined),
    ("the server learns that a client has left in the middle", leaves),
    ("the server learns that a client did not wait", leaves_early),
    ("heads of 6 KiB, cookies", many_fields),
    ("twelve clients at once, each with its own answers", at_once),
    ("WebSocket", socket_talk),
]
# What others cannot, though a case may go well by chance, or alone: a program, or a part of a chain.
CANNOT = {
    ("nginx", hints): "it takes a 103 for the answer, and waits for more of it on the connection",
    ("caddy", echoes): "its HTTP/1 reads no body any more when it answers",
    ("caddy", early): "it mostly waits for the body, though it went well alone",
    **{(c, socket_talk): "no WebSocket over HTTP/2" for c in ("caddy portico+h2c", "portico caddy+h2c",
                                                              "portico nginx+h2c", "portico+h2c nginx+h2c")},
    **{(c, cut_chunks): "it ends a broken answer well over HTTP/2" for c in ("haproxy+h2c", "haproxy+https")},
}


def attempt(case, chain):
    try:
        case(chain)
    except Skip as why:
        return "skip", str(why)
    except Exception as e:  # each failure is a line
        return "failed", f"{type(e).__name__}: {e}"
    return "ok", ""


class Run:
    """All chains on both back ends, and those of the others alone, all at once."""

    def __init__(self):
        self.authority = Authority("Chain Root")
        self.authority.both = self.authority.leaf("origin", "IP:127.0.0.1", "DNS:localhost", "DNS:origin.example")
        self.origin, self.sockets = Origin(), SocketServer()
        names = [n for n in CHAINS if all(p.partition("+")[0] == "portico" or peers.found(p.partition("+")[0])
                                          for p in n.split())]
        self.missing = [n for n in CHAINS if n not in names]
        self.chains = {io: [self.make(n) for n in names] for io in BACK_ENDS}
        others = {p.partition("+")[0] for n in names for p in n.split()} - {"portico"}
        self.alone = {n: self.make(n) for n in sorted(others)}
        for chain in self.alone.values():
            chain.patience = 4
        self.processes, self.over = [], threading.Event()

    def make(self, text):
        return Chain(text, self.origin, self.sockets.port)

    def start(self):
        every = [p for c in [*self.alone.values(), *sum(self.chains.values(), [])] for p in c.places]
        for program, kind in peers.KINDS.items():
            mine = [p for p in every if p.program == program]
            if mine:
                self.begin(kind(program, mine, self.authority))
        for io in BACK_ENDS:
            mine = [p for c in self.chains[io] for p in c.places if p.program == "portico"]
            self.begin(peers.Portico(mine, self.authority, PORTICO, io))
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        haproxy = [p for p in self.processes if p.name == "haproxy"]
        while haproxy and not self.over.wait(1):
            try:
                haproxy[0].look()
            except OSError:
                assert self.over.is_set(), "HAProxy does not tell its state"

    def forgotten(self, chain):
        """What HAProxy did not send, though nothing held it, is not portico's doing."""
        return any(set(chain.places) & p.forgetful for p in self.processes if p.name == "haproxy")

    def begin(self, process):
        self.processes.append(process)
        process.start()

    def unable(self, chain, case):
        """Those of a chain that cannot do it even alone."""
        return [n for n in sorted(chain.programs()) if self.able.get((n, case))] + \
               [f"{n} ({why})" for (n, what), why in CANNOT.items() if n in chain.name and what is case]

    def run(self):
        number = failed = 0
        cases = [(name, case) for name, case in CASES]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            able = {(n, case): pool.submit(attempt, case, chain) for n, chain in self.alone.items()
                    for _, case in cases}
            self.able = {k: v.result()[1] if v.result()[0] == "failed" else None for k, v in able.items()}
            jobs = []
            for io in BACK_ENDS:
                for chain in self.chains[io]:
                    for name, case in cases:
                        text = f"{chain.name.replace(' ', ' > ')}: {name} ({io})"
                        if ONLY not in text:
                            continue
                        weak = self.unable(chain, case)
                        jobs.append((text, chain, weak, None if weak else pool.submit(attempt, case, chain)))
            for text, chain, weak, job in jobs:
                number += 1
                outcome, why = ("skip", ", ".join(weak) + " cannot") if weak else job.result()
                if outcome == "failed" and self.forgotten(chain):
                    outcome, why = "skip", f"HAProxy kept streams without a reason ({why})"
                failed += outcome == "failed"
                print(f"{'not ' * (outcome == 'failed')}ok {number} - {text}" +
                      f" # SKIP {why}" * (outcome == "skip"), flush=True)
                if outcome == "failed":
                    print("# " + why[:1500].replace("\n", "\n# "), flush=True)
                    print("".join(f"# {line[:700]}\n" for line in self.told(chain)[-3:]), end="", flush=True)
        return number, failed

    def told(self, chain):
        """Errors in portico's logs about where the chain goes on."""
        to = [f"127.0.0.1:{p.next_port}" for p in chain.places if p.program == "portico"]
        logs = [p.all_said() for p in self.processes if p.name == "portico"]
        return [line for log in logs for line in log.splitlines() if '"level":"error"' in line and
                any(t in line for t in to)]

    def end(self):
        self.over.set()
        for process in self.processes[::-1]:
            process.end()


def reloads(run):
    """nginx gives itself a new configuration while requests go through portico to it."""
    nginx = next((p for p in run.processes if p.name == "nginx"), None)
    if nginx is None:
        raise Skip("nginx is not installed")
    for io in BACK_ENDS:
        chain = next(c for c in run.chains[io] if c.name == "portico nginx")
        stop, wrong = threading.Event(), []

        def client():
            t = chain.talk()
            while not stop.is_set():
                mark = token()
                t.ask(b"/hello?t=" + mark)
                a = t.answer()
                if (a.status, a.body) != (200, b"hello " + mark):
                    wrong.append((a.status, a.body))
            t.close()
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            clients = [pool.submit(client) for _ in range(6)]
            for _ in range(3):
                time.sleep(0.15)
                nginx.tell(signal.SIGHUP)
            time.sleep(0.2)
            stop.set()
            for c in clients:
                c.result()
        same(wrong, [])


def main():
    run = Run()
    try:
        run.start()
        number, failed = run.run()
        more = [("what the server saw was well-formed", lambda: same(run.origin.wrong, [])),
                ("nginx reloads behind portico, and no request fails", lambda: reloads(run))]
        for name, case in more:
            number += 1
            try:
                case()
                print(f"ok {number} - {name}", flush=True)
            except Skip as why:
                print(f"ok {number} - {name} # SKIP {why}", flush=True)
            except Exception as e:
                failed += 1
                print(f"not ok {number} - {name}\n# {type(e).__name__}: {str(e)[:1500]!r}", flush=True)
        for chain in run.missing:
            number += 1
            print(f"ok {number} - {chain} # SKIP one of them is not installed", flush=True)
    finally:
        run.end()
    print(f"1..{number}")
    sys.exit(1 if failed else 0)


main()
