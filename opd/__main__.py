"""`python -m opd`: the command line."""

from opd.commands.cli import main

main()
