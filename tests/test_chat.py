"""From messages to ids and back."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from opd.chat import decode, render, render_all, with_system, without_system

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if not think|default(true) %}#{% endif %}{% endif %}"
)
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT = [{"role": "user", "content": "hi you"}]


def tokenizer(template: str | None = TEMPLATE, adds: str = "<bos>:0 $A:0") -> PreTrainedTokenizerFast:
    """One token to a character; adds special tokens to plain text as `adds` says."""
    characters = "abcdefghijklmnopqrstuvwxyz \n#."
    vocab = {token: i for i, token in enumerate([*SPECIAL, *characters])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    specials = [(name, vocab[name]) for name in ("<bos>", "<eos>")]
    core.post_processor = processors.TemplateProcessing(single=adds, special_tokens=specials)
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        additional_special_tokens=SPECIAL[3:],
    )
    made.chat_template = template
    return made


def test_chat_is_what_the_tokenizer_itself_renders() -> None:
    tok = tokenizer()
    expected = tok.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert render(tok, CHAT) == render(tok, CHAT, template="chat") == expected
    assert expected.count(tok.bos_token_id) == 1


def test_template_kwargs_reach_the_template() -> None:
    tok = tokenizer()
    assert render(tok, CHAT, template_kwargs={"think": False}) == [*render(tok, CHAT), tok.convert_tokens_to_ids("#")]


def test_a_system_turn_is_put_first_unless_there_is_one() -> None:
    own = [{"role": "system", "content": "be"}, *CHAT]
    assert with_system(CHAT, "be") == with_system(own, "be") == with_system(own, "other") == tuple(own)
    assert with_system(CHAT, "") == with_system(CHAT, None) == tuple(CHAT)
    assert without_system(own) == tuple(CHAT)


def test_plain_text_joins_the_contents_without_a_template() -> None:
    tok = tokenizer(template=None)
    ids = render(tok, with_system(CHAT, "be kind"))
    assert ids == tok("be kind\n\nhi you")["input_ids"]
    assert render(tokenizer(), CHAT, template="plain") == render(tok, CHAT)


@pytest.mark.parametrize("adds", ["<bos>:0 $A:0", "<bos>:0 $A:0 <eos>:0"])
def test_plain_text_has_one_bos_and_no_eos(adds: str) -> None:
    tok = tokenizer(adds=adds)
    for text in ("hi", "<bos>hi"):
        ids = render(tok, [{"role": "user", "content": text}], template="plain")
        assert ids == tok.convert_tokens_to_ids(["<bos>", "h", "i"])


def test_no_bos_is_added_where_the_tokenizer_adds_none() -> None:
    tok = tokenizer(adds="$A:0")
    assert render(tok, CHAT, template="plain") == tok.convert_tokens_to_ids(list("hi you"))
    assert render(tok, [{"role": "user", "content": ""}], template="plain") == []


def test_together_is_the_same_as_one_by_one() -> None:
    tok = tokenizer()
    chats = [[{"role": "user", "content": text}] for text in ("a", "bcd", "")]
    assert render_all(tok, chats) == [render(tok, chat) for chat in chats]
    assert render_all(tok, []) == []


def test_decoding_leaves_special_tokens_out_and_spaces_in() -> None:
    tok = tokenizer()
    assert decode(tok, tok.convert_tokens_to_ids([*"hi .", "<eos>"])) == "hi ."
    assert decode(tok, ()) == ""
