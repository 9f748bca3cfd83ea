"""From messages to ids and back."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from opd.models.loading import stop_ids
from opd.text.chat import completion_ids, decode, render, render_all, reply_ids, with_system, without_system
from opd.types import Pretrained, UserError
from tests.text.families import byte_tokenizer

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


def test_a_completion_is_what_the_template_writes_after_the_prompt_up_to_the_stop_id() -> None:
    tok = tokenizer()
    stop = (tok.eos_token_id, tok.pad_token_id)
    ids = completion_ids(tok, CHAT, "yes.", render(tok, CHAT), stop)
    assert ids == tok.convert_tokens_to_ids([*"yes.", "<eos>"])
    whole = tok.apply_chat_template([*CHAT, {"role": "assistant", "content": "yes."}], return_dict=False)
    assert [*render(tok, CHAT), *ids] == whole


@pytest.mark.parametrize("template", ["plain", "auto"])
def test_a_completion_without_a_template_is_its_text_and_the_first_stop_id(template: str) -> None:
    tok = tokenizer(template=None)
    ids = completion_ids(tok, CHAT, "yes", render(tok, CHAT), (tok.eos_token_id, 0), template=template)
    assert ids == tok.convert_tokens_to_ids([*"yes", "<eos>"])


def test_a_completion_after_a_prompt_of_another_rendering_is_its_text_and_the_first_stop_id() -> None:
    tok = tokenizer()
    prompt = render(tok, CHAT, template_kwargs={"think": False})
    assert completion_ids(tok, CHAT, "yes", prompt, (2,)) == tok.convert_tokens_to_ids([*"yes", "<eos>"])
    assert completion_ids(tok, CHAT, "yes", prompt, ()) == tok.convert_tokens_to_ids(list("yes"))


def test_a_completion_that_ends_its_turn_itself_ends_once_and_one_that_does_so_in_its_midst_is_refused() -> None:
    for tok, template in ((tokenizer(), "chat"), (tokenizer(template=None), "plain")):
        prompt = render(tok, CHAT, template=template)
        ids = completion_ids(tok, CHAT, "yes<eos>", prompt, (2,), template=template)
        assert ids == tok.convert_tokens_to_ids([*"yes", "<eos>"])
        with pytest.raises(UserError, match="the completion has '<eos>' in its midst, which ends a turn"):
            completion_ids(tok, CHAT, "yes<eos>no", prompt, (2,), template=template)
    with pytest.raises(UserError, match="in its midst"):
        completion_ids(tokenizer(), CHAT, "yes", prompt, (2,), closing={"reasoning_content": "a<eos>b"})


def test_a_tag_at_the_end_of_a_prompt_is_a_block_for_thoughts_only_by_its_name_or_where_the_template_closes_it() -> (
    None
):
    turns = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<eos>{% endfor %}"
    for tag, closing in (("user", ""), ("think", "\n</think>\n\n"), ("reasoning", "\n</reasoning>\n\n")):
        tok = byte_tokenizer(
            turns + f"{{% if add_generation_prompt %}}<assistant><{tag}>{{% endif %}}", ("<eos>",), "<eos>"
        )
        ids = completion_ids(tok, CHAT, "yes", render(tok, CHAT), (tok.eos_token_id,))
        assert tok.decode(ids) == f"{closing}yes<eos>"


def test_a_stop_id_within_the_next_turn_is_not_learned() -> None:
    tok = tokenizer(
        template="{% for m in messages %}{{ m['content'] }}.{{ '<eos>' if m['role'] == 'user' }}{% endfor %}"
    )
    ids = completion_ids(tok, CHAT, "yes", render(tok, CHAT), (2,))
    assert ids == tok.convert_tokens_to_ids([*"yes", "<eos>"])


def test_a_template_that_ends_no_turn_gets_the_first_stop_id() -> None:
    tok = tokenizer(template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    ids = completion_ids(tok, CHAT, "yes", render(tok, CHAT), (2, 0))
    assert ids == tok.convert_tokens_to_ids([*"yes", "<eos>"])


REPLY = [{"role": "user", "content": "and"}]


def test_prompt_completion_and_reply_spell_the_rendered_conversation() -> None:
    tok = tokenizer()
    prompt = render(tok, CHAT)
    ids = [*prompt, *completion_ids(tok, CHAT, "yes", prompt, (2,)), *reply_ids(tok, CHAT, REPLY, (2,))]
    assert ids == render(tok, [*CHAT, {"role": "assistant", "content": "yes"}, *REPLY])


def test_a_reply_brings_the_end_of_the_turn_only_where_the_student_cannot_have_written_it() -> None:
    tok = tokenizer()
    reply = ["<|user|>", *"and", "<eos>", "<|assistant|>"]
    assert reply_ids(tok, CHAT, REPLY, (2,)) == tok.convert_tokens_to_ids(reply)
    assert reply_ids(tok, CHAT, REPLY, (0,)) == tok.convert_tokens_to_ids(["<eos>", *reply])
    kwargs = {"think": False}
    assert reply_ids(tok, CHAT, REPLY, (2,), template_kwargs=kwargs) == tok.convert_tokens_to_ids([*reply, "#"])


def test_a_reply_of_plain_text_is_joined_as_prompts_are() -> None:
    tok = tokenizer(template=None)
    assert reply_ids(tok, CHAT, REPLY, (2,)) == tok.convert_tokens_to_ids(list("\n\nand"))
    assert reply_ids(tokenizer(), CHAT, REPLY, (2,), template="plain") == reply_ids(tok, CHAT, REPLY, (2,))


def test_a_conversation_may_hold_the_mark_that_stands_for_a_turn() -> None:
    tok = tokenizer()
    odd = [{"role": "user", "content": "\ue000"}]
    assert reply_ids(tok, odd, REPLY, (2,)) == reply_ids(tok, CHAT, REPLY, (2,))


def test_a_base_model_with_a_chat_template_stops_at_the_end_of_its_turn_too(tmp_path) -> None:
    turns = "{% for m in messages %}<|user|>{{ m['content'] }}<|assistant|>\n{% endfor %}"
    for template, end in (
        (turns, ["<|assistant|>"]),
        (TEMPLATE, []),
        ("{{ messages[-1]['content'] }}", []),
        (None, []),
    ):
        tok = tokenizer(template)
        assert stop_ids(Pretrained(str(tmp_path)), tok) == tuple(tok.convert_tokens_to_ids(["<eos>", *end]))


def test_half_of_a_character_is_one_line_whoever_wrote_it() -> None:
    for text in ("hi \ud83d", "\udcff"):
        with pytest.raises(UserError, match="holds half of a character"):
            render(tokenizer(), [{"role": "user", "content": text}])
