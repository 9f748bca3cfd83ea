"""What a server's answers have to be, to the bottom; and how long they may be, by what was asked for."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from opd.hints import shown
from opd.types import ROUNDING, UserError

ENVELOPE = 2**20
"""Bytes of an answer around the log-probs; of one without any, all."""
ENTRY = 1024
"""Bytes of a token's log-prob with its rank and its text in JSON: some ten times what they usually are."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
A = TypeVar("A", bound="Said")


class Said(BaseModel):
    """A part of an answer. Numbers are numbers, and what more there is, is not looked at."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", protected_namespaces=())


class Entry(Said):
    """A token in a place."""

    logprob: Annotated[float, Field(le=ROUNDING)]
    """Nats; minus infinity is one, NaN is none."""


Row = dict[TokenId, Entry]
"""One position: the token that is there and the likeliest ones, in no set order."""


class Choice(Said):
    """A completion, of which only what comes before it matters."""

    prompt_logprobs: list[Row | None] | None = None


class Completion(Said):
    """Of `/v1/completions`."""

    choices: Annotated[list[Choice], Field(min_length=1)]


class Generated(Said):
    """Of `/inference/v1/generate`."""

    prompt_token_id_logprobs: str | None
    """A numpy file in base64."""


class Tokenized(Said):
    """Of `/tokenize`."""

    tokens: list[TokenId]


class Card(Said):
    """A model that is served."""

    id: Annotated[str, Field(min_length=1, max_length=1000)]
    root: Annotated[str, Field(max_length=4096)] | None = None
    """Where the server has it from."""
    max_model_len: Annotated[int, Field(ge=2)] | None = None


class Cards(Said):
    """Of `/v1/models`."""

    data: list[Card]


def read(kind: type[A], data: bytes) -> A:
    """An answer.

    Raises:
        UserError: it is none of this kind; says where, and what stands there.
    """
    try:
        return kind.model_validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as e:
        error = e.errors(include_url=False, include_context=False)[0]
    if error["type"] == "json_invalid":
        raise UserError("teacher.url: the server's answer is no JSON; is it vLLM's server?")
    if error["type"] == "less_than_equal" and error["loc"][-1] == "logprob":
        raise UserError(
            f"teacher.url: the server gives a log-prob of {shown(error['input'])}, and none is above 0: it gives "
            "logits, not log-probs; start it with --logprobs-mode raw_logprobs, as opd serve-teacher does"
        )
    at = ".".join(map(str, error["loc"])) or "it"
    raise UserError(
        f"teacher.url: the server's answer is not what was asked for: {at[:120]}={shown(error['input'])}: "
        f"{error['msg']}; is it vLLM's server?"
    )


def most_bytes(places: int, tokens: int) -> int:
    """How long an answer may be that has so many tokens in each of so many places."""
    return ENVELOPE + places * (tokens + 1) * ENTRY
