"""Which signal an error comes from, however it was wrapped on its way."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gptshake.errors import DataError, Stop
from gptshake.signals import stop_behind


def caught(*errors: BaseException) -> BaseException:
    """The last of several errors, each raised while the one before it was handled."""
    first, *others = errors
    try:
        try:
            raise first
        except BaseException:
            if others:
                raise caught(*others) from None
            raise
    except BaseException as error:
        return error


@pytest.mark.parametrize("errors", [[Stop(15)], [Stop(15), OSError()], [Stop(15), OSError(), ValueError()]])
def test_a_signal_is_found_behind_what_came_of_it(errors: list[BaseException]) -> None:
    found = stop_behind(caught(*errors))
    assert found is errors[0]


def test_an_error_that_is_raised_anew_out_of_what_wrapped_it_is_no_signal_and_takes_no_time() -> None:
    inner = DataError("not there")
    try:
        try:
            raise ValueError("could not be made") from inner
        except ValueError:
            raise inner from None
    except DataError as error:
        assert error.__context__ is not None and error.__context__.__cause__ is error
        assert stop_behind(error) is None


def test_signals_that_nohup_and_a_background_job_leave_ignored_arrive_in_the_tests() -> None:
    code = (
        "import signal, sys; sys.path.insert(0, sys.argv[1]); import conftest; "
        "print([name for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT') if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN])"
    )
    start = 'trap "" INT TERM HUP QUIT; exec "$@"'
    words = ["sh", "-c", start, "sh", sys.executable, "-c", code, str(Path(__file__).parent)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_traceback() -> None:
    code = """
import os, signal, sys
class Interrupt:
    def find_spec(name, *_):
        if name == "gptshake.config.arguments":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt)
from gptshake.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")  # which a shell calls 130


def test_a_signal_that_is_answered_before_the_watching_thread_looks_first_ends_nothing() -> None:
    code = """
import os, signal, threading, time
from gptshake import signals
class Late(threading.Thread):
    def run(self):
        time.sleep(0.2)
        super().run()
signals.threading.Thread, signals.SECOND = Late, 0.2
signals.SIGNALS.install()
with signals.SIGNALS.deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
print(signals.SIGNALS.received)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "15\n", "")


def test_a_signal_that_the_main_thread_does_not_answer_ends_the_process_with_its_code_and_a_sentence() -> None:
    """As in a call into a library that does not return."""
    code = """
import hashlib, os, signal, threading, time
from gptshake import signals
signals.GRACE = signals.SECOND = 0.2
signals.SIGNALS.install()
threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGTERM]).start()
hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "")
    assert done.stderr == "error: signal 15 was not answered, as a call into a library does not return; the last checkpoint is kept\n"
