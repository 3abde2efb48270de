"""Entry point of ``python -m gptshake`` and of the console script ``gptshake``.

Composes and checks the config, applies the guard, names the run, lets Hydra run one task (or several, with ``-m``), and
prints every error as a sentence with its exit code: 2 for a user's mistake, 1 for a failure, 128+n for a signal. Nothing
heavy is imported and nothing is written to the disk before the checks have passed.
"""

import os
import sys
import traceback
from typing import NoReturn

from gptshake import ranks
from gptshake.config.argv import Arguments, parse
from gptshake.console import protect
from gptshake.errors import GptshakeError, Stop
from gptshake.signals import SIGNALS, stop_behind


def main() -> NoReturn:
    """Run the command line; never returns."""
    protect()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0") or "debug=default" in sys.argv
    try:
        if ranks.follows():
            _follow(parse(sys.argv[1:]))
        else:
            SIGNALS.install()
            _run(parse(sys.argv[1:]))
        code = 0
    except (Stop, Exception) as error:
        code = _told(error, wants_traceback)
    sys.exit(code)


def _told(error: BaseException, wants_traceback: bool) -> int:
    """Say what ended the command, and give its exit code."""
    if stop := stop_behind(error):
        return stop.exit_code
    if isinstance(error, GptshakeError):
        _complain(str(error), wants_traceback)
        return error.exit_code
    from gptshake.files import storage_error

    if found := storage_error(error):
        _complain(str(found), wants_traceback)
        return found.exit_code
    _complain(f"{type(error).__name__}: {error} (HYDRA_FULL_ERROR=1 shows where)", wants_traceback)
    return 1


def _run(arguments: Arguments) -> None:
    if arguments.version:
        from gptshake import __version__

        print(f"gptshake {__version__}")
        return
    if arguments.help:
        from gptshake.config.describe import pages
        from gptshake.config.help import help_page
        from gptshake.config.layout import add_folder

        add_folder(arguments.config_dir)
        print(pages(arguments.overrides) or help_page())
        return
    from gptshake.start import start

    start(arguments)


def _follow(arguments: Arguments) -> None:
    """Train along with the process that reads the command line; what only prints is done by that one."""
    if arguments.version or arguments.help or arguments.shows_only:
        return
    ranks.quiet()
    from gptshake.assemble import follow

    follow()


def _complain(sentence: str, wants_traceback: bool) -> None:
    """Say what went wrong, without the secrets that an address or a value may hold."""
    from gptshake.console import printable
    from gptshake.redaction import redact

    if wants_traceback:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
    where = f"rank {os.environ['RANK']}: " if ranks.follows() else ""
    print(f"error: {where}{printable(redact(sentence))}", file=sys.stderr)


if __name__ == "__main__":
    main()
