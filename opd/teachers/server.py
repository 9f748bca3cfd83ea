"""A teacher on a vLLM server: token ids in, log-probs of the prompt out, over the OpenAI-compatible API."""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from opd.hints import among
from opd.needs import Provides
from opd.teachers.reading import Reading
from opd.teachers.said import ENVELOPE, Card, Cards, read
from opd.teaching import Pupil
from opd.text.vocabulary import check_shared
from opd.types import Pretrained, UserError

if TYPE_CHECKING:
    from opd.teachers.client import Client, Refusal
    from opd.teachers.server_scorer import ServerScorer


@dataclass(frozen=True, kw_only=True)
class ServerTeacher(Reading):
    """Settings of a teacher on a server. Its log-probs are at temperature 1: vLLM gives no others for prompts."""

    url: str = "http://127.0.0.1:8000"
    """Where the server answers, as `opd serve-teacher MODEL` says it."""
    model: str | None = None
    """Name that it is served under. None: the only one that is."""
    tokenizer: str | None = None
    """Folder or hub name of its tokenizer. None: where the server says that the model is, else the model's name."""
    top_k: Annotated[int, Field(ge=0)] = 20
    """Likeliest tokens that it gives at most; a server's own limit, `--max-logprobs`, is 20 unless it is set."""
    api_key_env: str | None = None
    """NAME of the environment variable that holds the server's key. None: it wants none."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds that one request may take, waiting in the server's queue included."""
    patience: Annotated[float, Field(ge=0)] = 600.0
    """Seconds that the server may be away in mid-run, restart and loading included, before the run gives up."""
    concurrency: Annotated[int, Field(ge=1)] = 64
    """Requests under way at once."""
    trust_remote_code: bool = False
    """For the tokenizer, where `tokenizer` or `model` names it: not for whatever the server says."""

    def __post_init__(self) -> None:
        """Check the address, and that no key is written into a config."""
        super().__post_init__()
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "url: a name and a password in it would be kept in the run's config; put the key into an environment "
                "variable, and name that by api_key_env"
            )
        port = re.search(r":(\d+)(/|$)", self.url)
        there = re.fullmatch(r"https?://[^/\s]*[^/\s:](:\d{1,5})?(/\S*)?", self.url)
        if not there or (port and not 0 < int(port[1][:6]) < 2**16):
            raise ValueError(f"url={self.url}: allowed is http://HOST:PORT or https://HOST, with a port up to 65535")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env):
            raise ValueError("api_key_env: allowed is the name of an environment variable, not the key itself")

    @property
    def provides(self) -> Provides:
        """Log-probs of the sampled tokens, and of so many likeliest ones: its own, or on some servers the student's."""
        return Provides(logprobs=True, top_k=self.top_k, student_top_k=self.top_k)

    def checkpoint(self) -> None:
        """None: its weights are on the server."""

    def start(self, pupil: Pupil) -> ServerScorer:
        """Find the model on the server, and check that both sides mean the same by the same ids.

        Raises:
            UserError: no server, no such model, another vocabulary, or no log-probs to be had.
        """
        from opd.teachers.server_scorer import ServerScorer

        client = self._client()
        with ExitStack() as stack:
            stack.callback(client.close)
            card = self._card(client)
            tokenizer = self._tokenizer(card)
            self.check_template(tokenizer, pupil.chat)
            differences = tuple(check_shared(pupil.tokenizer, tokenizer))
            vocabulary = max(tokenizer.get_vocab().values()) + 1
            scorer = ServerScorer(
                self, tokenizer, client, self.url, min(self.top_k, vocabulary), self.refused,  # vLLM dies of more
                card.id, card.max_model_len, vocabulary, pupil.size, differences, pupil.learner,
            )  # fmt: skip
            scorer.check_length(pupil.longest)
            scorer = scorer.check(pupil.team)
            stack.pop_all()
        return scorer

    def check(self, pupil: Pupil) -> None:
        """Raise UserError where no server answers, or it has no such model, or that has another vocabulary."""
        client = self._client()
        try:
            tokenizer = self._tokenizer(self._card(client))
            self.check_template(tokenizer, pupil.chat)
            check_shared(pupil.tokenizer, tokenizer)
        finally:
            client.close()

    def _client(self) -> Client:
        from opd.teachers.client import Client

        root = re.sub(r"(/v1)?/*$", "", self.url)
        return Client(root, self._key(), self.timeout, self.patience, self.concurrency)

    def refused(self, error: Refusal) -> UserError:
        """A request that the server did not take, as a mistake that a person can mend."""
        from opd.teachers.client import Unreadable

        said = f"the server says: {error}" if not isinstance(error, Unreadable) else str(error)
        if error.status in (401, 403):
            return UserError(f"teacher.api_key_env={self.api_key_env}: {said}; name the variable that holds its key")
        if cap := re.search(r"Requested (\d+) token ids per row .* max allowed: (\d+)", str(error)):
            return UserError(
                f"teacher.top_k={self.top_k}: the server gives {cap[2]} tokens at a place, the sampled one included; "
                f"allowed is objective.k={int(cap[2]) - 1}, or start it with --max-logprobs {cap[1]} "
                f"(opd serve-teacher MODEL --top-k {int(cap[1]) - 1})"
            )
        if cap := re.search(r"logprobs of (\d+), which is greater than max allowed: (\d+)", str(error)):
            return UserError(
                f"teacher.top_k={self.top_k}: the server gives at most {cap[2]}; allowed is up to {cap[2]}, or start "
                f"it with --max-logprobs {cap[1]} (opd serve-teacher MODEL --top-k {cap[1]})"
            )
        if error.status == 404:
            return UserError(f"teacher.url={self.url}: {said}; is it vLLM's server, and is the model still served?")
        return UserError(f"teacher.url={self.url}: {said}")

    def _key(self) -> str | None:
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise UserError(f"teacher.api_key_env={self.api_key_env}: there is no such environment variable; export it")
        return None if self.api_key_env is None else os.environ[self.api_key_env]

    def _card(self, client: Client) -> Card:
        """What the server says of the model."""
        from opd.teachers.client import Gone, Refusal

        at = f"teacher.url={self.url}"
        try:
            cards = {card.id: card for card in read(Cards, client.get("/v1/models", ENVELOPE)).data}
        except Gone as e:
            raise UserError(f"{at}: no server answers there ({e}); start one with:  opd serve-teacher MODEL") from e
        except Refusal as e:
            raise self.refused(e) from e
        except UserError as e:
            raise UserError(f"{at}: what answers there is no OpenAI-compatible server; use vLLM's ({e})") from e
        if self.model is None and len(cards) != 1:
            raise UserError(f"teacher.model: say which one; served at {self.url} are {', '.join(cards) or 'none'}")
        name = next(iter(cards)) if self.model is None else self.model
        if name not in cards:
            raise UserError(f"teacher.model={name}: it is not served at {self.url}{among(name, cards)}")
        return cards[name]

    def _tokenizer(self, card: Card) -> Any:
        from opd.models.loading import tokenizer_of

        names = [self.tokenizer] if self.tokenizer else list(filter(None, (card.root, card.id)))
        problem: UserError | None = None
        for name in dict.fromkeys(names):
            # Code is trusted where the config says whose: a server may name anybody's.
            trusted = self.trust_remote_code and name in (self.tokenizer, self.model)
            try:
                return tokenizer_of(Pretrained(name, trusted))
            except UserError as e:
                problem = e
        raise UserError(
            f"teacher.tokenizer={self.tokenizer}: {problem}; give the folder or hub name of {card.id}'s tokenizer"
        ) from problem
