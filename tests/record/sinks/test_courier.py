import threading
import time

from gptshake.record.sinks.courier import Courier


def test_calls_are_made_in_their_order_on_another_thread() -> None:
    courier, made = Courier(), []
    for number in range(100):
        courier.do(lambda number=number: made.append((number, threading.current_thread())))
    assert courier.wait(5)
    assert [number for number, _ in made] == list(range(100))
    assert {thread for _, thread in made} != {threading.current_thread()} and len({thread for _, thread in made}) == 1


def test_a_call_that_hangs_holds_up_nobody_who_hands_over_or_waits() -> None:
    courier, hang = Courier(), threading.Event()
    courier.do(lambda: hang.wait(30))
    began = time.monotonic()
    for _ in range(1000):
        courier.do(lambda: None)
    assert not courier.wait(0.05)
    assert time.monotonic() - began < 5
    assert courier.backlog > 900
    hang.set()
    assert courier.wait(5)


def test_after_a_failure_the_rest_is_dropped_and_the_reason_kept() -> None:
    courier, made = Courier(), []
    for number in (1, 0, 2):
        courier.do(lambda number=number: made.append(1 / number))
    assert courier.wait(5)
    assert made == [1] and isinstance(courier.error, ZeroDivisionError)


def test_a_dismissed_courier_ends_its_thread() -> None:
    before = set(threading.enumerate())
    courier = Courier()
    (thread,) = set(threading.enumerate()) - before
    courier.dismiss()
    thread.join(5)
    assert not thread.is_alive()
