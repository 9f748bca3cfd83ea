"""`opd`, and `python -m opd`: the command line."""

import os
import signal
import sys


def start() -> None:
    """Run it; until there is somebody who says so in a line, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.getfilesystemencoding() != "utf-8":  # all text is UTF-8, also what libraries read, whatever the locale
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, sys.orig_argv)
    from opd.cli import main

    main()


if __name__ == "__main__":
    start()
