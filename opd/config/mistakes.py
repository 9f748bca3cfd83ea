"""What Hydra, OmegaConf and YAML say of a config, as one line for its writer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from opd.config import catalog
from opd.hints import among, nearest
from opd.types import UserError


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML say into one line."""
    try:
        yield
    except OmegaConfBaseException as e:
        raise UserError((f"{e.full_key}: " if e.full_key else f"conf={path}: ") + str(e).splitlines()[0]) from e
    except MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        where = f"conf={mark.name}: line {mark.line + 1}" if mark else f"conf={path}"
        raise UserError(f"{where} is not YAML: {e.problem}") from e
    except (HydraException, ValueError) as e:
        raise UserError(f"conf={path}: {of_hydra(str(e), path.parent)}") from e
    except RecursionError as e:
        raise UserError(
            f"conf={path}: defaults: they lead back to where they began; a config that starts from {path.stem} needs "
            "another name than that, and so does an option of a group"
        ) from e
    except (YAMLError, OSError) as e:
        raise UserError(f"conf={path}: it cannot be read: {e}") from e


def of_hydra(text: str, beside: Path) -> str:
    """What Hydra says of a defaults list, with the nearest match and without its search path."""
    if unknown := re.search(r"Could not find '([\w/]+)/([\w.-]+)'", text):
        group, given = unknown.groups()
        return f"defaults: {group}={given}: no such {group}{among(given, catalog.options(group, beside))}"
    if unknown := re.search(r"Could not load '([\w/.-]+)'", text):
        return f"defaults: no such config {unknown[1]}{among(unknown[1], ['base', *catalog.shipped()])}"
    if unknown := re.search(r"Could not override '([\w/@.-]+)'", text):
        return f"defaults: there is no {unknown[1]} to override{nearest(unknown[1], catalog.groups())}"
    return text.split("Config search path")[0]
