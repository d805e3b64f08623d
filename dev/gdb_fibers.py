# SPDX-License-Identifier: Apache-2.0
"""gdb's view of fibers. `source dev/gdb_fibers.py`, then in a stopped portico or a core of one:

    fibers            the fibers of the selected thread's loop, each with its innermost frames
    fibers all        of every thread's loop, with whole backtraces

A suspended fiber's registers lie on its own stack, where fiber_switch (loop/switch_*.S) left them;
they are put into gdb's frame for the length of a backtrace and put back.
"""
import gdb

# Where the words of a saved frame belong: (register, word), from the stack pointer up.
SAVED = {
    "x86-64": ([("r15", 0), ("r14", 1), ("r13", 2), ("r12", 3), ("rbx", 4), ("rbp", 5), ("rip", 6)], 7, "rsp"),
    "aarch64": ([(f"x{19 + i}", i) for i in range(11)] + [("pc", 11), ("x30", 11)], 20, "sp"),
}


def layout():
    name = gdb.selected_frame().architecture().name()
    return SAVED["aarch64" if "aarch64" in name else "x86-64"]


def words(address, count):
    memory = gdb.selected_inferior().read_memory(address, 8 * count)
    return [int.from_bytes(memory[8 * i:8 * i + 8], "little") for i in range(count)]


def members(head, kind):
    """The structures whose first member is a node of an intrusive list."""
    node = head["next"]
    while node != head.address:
        yield node.cast(kind.pointer())
        node = node["next"]


def backtrace(fiber, limit):
    """The frames of a suspended fiber, as text."""
    registers, count, stack = layout()
    saved = words(int(fiber["sp"]), count)
    before = {r: int(gdb.parse_and_eval(f"(unsigned long)${r}")) for r, _ in registers + [(stack, 0)]}
    try:
        gdb.execute(f"set ${stack} = {int(fiber['sp']) + 8 * count}")
        for register, word in registers:
            gdb.execute(f"set ${register} = {saved[word]}")
        return gdb.execute(f"backtrace {limit}", to_string=True)
    finally:
        gdb.execute(f"set ${stack} = {before[stack]}")
        for register, _ in registers:
            gdb.execute(f"set ${register} = {before[register]}")


def show(loop, limit):
    kind = gdb.lookup_type("struct fiber")
    pool = loop["fibers"]
    print(f"{int(pool['live_count'])} live, {int(pool['free_count'])} free")
    for i, fiber in enumerate(members(pool["live"], kind)):
        entry = str(fiber["entry"]).split("<")[-1].rstrip(">")
        if fiber == pool["current"]:
            print(f"fiber {i} {fiber}: {entry}, running: see the thread's own backtrace")
            continue
        print(f"fiber {i} {fiber}: {entry}")
        print(backtrace(fiber.dereference(), limit))


class Fibers(gdb.Command):
    """Lists the fibers of this thread's loop; `fibers all` those of every thread, in full."""

    def __init__(self):
        super().__init__("fibers", gdb.COMMAND_STACK)

    def invoke(self, argument, from_tty):
        everything = argument.strip() == "all"
        selected = gdb.selected_thread()
        frame = gdb.selected_frame()
        threads = gdb.selected_inferior().threads() if everything else [selected]
        for thread in sorted(threads, key=lambda t: t.num):
            thread.switch()
            loop = gdb.parse_and_eval("'loop.c'::self")
            if int(loop) != 0:
                print(f"thread {thread.num} ({thread.name}): ", end="")
                show(loop.dereference(), 100 if everything else 6)
        selected.switch()
        frame.select()


Fibers()
