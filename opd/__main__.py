"""`python -m opd`: the command line."""

from opd.cli import main

main()
