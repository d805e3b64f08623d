#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gRPC through the gateway, by Debian's python3-grpcio on both sides: clients in clear text and over TLS, a server
of h2c, on both I/O back ends, as TAP. Messages are bytes, which needs no compiler. What is told of a call (its status,
metadata before and behind, deadlines, cancellation) must arrive as if nobody stood between.
Usage: grpc_test.py PORTICO [TEXT]; any program with caddy's commands can stand in for portico."""
import concurrent.futures
import http.client
import os
import sys
import threading
import time

sys.dont_write_bytecode = True
import peers  # noqa: E402 (beside this file)
from certificates import Authority  # noqa: E402
from server import BACK_ENDS, Skip, free_port, has, run_cases, same  # noqa: E402

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
os.environ["GRPC_VERBOSITY"] = "NONE"
try:
    import grpc
except ImportError:
    print("1..0 # SKIP python3-grpcio is not installed")
    sys.exit(0)

PROGRAM = os.path.abspath(sys.argv[1])
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
         ("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
PATIENCE = 20


class Service(grpc.GenericRpcHandler):
    """What each method does; events tell a test what was seen here."""

    def __init__(self):
        self.events, self.lock = {}, threading.Lock()
        pool = concurrent.futures.ThreadPoolExecutor(80)
        self.server = grpc.server(pool, handlers=[self], options=SIZES)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def event(self, *key):
        with self.lock:
            return self.events.setdefault(key, threading.Event())

    def service(self, details):
        kind = {"unary": grpc.unary_unary_rpc_method_handler, "down": grpc.unary_stream_rpc_method_handler,
                "up": grpc.stream_unary_rpc_method_handler, "both": grpc.stream_stream_rpc_method_handler}
        name = details.method.rpartition("/")[2]
        method = getattr(self, "on_" + name, None)
        return kind[name.split("_")[0]](method) if method else None

    @staticmethod
    def mark(context):
        return dict(context.invocation_metadata()).get("mark", "")

    @staticmethod
    def on_unary_echo(request, context):
        asked = dict(context.invocation_metadata())
        context.send_initial_metadata([("first", asked.get("word", "")), ("raw-bin", asked.get("raw-bin", b""))])
        context.set_trailing_metadata([("last", "w" * 300), ("other-bin", b"\0\xff")])
        return request

    @staticmethod
    def on_unary_fail(request, context):
        context.set_trailing_metadata([("why", "because")])
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing, schön: 100%\n")

    def on_unary_wait(self, request, context):
        """Until the call is over for whatever reason."""
        mark = self.mark(context)
        context.add_callback(self.event(mark, "over").set)
        self.event(mark, "came").set()
        self.event(mark, "over").wait(PATIENCE)
        return b"too late"

    @staticmethod
    def on_down_count(request, context):
        for i in range(int(request)):
            yield b"%d" % i

    def on_down_steps(self, request, context):
        """Each when the test wants it; ends with what the trailing metadata say."""
        mark = self.mark(context)
        for i in range(3):
            yield b"%d" % i
            if not self.event(mark, i).wait(PATIENCE):
                context.abort(grpc.StatusCode.INTERNAL, "the test did not go on")
        context.set_trailing_metadata([("end", "well")])

    def on_down_endless(self, request, context):
        mark = self.mark(context)
        context.add_callback(self.event(mark, "over").set)
        while context.is_active():
            yield b"x" * 1000
            time.sleep(0.005)

    @staticmethod
    def on_down_fail(request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "in the middle")

    @staticmethod
    def on_up_sum(requests, context):
        return b"%d" % sum(len(r) for r in requests)

    @staticmethod
    def on_up_early(requests, context):
        """Answers after the first, whatever else comes."""
        return next(iter(requests))

    @staticmethod
    def on_both_echo(requests, context):
        yield from requests


class Front(peers.Process):
    """The gateway, with a listener in clear text and one with TLS."""

    def __init__(self, authority, service_port, io):
        self.plain, self.tls, self.admin, self.up = free_port(), free_port(), free_port(), service_port
        self.note = "first"
        super().__init__("front", [], authority, [PROGRAM, "run", "--adapter", "caddyfile", "--config", ""],
                         {"PORTICO_IO": io, "PORTICO_WORKERS": "2"})
        self.argv[-1] = self.file

    def text(self):
        return (f"{{\n\tadmin localhost:{self.admin}\n\tauto_https off\n\tskip_install_trust\n"
                f"\tservers 127.0.0.1:{self.plain} {{\n\t\tprotocols h1 h2c\n\t}}\n}}\n"
                f"http://:{self.plain} {{\n\tbind 127.0.0.1\n\theader note {self.note}\n\treverse_proxy h2c://127.0.0.1:{self.up}\n}}\n"
                f"https://:{self.tls} {{\n\tbind 127.0.0.1\n\ttls {self.pem} {self.key}\n"
                f"\treverse_proxy h2c://127.0.0.1:{self.up}\n}}\n")

    def start(self):
        super().start()
        for port in (self.plain, self.tls, self.admin):
            self.await_port(port)
        return self

    def reload(self, note):
        self.note = note
        c = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE)
        c.request("POST", "/load", self.text(), {"Host": f"localhost:{self.admin}", "Content-Type": "text/caddyfile"})
        answer = c.getresponse()
        assert answer.status == 200, answer.read()
        c.close()


class World:
    """All that runs, and a channel of each kind."""

    def __init__(self):
        self.authority = Authority("gRPC Root")
        self.authority.both = self.authority.leaf("front", "IP:127.0.0.1", "DNS:localhost")
        self.service, self.fronts, self.numbers = Service(), {}, 0
        self.lock = threading.Lock()

    def front(self, io):
        with self.lock:
            if io not in self.fronts:
                self.fronts[io] = Front(self.authority, self.service.port, io).start()
            return self.fronts[io]

    def channel(self, io, tls=False):
        front = self.front(io)
        if not tls:
            return grpc.insecure_channel(f"127.0.0.1:{front.plain}", options=SIZES)
        with open(self.authority.root, "rb") as f:
            trusted = grpc.ssl_channel_credentials(f.read())
        return grpc.secure_channel(f"localhost:{front.tls}", trusted, options=SIZES)

    def mark(self):
        with self.lock:
            self.numbers += 1
            return f"m{self.numbers}"


WORLD = World()


def method(channel, name):
    kind = {"unary": channel.unary_unary, "down": channel.unary_stream, "up": channel.stream_unary,
            "both": channel.stream_stream}[name.split("_")[0]]
    return kind("/test.Service/" + name)


def fails(code, call):
    try:
        got = call()
    except grpc.RpcError as e:
        assert e.code() == code, (e.code(), code, e.details(), e.initial_metadata(), e.trailing_metadata())
        return e
    raise AssertionError(f"{got!r} instead of {code}")


def over_both(case):
    """Of a case for one channel: for one in clear text and one over TLS."""
    def run(io):
        for tls in (False, True):
            with WORLD.channel(io, tls) as channel:
                case(channel, io)
    return run


def unary(channel, io):
    for body in (b"", b"hello", b"\0" * 70000):
        got, call = method(channel, "unary_echo").with_call(
            body, timeout=PATIENCE, metadata=[("word", "a b"), ("raw-bin", b"\1\2\0\xfe")])
        same(got, body)
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        same((first["first"], first["raw-bin"]), ("a b", b"\1\2\0\xfe"))
        same((last["last"], last["other-bin"]), ("w" * 300, b"\0\xff"))


def failures(channel, io):
    e = fails(grpc.StatusCode.NOT_FOUND, lambda: method(channel, "unary_fail")(b"x", timeout=PATIENCE))
    same((e.details(), dict(e.trailing_metadata())["why"]), ("nothing, schön: 100%\n", "because"))
    fails(grpc.StatusCode.UNIMPLEMENTED, lambda: channel.unary_unary("/test.Service/nothing")(b"", timeout=PATIENCE))
    got = []
    e = fails(grpc.StatusCode.DATA_LOSS, lambda: got.extend(method(channel, "down_fail")(b"", timeout=PATIENCE)))
    same((got, e.details()), ([b"one", b"two"], "in the middle"))


def down(channel, io):
    same(list(method(channel, "down_count")(b"300", timeout=PATIENCE)), [b"%d" % i for i in range(300)])
    same(list(method(channel, "down_count")(b"0", timeout=PATIENCE)), [])


def steps(channel, io):
    """Each message is there before the next is made; the trailers come last."""
    mark = WORLD.mark()
    call = method(channel, "down_steps")(b"", timeout=PATIENCE, metadata=[("mark", mark)])
    for i in range(3):
        same(next(call), b"%d" % i)
        WORLD.service.event(mark, i).set()
    same(list(call), [])
    same((call.code(), dict(call.trailing_metadata())["end"]), (grpc.StatusCode.OK, "well"))


def up(channel, io):
    messages = [b"x" * (i * 37 % 5000) for i in range(300)]
    same(method(channel, "up_sum")(iter(messages), timeout=PATIENCE), b"%d" % sum(map(len, messages)))
    same(method(channel, "up_sum")(iter([]), timeout=PATIENCE), b"0")


def early(channel, io):
    """The answer comes before the client has ended."""
    stop = threading.Event()

    def messages():
        yield b"first"
        stop.wait(PATIENCE)
    same(method(channel, "up_early")(messages(), timeout=PATIENCE), b"first")
    stop.set()


def ping_pong(channel, io):
    """Each message is answered before the next is said."""
    said = threading.Semaphore(1)

    def messages():
        for i in range(50):
            assert said.acquire(timeout=PATIENCE)
            yield b"%d" % i * (i * 50)
    got = 0
    for i, answer in enumerate(method(channel, "both_echo")(messages(), timeout=PATIENCE)):
        same(answer, b"%d" % i * (i * 50))
        got += 1
        said.release()
    same(got, 50)


def deadline(channel, io):
    for patience in (0.5, 2, 8):  # until it came there before that was over
        mark = WORLD.mark()
        began = time.monotonic()
        fails(grpc.StatusCode.DEADLINE_EXCEEDED,
              lambda: method(channel, "unary_wait")(b"", timeout=patience, metadata=[("mark", mark)]))
        assert time.monotonic() - began < patience + 8
        if WORLD.service.event(mark, "came").is_set():
            break
    assert WORLD.service.event(mark, "over").wait(PATIENCE / 2), "the server does not know"


def cancelled(channel, io):
    mark = WORLD.mark()
    call = method(channel, "unary_wait").future(b"", timeout=PATIENCE * 3, metadata=[("mark", mark)])
    assert WORLD.service.event(mark, "came").wait(PATIENCE)
    assert not WORLD.service.event(mark, "over").is_set()
    call.cancel()
    assert WORLD.service.event(mark, "over").wait(PATIENCE), "the server does not know"
    mark = WORLD.mark()
    call = method(channel, "down_endless")(b"", timeout=PATIENCE * 3, metadata=[("mark", mark)])
    for _ in range(5):
        same(next(call), b"x" * 1000)
    call.cancel()
    assert WORLD.service.event(mark, "over").wait(PATIENCE), "the server still sends"
    same(method(channel, "unary_echo")(b"after", timeout=PATIENCE), b"after")


def large(channel, io):
    body = os.urandom(4 << 20)
    same(method(channel, "unary_echo")(body, timeout=PATIENCE) == body, True)
    same(list(method(channel, "both_echo")(iter([body, b"x", body]), timeout=PATIENCE)) == [body, b"x", body], True)


def compressed(channel, io):
    same(method(channel, "unary_echo")(b"again " * 20000, timeout=PATIENCE, compression=grpc.Compression.Gzip),
         b"again " * 20000)


def at_once(channel, io):
    """Fifty calls of all kinds on one connection of the client, each with its own answer."""
    def call(i):
        if i % 5 == 0:
            return list(method(channel, "down_count")(b"%d" % (i + 50), timeout=PATIENCE)) == [b"%d" % n for n in range(i + 50)]
        if i % 5 == 1:
            return method(channel, "up_sum")(iter([b"x" * i] * 100), timeout=PATIENCE) == b"%d" % (i * 100)
        if i % 5 == 2:
            return list(method(channel, "both_echo")(iter([b"%d" % i] * 20), timeout=PATIENCE)) == [b"%d" % i] * 20
        if i % 5 == 3:
            fails(grpc.StatusCode.NOT_FOUND, lambda: method(channel, "unary_fail")(b"", timeout=PATIENCE))
            return True
        return method(channel, "unary_echo")(b"%d" % i * 1000, timeout=PATIENCE) == b"%d" % i * 1000
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        same(list(pool.map(call, range(100))), [True] * 100)


def reload(channel, io):
    """A stream goes on over two reloads; what comes behind them has the new configuration."""
    mark, front = WORLD.mark(), WORLD.front(io)
    call = method(channel, "down_steps")(b"", timeout=PATIENCE * 2, metadata=[("mark", mark)])
    same(next(call), b"0")
    front.reload("second")
    WORLD.service.event(mark, 0).set()
    same(next(call), b"1")
    front.reload("third")
    with WORLD.channel(io) as other:
        _, fresh = method(other, "unary_echo").with_call(b"x", timeout=PATIENCE)
        same(dict(fresh.initial_metadata())["note"], "third")
    for i in (1, 2):
        WORLD.service.event(mark, i).set()
    same(list(call), [b"2"])
    same(call.code(), grpc.StatusCode.OK)


class Spot:
    """What a place of a chain passes on to, or stands before."""

    def __init__(self, port):
        self.kind, self.port = "h2c", port


def chained(before):
    """With another gateway before portico, or behind it."""
    def case(io):
        tried = 0
        for name in ("haproxy", "caddy"):
            if not peers.found(name):
                continue
            tried += 1
            # Without a flush_interval: where that is over, caddy sends a head that is its whole answer in two
            # frames, of which clients take the status for metadata.
            place = peers.Place(name, "h2c", Spot(WORLD.front(io).plain if before else WORLD.service.port), flush="")
            other = peers.KINDS[name](name, [place], WORLD.authority)
            front = None if before else Front(WORLD.authority, place.port, io)
            try:
                other.start()
                if front:
                    front.start()
                with grpc.insecure_channel(f"127.0.0.1:{place.port if before else front.plain}", options=SIZES) as channel:
                    for one in (unary, failures, down, steps, up, ping_pong, deadline, cancelled, large):
                        one(channel, io)
            finally:
                if front:
                    front.end()
                other.end()
        if tried == 0:
            raise Skip("neither haproxy nor caddy is installed")
    return case


def nobody(io):
    """No server: UNAVAILABLE, which clients try again."""
    front = Front(WORLD.authority, free_port(), io).start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{front.plain}", options=SIZES) as channel:
            e = fails(grpc.StatusCode.UNAVAILABLE, lambda: method(channel, "unary_echo")(b"", timeout=PATIENCE))
            has(e.details(), "502")
    finally:
        front.end()


def ends(io):
    front = WORLD.fronts.pop(io, None)
    if front:
        status, text = front.end()
        assert status == 0 and "Sanitizer" not in text and "runtime error" not in text, (status, text)


CASES = [
    ("unary calls, with metadata before and behind", over_both(unary)),
    ("errors with their words and metadata, also in the middle of a stream", over_both(failures)),
    ("a stream of the server's", over_both(down)),
    ("messages come when they are made", over_both(steps)),
    ("a stream of the client's", over_both(up)),
    ("an answer before the client has ended", over_both(early)),
    ("both talk by turns", over_both(ping_pong)),
    ("a deadline, of which the server hears", over_both(deadline)),
    ("a call that is cancelled, of which the server hears", over_both(cancelled)),
    ("messages of 4 MiB", over_both(large)),
    ("messages that are compressed", over_both(compressed)),
    ("a hundred calls, fifty at once", over_both(at_once)),
    ("a stream goes on over reloads", over_both(reload)),
    ("through HAProxy and caddy before portico", chained(True)),
    ("through HAProxy and caddy behind portico", chained(False)),
    ("without a server: UNAVAILABLE", nobody),
    ("it ends cleanly", ends),
]

try:
    run_cases(CASES, BACK_ENDS)
finally:  # also where the last case was not among those that were chosen
    for left in list(WORLD.fronts):
        ends(left)
