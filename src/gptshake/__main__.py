"""Entry point of ``python -m gptshake`` and of the console script ``gptshake``.

Answers ``--help`` and ``--version`` without Hydra, hands everything else to ``cli.run``, and prints every error as a sentence with its
exit code: 2 for a user's mistake, 1 for a failure, 128+n for a signal. Imports within functions, so that Ctrl-C meanwhile prints no traceback.
"""

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until ours is installed
    from gptshake import __version__, torchrun
    from gptshake.config.arguments import parse
    from gptshake.config.layout import add_folder, check_working_directory
    from gptshake.console import protect, refuse_loss
    from gptshake.signals import SIGNALS

    protect()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0") or "debug=default" in sys.argv
    os.environ.update(torchrun.srun_variables(os.environ))
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a name that matplotlib does not know would end its import
    if os.environ.get("GPTSHAKE_CACHE") == "":  # as good as not set
        del os.environ["GPTSHAKE_CACHE"]
    follows, code = torchrun.follows(), 0
    ends_at_once = follows  # its torch threads may abort the interpreter's own end
    gc.disable()  # what a composition makes stays: looking through it again and again costs a sixth of the time
    try:
        if not follows:
            SIGNALS.install()
        torchrun.check_variables()
        check_working_directory()
        arguments = parse(sys.argv[1:])
        add_folder(arguments.config_dir)
        prints_only = arguments.version or arguments.help or arguments.shows_only
        ends_at_once = follows or prints_only  # nothing is left to tear down
        if follows:
            if not prints_only:  # rank 0 alone prints
                gc.enable()
                from gptshake.distributed import quiet

                quiet()
                from gptshake.setup.run import follow

                follow()
        elif arguments.version:
            print(f"gptshake {__version__}")
        elif arguments.help:
            from gptshake.config.help import help_page, pages

            print(pages(arguments.overrides) or help_page())
        elif arguments.shows_only:
            from gptshake.config.show import show

            show(arguments)
        else:
            from gptshake.cli import run

            if torchrun.launched() > 1:
                from gptshake.distributed import join

                join()
            prints_only = run(arguments) is None and not arguments.multirun
        if prints_only:
            refuse_loss()  # what a training prints is in its record, too
    except SystemExit:
        raise
    except BaseException as error:  # a panic in a library's Rust code is no Exception
        code = _report(error, wants_traceback)
    if ends_at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    gc.freeze()  # nor need the interpreter look for garbage at its end, which after torch and Lightning takes a second
    gc.enable()
    sys.exit(code)


def _report(error: BaseException, wants_traceback: bool) -> int:
    """Print what ended the command, without the secrets that an address or a value may hold; returns its exit code."""
    import traceback

    from gptshake.console import printable
    from gptshake.errors import GptshakeError
    from gptshake.files import place, storage_error
    from gptshake.redaction import redact
    from gptshake.signals import stop_behind
    from gptshake.torchrun import speaker

    if stop := stop_behind(error):
        return stop.exit_code
    where = f"{own}; " if (own := place(error)) else ""
    known = error if isinstance(error, GptshakeError) else storage_error(error)
    sentence = str(known) if known else f"{type(error).__name__}: {error} ({where}HYDRA_FULL_ERROR=1 shows where)"
    if wants_traceback:
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
    print(f"error: {speaker()}{printable(redact(sentence))}", file=sys.stderr)
    return known.exit_code if known else 1


if __name__ == "__main__":
    main()
