# ruff: noqa: B018, RUF006, SIM105  (the mistakes are what it is for)
"""One bug in many costumes: visit calls follow calls visit, and nobody asks whether the user was seen before.

argv: costume. Bounded by its own alarm and address space, in case nobody else stops it. Standard library only, any CPython from 3.11.
"""

import os
import resource
import signal
import sys
import time

KIND = sys.argv[1]
signal.alarm(50)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
WITHOUT_END = 10**9

if KIND.startswith("raised") or KIND.endswith("raised"):
    sys.setrecursionlimit(WITHOUT_END)
if KIND.startswith("bypass"):
    import ctypes

    ctypes.pythonapi.Py_SetRecursionLimit(WITHOUT_END)


class Node:
    """Knows the next one, and itself as that."""

    def __init__(self, number=0):
        self.number = number


# ---------------------------------------------------------------- the bug and its costumes


def visit(user, graph):
    return follow(user + 1, graph)


def follow(user, graph):
    return visit(user, graph)


def start():
    visit(0, {})


match KIND:
    case "omitted" | "unguarded-omitted":  # gh-132744: 3.13.0 to 3.13.7 never raise

        def visit(user, graph=None):
            return follow(user + 1)

        def follow(user, graph=None):
            return visit(user)

    case "growing" | "raised-growing":

        def visit(user, graph):
            return follow(user, [*graph, user])

        def follow(user, graph):
            return visit(user, graph)

        def start():
            visit(0, [])

    case "star" | "raised-star":

        def visit(*users, **graph):
            return follow(*users, **graph)

        def follow(*users, **graph):
            return visit(*users, **graph)

        def start():
            visit(1, 2, graph={})

    case "swallow-loop":

        def start():
            while True:
                try:
                    visit(0, {})
                except Exception:
                    pass

    case "swallow-tree":  # 2 to the power of the limit: it never comes back

        def visit(user, graph):
            try:
                follow(user, graph)
            except Exception:
                pass
            try:
                follow(user, graph)
            except Exception:
                pass

    case "thread" | "thread-raised" | "bypass-thread":

        def start():
            import threading

            thread = threading.Thread(target=visit, args=(0, {}))
            thread.start()
            thread.join()
            sys.exit(1)

    case "generator" | "raised-generator":

        def visit(user, graph):
            yield user
            yield from follow(user + 1, graph)

        def follow(user, graph):
            yield from visit(user, graph)

        def start():
            for _ in visit(0, {}):
                pass

    case "await" | "raised-await":

        async def visit(user, graph):
            return await follow(user + 1, graph)

        async def follow(user, graph):
            return await visit(user, graph)

        def start():
            import asyncio

            asyncio.run(visit(0, {}))

    case "sorted" | "raised-sorted" | "sorted-thread-raised":

        def visit(user, graph=None):
            return sorted([user], key=follow)

        def follow(user):
            return visit(user)

        if KIND == "sorted-thread-raised":

            def start():
                import threading

                thread = threading.Thread(target=visit, args=(0, {}))
                thread.start()
                thread.join()
                sys.exit(1)

    case "reduce" | "raised-reduce":
        import functools

        def visit(user, graph):
            return functools.reduce(follow, [user, graph])

        def follow(user, graph):
            return visit(user, graph)

    case "cached" | "raised-cached":
        import functools

        @functools.lru_cache
        def visit(user, graph):
            return follow(user + 1, graph)

        @functools.lru_cache
        def follow(user, graph):
            return visit(user, graph)

        def start():
            visit(0, ())

    case "regex" | "raised-regex":
        import re

        def visit(user):
            return re.sub("a", follow, "abc")

        def follow(user):
            return visit(user)

        def start():
            visit("a")

    case "partial" | "raised-partial":
        import functools

        def visit(user, graph):
            return functools.partial(follow, user + 1, graph)()

        def follow(user, graph):
            return visit(user, graph)

    case "finally":  # each level has something to do on the way out

        def visit(user, graph):
            try:
                return follow(user + 1, graph)
            finally:
                graph.pop(user, None)

    # ------------------------------------------------------------ other bugs

    case "three" | "raised-three":

        def ask(user):
            return walk(user)

        def walk(user):
            return check(user)

        def check(user):
            return ask(user)

        def start():
            ask(Node())

    case "repr" | "raised-repr":

        class Node(Node):
            def __repr__(self):
                return f"<{self!r}>"

        def start():
            repr(Node())

    case "getattr" | "raised-getattr":

        class Node(Node):
            def __getattr__(self, name):
                return getattr(self, "_" + self.prefix)

        def start():
            Node().name

    case "init" | "raised-init":

        class Node(Node):
            def __init__(self, parent=None):
                self.child = Node(self)

        def start():
            Node()

    case "json-hook" | "raised-json-hook":  # a default() that encodes by itself
        import json

        def encode(value):
            return json.dumps(value, default=encode)

        def start():
            encode(Node())

    case "json-deep":  # a default() that always hands back something new: all levels are in C
        import json

        def wrap(value):
            return [Node()]

        def save():
            return json.dumps(Node(), default=wrap, check_circular=False)

        def start():
            save()

    case "pickle-hook" | "raised-pickle-hook":
        import pickle

        class Node(Node):
            def __reduce__(self):
                return (bytes, (pickle.dumps(self),))

        def start():
            pickle.dumps(Node())

    case "pickle-deep":
        import pickle

        def dump(chain):
            return pickle.dumps(chain)

        def start():
            chain = []
            for _ in range(100_000):
                chain = [chain]
            dump(chain)

    case "deepcopy" | "raised-deepcopy":  # all of the cycle is in the standard library
        import copy

        def clone(chain):
            return copy.deepcopy(chain)

        def start():
            chain = []
            for _ in range(100_000):
                chain = [chain]
            clone(chain)

    case "deepcopy-hook":
        import copy

        class Node(Node):
            def __deepcopy__(self, memo):
                return copy.deepcopy(self)

        def start():
            copy.deepcopy(Node())

    case "tasks" | "tasks-one" | "tasks-group" | "tasks-two":
        import asyncio

        def start():
            asyncio.run(begin())

        async def begin():
            await visit(0, {})
            await asyncio.sleep(1000)

        match KIND:
            case "tasks":  # each starts two

                async def visit(user, graph):
                    for _ in range(2):
                        asyncio.get_running_loop().create_task(visit(user + 1, graph))
                    await asyncio.sleep(0)

            case "tasks-one":  # each starts one and waits for it: a chain

                async def visit(user, graph):
                    await asyncio.create_task(visit(user + 1, graph))

            case "tasks-group":

                async def visit(user, graph):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(visit(user + 1, graph))
                        group.create_task(visit(user + 1, graph))

            case "tasks-two":  # by turns

                async def visit(user, graph):
                    await asyncio.gather(follow(user + 1, graph), follow(user + 1, graph))

                async def follow(user, graph):
                    asyncio.ensure_future(visit(user, graph))
                    await asyncio.sleep(1000)

    case "legal":  # deep, and comes back

        def start():
            sys.exit(count(300) - 300)

        def count(levels):
            return 0 if levels == 0 else 1 + count(levels - 1)

    case "deep-data":  # legal levels, and at the bottom too much data: what fills the memory is not the stack

        def start():
            sys.setrecursionlimit(5000)
            descend(1500, [])

        def descend(levels, rows):
            if levels:
                return descend(levels - 1, rows)
            while True:
                rows.append(bytes(5000))

    case "deep-walks":  # legal levels that come and go, and data that stays

        def start():
            sys.setrecursionlimit(5000)
            rows = []
            while True:
                descend(1500, rows)

        def descend(levels, rows):
            rows.append(bytes(50))
            if levels:
                descend(levels - 1, rows)

    case "caught":  # the job's own business

        def start():
            for _ in range(3):
                try:
                    visit(0, {})
                except RecursionError:
                    print("that was too deep")

    case "crowd":  # many tasks, none of which starts another
        import asyncio

        def start():
            asyncio.run(begin())

        async def begin():
            refused = []  # where it is always a task that is refused memory, and never this one, it would go on for ever
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: refused.append(context["exception"]))
            for number in range(10**7):
                asyncio.get_running_loop().create_task(visit(number, {}))
                if number % 100 == 0:
                    await asyncio.sleep(0)
                if refused:
                    raise refused[0]

        async def visit(user, graph):
            await asyncio.sleep(1000)

    case "processes":
        import subprocess

        def start():
            sys.exit(subprocess.run([sys.executable, __file__, KIND], check=False).returncode)


def main():
    if os.path.isdir(os.environ.get("BUG_FOLDER", "")):  # for who measures how long it lived
        with open(os.environ["BUG_FOLDER"] + "/stamp", "w") as file:
            file.write(repr(time.time()))
    start()


if __name__ == "__main__":
    main()
