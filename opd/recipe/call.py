"""`python -m opd.recipe.call RUN.PY STAGE WORK`: run one function of a recipe and print what it returns as JSON."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from opd.recipe.numbers import to_json
from opd.recipe.recipe import load
from opd.recipe.stage import Call
from opd.recipe.work import Work


def main(path: str, name: str, work: str) -> None:
    """Find the stage and call its function; what that prints goes to the log."""
    recipe = load(Path(path))
    stage = next(s for s in (*recipe.stages, *recipe.full) if s.name == name)
    assert isinstance(stage, Call)
    with redirect_stdout(sys.stderr):
        found = stage.function(Work(Path(work)))
    print(to_json(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
