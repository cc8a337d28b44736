"""One round of the keeper's loop: every event reaches the descriptor it was of, and no other; what is put off comes before all else, or soon."""

import os
import time

from supervisor.keeper.loop import Keeper


def test_an_event_of_a_closed_descriptor_does_not_reach_the_one_that_got_its_number_in_the_same_round(tmp_path):
    keeper = Keeper(str(tmp_path), ["/bin/false"])
    first, second = os.pipe(), os.pipe()
    reached = []

    def replace_the_other(fd, other):
        def act(_events):
            reached.append(fd)
            keeper._unwatch(fd)
            keeper._unwatch(other)
            os.close(other)
            fresh, fresh_write = os.pipe()  # takes the lowest number that is free: the one just given back
            assert fresh == other
            pipes.append((fresh, fresh_write))
            keeper._watch(fresh, lambda _events: reached.append("the fresh one"))

        return act

    pipes = []
    keeper._watch(first[0], replace_the_other(first[0], second[0]))
    keeper._watch(second[0], replace_the_other(second[0], first[0]))
    os.write(first[1], b"x")
    os.write(second[1], b"x")
    try:
        keeper._round()
        assert len(reached) == 1  # whichever came first took the other away; nobody is called for the stale event

        os.write(pipes[0][1], b"x")
        keeper._round()
        assert reached[1:] == ["the fresh one"]  # its own event does reach it
    finally:
        for fd in {reached[0], first[1], second[1], *pipes[0]}:
            os.close(fd)


def test_what_was_put_off_is_done_before_anything_else_happens_or_without_it(tmp_path):
    keeper, done = Keeper(str(tmp_path), ["/bin/false"]), []
    first, second = os.pipe(), os.pipe()

    def put_off(_events):
        done.append("asked")
        keeper._put_off += [lambda: done.append("put off"), lambda: 1 / 0, lambda: done.append("after one that failed")]
        os.read(first[0], 1)

    def read(_events):
        os.read(second[0], 1)
        done.append("another")

    whole = ["asked", "put off", "after one that failed"]
    try:
        keeper._watch(first[0], put_off)
        os.write(first[1], b"x")
        keeper._round()
        assert done == ["asked"]
        begin = time.monotonic()
        keeper._round()  # nothing comes
        assert done == whole
        assert time.monotonic() - begin < 60  # not the hour that it waits for something to come

        done.clear()
        os.write(first[1], b"x")
        keeper._round()
        keeper._watch(second[0], read)
        os.write(second[1], b"x")
        keeper._round()
        assert done == [*whole, "another"]

        done.clear()
        os.write(first[1], b"x")
        keeper._round()
        keeper._after(0.0, lambda: done.append("a timer"))
        keeper._round()
        assert done == [*whole, "a timer"]
    finally:
        for fd in (*first, *second):
            os.close(fd)
