"""An export on the Hugging Face hub: private unless that is said, and only what was found to be the learner's model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opd.types import RunError, UserError


@dataclass(frozen=True)
class Repo:
    """A model's repository on the hub, which need not be there yet."""

    name: str
    public: bool = False

    def check(self) -> None:
        """Refuse, before anything is made, what the hub would not take.

        Raises:
            UserError: No name of a repository, nobody logged in, or one that is there and not for the same eyes.
            RunError: The hub cannot be reached.
        """
        from huggingface_hub import constants
        from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.name):
            raise UserError(f"--push={self.name}: a repository is OWNER/NAME, of letters, digits, and - _ .")
        if constants.HF_HUB_OFFLINE:
            raise UserError(f"--push={self.name}: HF_HUB_OFFLINE is set; unset it, or leave --push out")
        api = hub()
        if api.token is None:
            raise UserError(f"--push={self.name}: nobody is logged in; `hf auth login` does it, or HF_TOKEN=... before")
        try:
            api.whoami()
            there = api.repo_info(self.name)
        except RepositoryNotFoundError:
            return
        except HFValidationError as e:
            raise UserError(f"--push={self.name}: {_first(e)}") from e
        except Exception as e:  # httpx's and the hub's own, which are of many kinds: none is a mistake of this program
            raise RunError(f"--push={self.name}: the hub does not answer as it should: {_first(e)}") from e
        if not there.private and not self.public:
            raise UserError(
                f"--push={self.name}: it is there, and everybody can read it; say --public, or name another one"
            )

    def push(self, folder: Path) -> None:
        """Upload an export in one commit; RunError where the hub does not take it, the export stays where it is."""
        from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

        shown = not are_progress_bars_disabled()
        disable_progress_bars()  # the console says what is being done
        try:
            api = hub()
            api.create_repo(self.name, private=not self.public, exist_ok=True)
            api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=f"opd export: {folder.name}")
        except Exception as e:  # as above, and those of files
            raise RunError(f"--push={self.name}: {_first(e)}; the export is whole, at {folder}") from e
        finally:
            if shown:
                enable_progress_bars()


def asked(name: str | None, public: bool) -> Repo | None:
    """What the options ask for."""
    if name is None and public:
        raise UserError("--public: it is about --push OWNER/NAME, which is not given")
    return None if name is None else Repo(name, public)


def hub() -> Any:
    """The hub, with the token of who is logged in."""
    from huggingface_hub import HfApi, get_token

    return HfApi(token=get_token())


def _first(error: Exception) -> str:
    """The first line of what a library has to say."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
