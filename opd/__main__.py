"""`opd`, and `python -m opd`: the command line."""

import signal


def start() -> None:
    """Run it; until there is somebody who says so in a line, Ctrl-C ends it without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from opd.cli import main

    main()


if __name__ == "__main__":
    start()
