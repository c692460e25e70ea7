"""Words and tokens: templates, limits, and answers whose tokens are the same in every stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from plaudit.errors import TextError
from plaudit.models.builtin import new_tokenizer
from plaudit.recipe import Reward, Text
from plaudit.records import Demonstration, Judgement, Message, Prompt, Ranking
from plaudit.testing.tiny import tiny_tokenizer
from plaudit.text import Words
from plaudit.training.judged import judged_tokens
from plaudit.training.text_stages import demonstration_tokens, document_tokens

quick = settings(deadline=None, max_examples=60, derandomize=True)
CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "{{ m.role[0] }}:{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)
STORIES = (
    Path(os.environ.get("PLAUDIT_SHARED", Path(__file__).resolve().parents[2] / "shared")) / "data" / "stories260k"
)


def letters(**changes: Any) -> Any:
    """The tiny tokenizer with attributes changed."""
    tokenizer = tiny_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return tokenizer


def pieces() -> Any:
    """Like a Llama's of sentencepiece: a space before every text, dropped again in decoding; unknown bytes apart."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [*"▁abcdefghijklmnopqrstuvwxyz.!", "▁a", "▁t", "▁▁", "th", "he", "the", "▁the"]
    merges = [("▁", "a"), ("▁", "t"), ("▁", "▁"), ("t", "h"), ("h", "e"), ("th", "e"), ("▁t", "he")]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)}, merges=merges, unk_token="<unk>", byte_fallback=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def spaced() -> Any:
    """Bytes with a space put before every text, and the end token put behind it."""
    tokenizer = Tokenizer(models.BPE(vocab={}, merges=[]))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.model = models.BPE(
        vocab={token: i for i, token in enumerate(["</s>", *alphabet, "Ġt"])}, merges=[("Ġ", "t")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


TOKENIZERS = {
    "letters": letters(),
    "bytes": new_tokenizer(["the other thing", "that they thought"], "书", vocabulary=290),
    "pieces": pieces(),
    "spaced": spaced(),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


# --- prompts --------------------------------------------------------------------------------------------------------


def read(words, prompt):
    """What the model sees, as words, special tokens shown."""
    return words.tokenizer.decode(list(words.prompt_ids(prompt)))


HELLO = Prompt(text="hello")
TALK = Prompt(messages=(Message(role="user", content="hi"),))


@pytest.mark.parametrize(
    ("template", "text", "prompt", "seen"),
    [
        (None, {}, HELLO, "<s>hello"),
        (None, {"template": "q: {prompt} a:"}, HELLO, "<s>q: hello a:"),
        (None, {"system": "be kind."}, HELLO, "<s>be kind.\n\nhello"),
        (
            None,
            {"template": "q: {prompt} a:", "system": "be kind.", "examples": (("x", " y"), ("v", " w"))},
            HELLO,
            "<s>be kind.\n\nq: x a: y\n\nq: v a: w\n\nq: hello a:",
        ),
        (None, {"template": "q: {prompt} a:"}, TALK, "<s>q: user: hi a:"),
        (CHAT, {}, HELLO, "<s>hello"),  # a text is a text, not a chat of one message
        (CHAT, {}, TALK, "u:hi\na:"),
        (CHAT, {"system": "be kind."}, TALK, "s:be kind.\nu:hi\na:"),
        (CHAT, {"system": "be kind."}, HELLO, "s:be kind.\nu:hello\na:"),
        (CHAT, {"examples": (("x", "y"),)}, HELLO, "u:x\na:y\nu:hello\na:"),
        (CHAT, {"template": "q: {prompt} a:"}, TALK, "<s>q: user: hi a:"),  # the recipe's template wins
    ],
)
def test_what_the_model_sees(template, text, prompt, seen):
    assert read(Words(letters(chat_template=template), Text(**text)), prompt) == seen


def test_a_prompt_is_not_a_format_string():
    words = Words(TOKENIZERS["bytes"], Text(template="{prompt} {0} {other}"))
    assert read(words, Prompt(text="{x} {prompt}")) == "<|start|>{x} {prompt} {0} {other}"


def test_an_empty_prompt_begins_with_the_start_token():
    assert Words(letters(), Text()).prompt_ids(Prompt(text="")) == (1,)
    startless = Words(spaced(), Text())
    assert startless.start_ids == (0,)  # the end token, where there is no start
    assert startless.prompt_ids(Prompt(text="")) == (0,)


def test_an_end_token_that_the_tokenizer_adds_is_not_part_of_the_prompt():
    words = Words(spaced(), Text())
    assert words.end_id not in words.prompt_ids(Prompt(text="the"))
    (piece,) = words.document_ids("the", 99)
    assert piece.count(words.end_id) == 1
    assert piece[-1] == words.end_id
    assert words.answer_ids("the", context_ids=(5,)).count(words.end_id) == 1


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "answer", "context", "kept"),
    [
        (99, 9, None, "abcdefgh"),
        (5, 9, None, "efgh"),  # and the start token
        (99, 4, 10, "defgh"),  # room for the answer
        (99, 40, 10, "efgh"),  # but half of the context at least
        (1, 9, None, ""),
    ],
)
def test_a_long_prompt_is_cut_at_its_front_where_the_recipe_says_so(limit, answer, context, kept):
    text = Text(max_prompt_tokens=limit, max_answer_tokens=answer, cut_prompts=True)
    tokenizer = letters()
    ids = Words(tokenizer, text, context=context).prompt_ids(Prompt(text="abcdefgh"))
    assert ids == tuple(tokenizer.encode(kept))
    bare = letters()
    bare._tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    ids = Words(bare, text, context=context).prompt_ids(Prompt(text="abcdefgh"))
    assert ids[0] != bare.bos_token_id
    assert len(ids) == max(len(kept), min(8, len(kept) + 1))  # no start token to keep


def test_a_long_prompt_is_an_error_that_names_prompt_and_limit():
    words = Words(letters(), Text(max_prompt_tokens=4), context=99)
    assert len(words.prompt_ids(Prompt(text="abc"))) == 4
    with pytest.raises(TextError, match=r"prompt p7 has 5 tokens, more than text.max_prompt_tokens 4: 'abcd'"):
        words.prompt_ids(Prompt(text="abcd", id="p7"))
    narrow = Words(letters(), Text(), context=5)
    assert len(narrow.prompt_ids(Prompt(text="abc"))) == 4  # one place is left for an answer
    with pytest.raises(TextError, match=r"prompt p7 has 5 tokens, but the model reads 5 with the answer: 'abcd'"):
        narrow.prompt_ids(Prompt(text="abcd", id="p7"))


def test_an_answer_ends_within_the_limits_or_is_cut_there():
    words = Words(letters(), Text(max_answer_tokens=4), context=8)
    context = words.prompt_ids(Prompt(text="ab"))
    assert words.answer_ids("abc", context_ids=context)[-1] == words.end_id
    assert len(words.answer_ids("abc", context_ids=context)) == 4
    cut = words.answer_ids("abcd", context_ids=context)
    assert len(cut) == 4
    assert words.end_id not in cut
    assert words.answer_ids("abc", context_ids=context, ended=False) == words.answer_ids("abc", context_ids=context)[:3]
    longer = words.prompt_ids(Prompt(text="abcde"))  # 6 of 8 places
    assert len(words.answer_ids("abc", context_ids=longer)) == 2


def test_a_document_is_cut_into_pieces_that_the_model_can_read():
    words = Words(letters(), Text(), context=5)
    texts = document_tokens([], words, 99)
    assert texts == []
    pieces = words.document_ids("abcdef", 99)
    assert [len(piece) for piece in pieces] == [4, 3]  # a start token comes before each
    assert pieces[-1][-1] == words.end_id
    assert [len(piece) for piece in words.document_ids("abcdef", 3)] == [3, 3]  # no end by itself
    assert [len(piece) for piece in words.document_ids("abcde", 3)] == [3, 3]
    assert words.document_ids("", 3) == [(words.end_id,)]
    assert [len(piece) for piece in Words(letters(), Text()).document_ids("abcdef", 99)] == [7]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_what_is_refused():
    with pytest.raises(TextError, match=r"text.template must hold \{prompt\}, found 'q:'"):
        Words(letters(), Text(template="q:"))
    with pytest.raises(TextError, match="no end-of-text token"):
        Words(letters(eos_token=None), Text())
    with pytest.raises(TextError, match=r"prompt p7 is a chat, but this tokenizer has no chat template: set text.temp"):
        Words(letters(), Text()).prompt_ids(TALK.model_copy(update={"id": "p7"}))
    tool = Prompt(messages=(Message(role="tool", content="42"),), id="p7")
    with pytest.raises(TextError, match="the chat template refuses prompt p7: no tools here: 'tool: 42'"):
        Words(letters(chat_template=CHAT), Text()).prompt_ids(tool)
    with pytest.raises(TextError, match=r"a text of 3 tokens has no rest after a prompt of 3: 'abc'"):
        Words(letters(), Text()).split_text("abc", 3)


# --- answers --------------------------------------------------------------------------------------------------------

WORDS = st.text(alphabet="athe .!b\n", max_size=12)


@given(WORDS, st.booleans())
@quick
@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_comes_back_as_it_was(name, answer, ended):
    """Leading spaces too; and its words, tokenised again, are the same tokens."""
    words = Words(TOKENIZERS[name], Text())
    for prompt in ("", "the", "the "):
        context = words.prompt_ids(Prompt(text=prompt))
        ids = words.answer_ids(answer, context_ids=context, ended=ended)
        if prompt or name in ("letters", "bytes"):  # the others put a space before a whole text, or drop one
            assert words.answer_text(context, ids) == answer
        assert words.answer_ids(words.answer_text(context, ids), context_ids=context, ended=ended) == ids


@given(st.text(alphabet="athe .!b", min_size=6, max_size=20), st.integers(1, 5))
@quick
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_split_text_has_the_tokens_of_the_whole(name, text, tokens):
    words = Words(TOKENIZERS[name], Text())
    ids = words.tokenizer.encode(text, add_special_tokens=False)
    if len(ids) <= tokens:
        return
    head, rest = words.split_text(text, tokens)
    assert head + rest == text
    assert words.tokenizer.encode(head, add_special_tokens=False) != []


def test_a_cut_never_goes_through_a_character():
    words = Words(TOKENIZERS["bytes"], Text())
    text = "ab猫cd"  # three bytes, three tokens
    assert [words.split_text(text, tokens) for tokens in (1, 2, 3, 4, 5)] == [
        ("a", "b猫cd"),
        ("ab", "猫cd"),
        ("ab", "猫cd"),
        ("ab", "猫cd"),
        ("ab猫", "cd"),
    ]


def test_sampled_tokens_keep_the_space_that_decoding_drops():
    words = Words(pieces(), Text())
    context = words.prompt_ids(Prompt(text="see"))
    the, he = (words.tokenizer.convert_tokens_to_ids(token) for token in ("▁the", "he"))
    assert words.answer_text(context, (the, words.end_id)) == " the"
    assert words.answer_text(context, (he,)) == "he"  # the word goes on
    assert words.answer_text((1,), (the,)) == "the"  # a text begins
    assert words.answer_ids(" the", context_ids=context) == (the, words.end_id)
    assert words.answer_ids("the", context_ids=(1,)) == (the, words.end_id)


def test_half_a_character_is_shown_as_one():
    words = Words(pieces(), Text())
    context = words.prompt_ids(Prompt(text="see"))
    first = words.tokenizer.convert_tokens_to_ids("<0xE7>")
    assert words.answer_text(context, (first,)).strip("\ufffd") == ""


def test_stop_tokens_are_no_words():
    words = Words(letters(), Text(), stop_ids=[5])
    assert words.stop_ids == {2, 5}
    assert words.answer_text((1, 3), (3, 4, 5)) == "ab"
    assert words.answer_text((1, 3), (3, 4, 2)) == "ab"


@pytest.mark.parametrize("pad", ["</s>", "<pad>"])
def test_answers_have_the_same_tokens_in_every_stage(tokenizer, pad):
    """Demonstration, judgement and sample; pad equal to end changes nothing."""
    if pad in tokenizer.get_vocab():
        tokenizer.pad_token = pad
    words = Words(tokenizer, Text(template="a: {prompt}"))
    prompt, answer = Prompt(text="the thing"), " that he ate"
    ((context, learned, _),) = demonstration_tokens([Demonstration(prompt=prompt, answer=answer)], words)
    judgement = Judgement(prompt=prompt, answers=("the", answer), verdict=Ranking(ranks=(2, 1)))
    (judged,), _ = judged_tokens([judgement], words, Reward())
    assert judged.prompt == context == words.prompt_ids(prompt)
    assert judged.answers[1] == learned
    assert learned[-1] == words.end_id
    sampled = words.answer_text(context, learned)
    assert sampled == answer
    assert words.answer_ids(sampled, context_ids=context) == learned


def test_a_tokenizer_of_whole_words_loses_none():
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = ["<unk>", "<s>", "</s>", "what", "a", "fine", "day"]
    whole = Tokenizer(models.WordLevel(vocab={name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    whole.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    words = Words(tokenizer, Text())
    context = words.prompt_ids(Prompt(text="what a day"))
    assert context == (3, 4, 6)
    assert words.answer_ids("fine day", context_ids=context) == (5, 6, 2)
    assert words.answer_ids(" fine day", context_ids=context) == (5, 6, 2)


# --- a real tokenizer -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stories() -> Words:
    if not STORIES.exists():
        pytest.skip(f"no {STORIES}: set PLAUDIT_SHARED to the folder of test material")
    return Words(AutoTokenizer.from_pretrained(STORIES), Text(), context=512, stop_ids=[1, 2])


def test_stories_go_on_where_their_prompt_ends(stories):
    text = "Once upon a time, there was a little girl named Lily. She loved\n\nto play — in 猫's park!"
    ids = stories.tokenizer.encode(text, add_special_tokens=False)
    for tokens in (3, 7, 12, 20):
        head, rest = stories.split_text(text, tokens)
        assert head + rest == text
        context = stories.prompt_ids(Prompt(text=head))
        answer = stories.answer_ids(rest, context_ids=context)
        assert (*context[1:], *answer) == (*ids, stories.end_id)
        assert stories.answer_text(context, answer) == rest


@given(st.text(alphabet="aTe .,\n'猫é\u2028", max_size=16))
@quick
def test_stories_give_answers_back(stories, answer):
    context = stories.prompt_ids(Prompt(text="Once upon a time"))
    ids = stories.answer_ids(answer, context_ids=context)
    assert stories.answer_text(context, ids) == answer
