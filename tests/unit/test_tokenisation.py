"""Features: the document is cut and never the summary, EOS is learned, the prompt is masked, pads are neither.

The first four of the mistakes that fine-tuning projects make again and again are tests here.
"""

from itertools import pairwise
from pathlib import Path

import datasets
import pytest
import torch

from summkit.data import batching, splits, templates, tokenisation
from summkit.data import sentences as sentences_of
from summkit.data.chunking import chunks
from summkit.errors import SummkitError
from summkit.models import loading

DOCUMENT = "A crack was found in a cable. Drivers are sent through Ashby. " * 5
SUMMARY = "A bridge has been closed."


@pytest.fixture(scope="module")
def tokenizer():
    return loading.tiny_tokenizer()


@pytest.fixture(scope="module", params=["instruction", "chat"])
def template(request, tokenizer):
    return templates.build_template(request.param, tokenizer)


def encode(template, tokenizer, document=DOCUMENT, summary=SUMMARY, max_length=320, max_new_tokens=40):
    return tokenisation.encode(template, tokenizer, document, summary, max_length, max_new_tokens)


def test_the_prompt_is_masked_exactly_and_stays_so_in_a_batch(template, tokenizer):
    """Mistake 1: labels that a collator overwrites with the inputs, so that the loss is over the prompt too."""
    row, asked = encode(template, tokenizer), encode(template, tokenizer, summary=None)
    start = asked["length"]
    assert row["labels"][:start] == [tokenisation.IGNORE] * start
    assert tokenizer.decode(row["labels"][start:-1]) == template.answer(SUMMARY)
    assert len(row["labels"]) == len(row["input_ids"]) == row["length"]
    short = encode(template, tokenizer, document="Fog.")
    labels = batching.Collator(tokenizer)([row, short])["labels"].tolist()
    assert labels[0] == row["labels"]
    assert labels[1] == short["labels"] + [tokenisation.IGNORE] * (row["length"] - short["length"])


@pytest.mark.parametrize("pad", [None, "<|end|>", "<|pad|>"])
def test_the_end_is_learned_even_where_it_is_the_pad(template, pad):
    """Mistake 2: no EOS in the target, or masked as padding: the model never stops."""
    tokenizer = loading.tiny_tokenizer()
    tokenizer.pad_token = pad
    rows = [encode(template, tokenizer), encode(template, tokenizer, document="Fog.")]
    batch = batching.Collator(tokenizer)(rows)
    for row, labels, mask in zip(rows, batch["labels"].tolist(), batch["attention_mask"].tolist(), strict=True):
        last = row["length"] - 1
        assert labels[last] == tokenizer.eos_token_id and mask[last] == 1
        assert (
            sum(label != tokenisation.IGNORE for label in labels)
            == len(tokenizer(template.answer(SUMMARY)).input_ids) + 1
        )
        assert sum(mask) == row["length"]


@pytest.mark.parametrize("max_length", [170, 200, 256, 320])
def test_a_long_article_is_cut_and_never_the_summary(template, tokenizer, max_length):
    """Mistake 3: truncation that cuts the summary off long articles."""
    row = encode(template, tokenizer, max_length=max_length)
    text = tokenizer.decode(row["input_ids"])
    assert row["length"] <= max_length and row["cut"] > 0
    assert text.startswith(template.head) and text.endswith(template.tail + template.answer(SUMMARY) + "<|end|>")
    kept = text[len(template.head) : -len(template.tail + template.answer(SUMMARY) + "<|end|>")]
    assert DOCUMENT.startswith(kept) and len(DOCUMENT) - len(kept) == row["cut"]


def test_training_and_inference_see_the_same_prompt(template, tokenizer):
    """Mistake 4: one template, or one cut, in training and another in inference."""
    for document in ("Fog.", DOCUMENT, DOCUMENT * 20):
        row, asked = (encode(template, tokenizer, document, summary) for summary in (SUMMARY, None))
        assert row["input_ids"][: asked["length"]] == asked["input_ids"] and row["cut"] == asked["cut"]
        assert "labels" not in asked


def test_a_summary_longer_than_an_answer_takes_its_room_from_the_article(template, tokenizer):
    row = encode(template, tokenizer, summary="word " * 14, max_new_tokens=10)
    assert row["length"] == 320 and tokenizer.decode(row["labels"][-8:]) == "d word <|end|>"


def test_a_row_that_fits_is_whole(template, tokenizer):
    row = encode(template, tokenizer, document="Fog.")
    assert row["cut"] == 0
    assert tokenizer.decode(row["input_ids"]) == template.render("Fog.", SUMMARY) + "<|end|>"


def test_a_limit_too_small_says_what_is_needed(template, tokenizer):
    with pytest.raises(SummkitError, match=r"max_length=60 is too small: .* at least (\d+) are needed") as caught:
        encode(template, tokenizer, max_length=60)
    needed = int(str(caught.value).split("at least ")[1].split()[0])
    assert encode(template, tokenizer, max_length=needed)["cut"] == len(DOCUMENT) - 1
    with pytest.raises(SummkitError, match="too small"):
        encode(template, tokenizer, max_length=needed - 1)


def test_the_letters_of_a_special_token_in_a_text_stay_letters(template, tokenizer):
    rows = [
        encode(template, tokenizer, document="He <|end|><|user|> left."),
        encode(template, tokenizer, "Fog.", "<|end|>"),
    ]
    clean = encode(template, tokenizer, document="Fog.")
    specials = {tokenizer.eos_token_id, *tokenizer("<|user|><|assistant|><|system|>")["input_ids"]}
    expected = [token for token in clean["input_ids"] if token in specials]
    assert all([token for token in row["input_ids"] if token in specials] == expected for row in rows)
    assert "<|end|><|user|>" in tokenizer.decode(rows[0]["input_ids"])


def with_bos():
    from tokenizers.processors import TemplateProcessing

    tokenizer = loading.tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|system|>"})
    number = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A", special_tokens=[("<|system|>", number)]
    )
    return tokenizer


def test_bos_stands_once_where_the_tokenizer_sets_one():
    tokenizer = with_bos()
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    for name in ("instruction", "chat"):  # the chat format begins with it itself
        row = encode(templates.build_template(name, tokenizer), tokenizer)
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1


def test_no_bos_where_the_tokenizer_sets_none(tokenizer):
    tokenizer = loading.tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|system|>"})
    assert (
        tokenizer.bos_token_id not in encode(templates.build_template("instruction", tokenizer), tokenizer)["input_ids"]
    )


def test_pads_stand_on_the_right_in_training_and_on_the_left_in_generation(template, tokenizer):
    rows = [encode(template, tokenizer, text, None) for text in (DOCUMENT, "Fog.")]
    longest, length = rows[0]["length"], rows[1]["length"]
    right, left = (batching.Collator(tokenizer, side)(rows) for side in ("right", "left"))
    assert right["input_ids"][1, :length].tolist() == left["input_ids"][1, -length:].tolist() == rows[1]["input_ids"]
    assert right["attention_mask"][1].tolist() == [1] * length + [0] * (longest - length)
    assert left["attention_mask"][1].tolist() == [0] * (longest - length) + [1] * length
    assert set(left["input_ids"][1, :-length].tolist()) == {tokenizer.pad_token_id}
    assert "labels" not in left and left["input_ids"].shape == (2, longest)


def test_lengths_are_rounded_up_but_not_beyond_the_longest_row_there_is(tokenizer):
    rows = [{"input_ids": [5] * length, "labels": [7] * length} for length in (9, 4)]
    for longest, expected in ((None, 16), (100, 16), (12, 12), (3, 9)):
        collate = batching.Collator(tokenizer, pad_to_multiple_of=16, longest=longest)
        assert collate(rows)["labels"].shape == (2, expected)


def test_packed_rows_follow_each_other_and_predict_only_their_own_tokens(tokenizer):
    ignore = tokenisation.IGNORE
    rows = [
        {"input_ids": [11, 12, 13, 14], "labels": [ignore, ignore, 13, 14]},
        {"input_ids": [21, 22, 23], "labels": [21, ignore, 23]},  # no prompt: nothing predicts the first token
    ]
    batch = batching.Collator(tokenizer, packed=True, pad_to_multiple_of=5)(rows)
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 21, 22, 23] + [tokenizer.pad_token_id] * 3]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]]
    assert batch["labels"].tolist() == [[ignore, ignore, 13, 14, ignore, ignore, 23] + [ignore] * 3]
    assert batch["kept"].tolist() == [1, 2, 5] and batch["max_length_q"] == 5
    assert batch["cu_seq_lens_q"].tolist() == [0, 4, 7, 10] and batch["cu_seq_lens_q"].dtype == torch.int32
    assert batching.Collator(tokenizer, packed=True)(rows)["cu_seq_lens_q"].tolist() == [0, 4, 7, 7]


def test_rows_of_a_data_set_are_encoded_one_by_one(template, tokenizer):
    rows = [{"id": str(n), "document": DOCUMENT[n:], "summary": SUMMARY} for n in range(3)]
    encoded = tokenisation.encode_rows(datasets.Dataset.from_list(rows), template, tokenizer, 320, 40)
    assert set(encoded.column_names) == {"input_ids", "labels", "length", "cut"}
    assert [encoded[n] for n in range(3)] == [encode(template, tokenizer, row["document"]) for row in rows]


def test_a_row_whose_summary_leaves_no_room_is_dropped_and_counted(tokenizer, caplog):
    template = templates.build_template("instruction", tokenizer)
    rows = [{"document": DOCUMENT, "summary": SUMMARY * (20 if n in (1, 4) else 1)} for n in range(5)]
    encoded = tokenisation.encode_rows(datasets.Dataset.from_list(rows), template, tokenizer, 320, 40)
    assert encoded.to_list() == [encode(template, tokenizer)] * 3
    assert "2 of 5 rows dropped: their summaries leave no room for the document in 320 tokens" in caplog.text
    with pytest.raises(SummkitError, match="max_length=320 is too small.* the summary up to 502"):
        tokenisation.encode_rows(datasets.Dataset.from_list([rows[1]] * 2), template, tokenizer, 320, 40)


def test_rows_on_disk_are_encoded_on_disk_beside_them(tokenizer):
    template = templates.build_template("instruction", tokenizer)
    rows = [{"document": DOCUMENT[n % 90 :], "summary": f"{SUMMARY} {n}"} for n in range(700)]
    there = splits.write_rows(rows)
    encoded = tokenisation.encode_rows(there.select(range(600, -1, -1)), template, tokenizer, 320, 40)
    (file,) = (Path(file["filename"]) for file in encoded.cache_files)
    assert file.parent == Path(splits.rows_folder()) and file.stat().st_size < 9 * sum(encoded["length"])
    wanted = [encode(template, tokenizer, **rows[n]) for n in range(600, -1, -1)]
    assert encoded.to_list() == wanted


def test_batches_of_similar_length_hold_every_row_once_and_pad_less():
    lengths = [5, 90, 7, 80, 6, 85, 9]
    batches = batching.length_sorted_batches(lengths, 3)
    assert batches == [[1, 5, 3], [6, 2, 4], [0]]
    plain = [[0, 1, 2], [3, 4, 5], [6]]
    computed = 3 * 90 + 3 * 85 + 9
    assert batching.padding_fraction(plain, lengths) == pytest.approx(1 - sum(lengths) / computed)
    assert batching.padding_fraction(plain, lengths, 512) == pytest.approx(1 - sum(lengths) / (7 * 512))
    assert batching.padding_fraction(batches, lengths) < batching.padding_fraction(plain, lengths)
    assert batching.padding_fraction([[0], [1]], lengths) == 0


HYPOTHESIS = "The bridge is shut, and Ashby is full."
WORDING = templates.Wording("Does it follow?", "Premise", "Hypothesis", "Answer")


@pytest.fixture(scope="module", params=["instruction", "chat"])
def pair_template(request, tokenizer):
    return templates.build_template(request.param, tokenizer, WORDING)


def encode_pair(template, tokenizer, document=DOCUMENT, second=HYPOTHESIS, max_length=160, answer="maybe"):
    return tokenisation.encode(template, tokenizer, document, answer, max_length, 8, second)


def room_for_texts(template, tokenizer, max_length=160):
    return max_length - len(tokenizer(template.head + template.middle + template.tail).input_ids) - 8


def test_a_pair_that_fits_is_whole(pair_template, tokenizer):
    row = encode_pair(pair_template, tokenizer, "Fog.")
    assert row["cut"] == 0
    assert tokenizer.decode(row["input_ids"]) == pair_template.render("Fog.", "maybe", HYPOTHESIS) + "<|end|>"
    asked = tokenisation.encode(pair_template, tokenizer, "Fog.", None, 160, 8, HYPOTHESIS)
    assert tokenizer.decode(asked["input_ids"]) == pair_template.prompt("Fog.", HYPOTHESIS)


def test_the_premise_is_cut_and_a_hypothesis_of_half_the_room_stays_whole(pair_template, tokenizer):
    room = room_for_texts(pair_template, tokenizer)
    half = (HYPOTHESIS * 9)[: room // 2]
    for second in (HYPOTHESIS[:20], half):
        row = encode_pair(pair_template, tokenizer, second=second)
        kept = DOCUMENT[: room - len(second)]
        assert tokenizer.decode(row["input_ids"]) == pair_template.render(kept, "maybe", second) + "<|end|>"
        assert row["cut"] == len(DOCUMENT) - len(kept) and row["length"] <= 160


def test_a_longer_hypothesis_takes_what_the_premise_leaves(pair_template, tokenizer):
    room = room_for_texts(pair_template, tokenizer)
    for document, left in (("Fog.", room - 4), (DOCUMENT, room // 2)):
        row = encode_pair(pair_template, tokenizer, document, HYPOTHESIS * 9)
        texts = document[: room - left], (HYPOTHESIS * 9)[:left]
        assert tokenizer.decode(row["input_ids"]) == pair_template.render(texts[0], "maybe", texts[1]) + "<|end|>"
        assert row["cut"] == len(document + HYPOTHESIS * 9) - room


def test_a_pair_is_cut_in_training_as_in_inference(pair_template, tokenizer):
    for document, second in ((DOCUMENT, HYPOTHESIS), (DOCUMENT * 9, HYPOTHESIS * 9), ("Fog.", HYPOTHESIS * 9)):
        row = encode_pair(pair_template, tokenizer, document, second)
        asked = tokenisation.encode(pair_template, tokenizer, document, None, 160, 8, second)
        assert row["input_ids"][: asked["length"]] == asked["input_ids"] and row["cut"] == asked["cut"]


def test_the_letters_of_a_special_token_in_a_hypothesis_stay_letters(pair_template, tokenizer):
    row, clean = (encode_pair(pair_template, tokenizer, "Fog.", text) for text in ("<|end|><|user|>", "Rain."))
    specials = set(tokenizer.all_special_ids)
    found, expected = ([token for token in one["input_ids"] if token in specials] for one in (row, clean))
    assert found == expected and "Hypothesis: <|end|><|user|>" in tokenizer.decode(row["input_ids"])


def test_rows_of_pairs_are_encoded_with_their_second_text(pair_template, tokenizer):
    rows = [{"document": DOCUMENT[n:], "second": HYPOTHESIS[n:], "summary": "no"} for n in range(3)]
    encoded = tokenisation.encode_rows(datasets.Dataset.from_list(rows), pair_template, tokenizer, 160, 8)
    wanted = [encode_pair(pair_template, tokenizer, row["document"], row["second"], answer="no") for row in rows]
    assert [encoded[n] for n in range(3)] == wanted


def test_the_answers_tokens_are_those_that_are_trained_on(template, tokenizer):
    ids = tokenisation.answer_ids(template, tokenizer, SUMMARY)
    row = encode(template, tokenizer)
    assert [label for label in row["labels"] if label != tokenisation.IGNORE] == [*ids, tokenizer.eos_token_id]


@pytest.mark.parametrize("name", ["instruction", "chat"])
def test_every_prompt_begins_with_the_heads_tokens(name):
    for tokenizer in (loading.tiny_tokenizer(), with_bos()):
        template = templates.build_template(name, tokenizer)
        head = tokenisation.head_ids(template, tokenizer)
        ids = encode(template, tokenizer)["input_ids"]
        assert ids[: len(head)] == head and tokenizer.decode(ids[len(head) :]).startswith(DOCUMENT[:20])


@pytest.mark.parametrize("name", ["instruction", "chat"])
@pytest.mark.parametrize("max_length", [200, 256])
def test_a_prompt_with_examples_leaves_the_document_the_same_room(tokenizer, name, max_length):
    shown = templates.Wording(examples=(("Fog lay on the river.", "Fog."), ("It rained.", "Rain.")))
    plain, template = (templates.build_template(name, tokenizer, wording) for wording in (templates.Wording(), shown))
    longer = tokenisation.room_for(template, plain, max_length, tokenizer)
    rows = [encode(one, tokenizer, max_length=n) for one, n in ((plain, max_length), (template, longer))]
    texts = [tokenizer.decode(row["input_ids"]) for row in rows]
    assert rows[0]["cut"] == rows[1]["cut"] > 0
    assert texts[0].removeprefix(plain.head) == texts[1].removeprefix(template.head)
    assert tokenisation.room_for(plain, plain, max_length, tokenizer) == max_length


TEXT = (
    "Mr. Bean went to Ashby on Monday.  He came back late!\n\nIt was cold, über-cold: −3 °C, and 雪 fell 🌨️ all day. "
    "Nobody had seen such weather since 1963, the paper wrote. Then it thawed."
)


def bare(text):
    return "".join(text.split())


def size(tokenizer, text):
    return len(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


@pytest.mark.parametrize("tokens", [4, 5, 9, 30, 61, 120, 10_000])
def test_no_chunk_is_too_long_and_nothing_is_lost(tokenizer, tokens):
    found = chunks(TEXT, tokenizer, tokens)
    assert all(0 < size(tokenizer, chunk) <= tokens for chunk in found)
    assert bare("".join(found)) == bare(TEXT)
    at = 0
    for chunk in found:  # each as it stands in the text: no space changed, no character cut in half
        at = TEXT.index(chunk, at) + len(chunk)


def test_chunks_are_cut_between_sentences_and_filled(tokenizer):
    sentences = sentences_of.split_sentences(TEXT)
    sizes = [size(tokenizer, sentence) for sentence in sentences]
    found = chunks(TEXT, tokenizer, max(sizes))
    assert 1 < len(found) < len(sentences)
    assert [s for chunk in found for s in sentences_of.split_sentences(chunk)] == sentences
    for chunk, after in pairwise(found):
        first = sentences_of.split_sentences(after)[0]
        assert size(tokenizer, f"{chunk} {first}") > max(sizes), "there was room for it"
    assert chunks(TEXT, tokenizer, size(tokenizer, TEXT)) == [TEXT]


def test_the_overlap_is_whole_sentences_and_no_more_than_asked(tokenizer):
    text = " ".join(f"This is sentence {number:03}." for number in range(60))  # 21 tokens each, with the space before
    plain, found = (chunks(text, tokenizer, 100, overlap) for overlap in (0, 45))
    assert len(plain) == 15 and len(found) == 29
    for chunk, after in pairwise(found):
        repeated = [s for s in sentences_of.split_sentences(after) if s in chunk]
        assert len(repeated) == 2 and after.startswith(" ".join(repeated)) and chunk.endswith(" ".join(repeated))
    assert all(size(tokenizer, chunk) <= 100 for chunk in found)
    seen = dict.fromkeys(s for chunk in found for s in sentences_of.split_sentences(chunk))
    assert list(seen) == sentences_of.split_sentences(text)
    assert chunks(text, tokenizer, 100, 20) == plain, "no sentence is as short as that"


@pytest.mark.parametrize("overlap", range(0, 30, 3))
def test_an_overlap_never_stands_still(tokenizer, overlap):
    found = chunks(TEXT, tokenizer, 30, overlap)
    assert all(0 < size(tokenizer, chunk) <= 30 for chunk in found)
    assert len(set(found)) == len(found) and found[-1].endswith("thawed.")
    end = 0
    for chunk in found:  # the text's parts in order, each going further than the one before, with no gap between
        start = TEXT.rindex(chunk, 0, end + len(chunk) + 4)
        assert not TEXT[end:start].strip() and start + len(chunk) > end
        end = start + len(chunk)


@pytest.mark.parametrize("text", ["word " * 500, "x" * 2000, "雪" * 700, "🌨️" * 300, "a b" * 400 + "y" * 500])
def test_one_endless_sentence_is_cut_between_words_or_characters(tokenizer, text):
    found = chunks(text, tokenizer, 64)
    assert all(size(tokenizer, chunk) <= 64 for chunk in found) and bare("".join(found)) == bare(text)
    if text.startswith("word"):
        assert {word for chunk in found for word in chunk.split()} == {"word"}
        assert len(found) == 39  # thirteen words in each, 64 tokens
    assert "".join(found).isprintable()


def test_special_tokens_in_a_text_are_counted_as_letters(tokenizer):
    assert chunks("<|end|> " * 4, tokenizer, 15) == ["<|end|> <|end|>"] * 2


@pytest.mark.parametrize("text", ["", " \n\t", "\u2028"])
def test_blank_text_has_no_chunks(tokenizer, text):
    assert chunks(text, tokenizer, 8, 2) == []


@pytest.mark.parametrize("wrong", [(0, 0), (-1, 0), (5, 5), (5, 9), (5, -1)])
def test_chunks_that_cannot_be(tokenizer, wrong):
    with pytest.raises(SummkitError, match="0 <= overlap < tokens"):
        chunks(TEXT, tokenizer, *wrong)


def test_a_character_of_more_tokens_than_a_chunk_is_named(tokenizer):
    with pytest.raises(SummkitError, match="tokens=2: the character '雪' alone is 3 tokens"):
        chunks("It is 雪.", tokenizer, 2)


def test_a_tokenizer_whose_pieces_have_fewer_tokens_than_the_whole():
    """As where " x" is a token and "x" is three: the sum of the sentences would overfill a chunk."""

    class Growing:
        def __call__(self, text, **_):
            return {"input_ids": [1] * (len(text.split()) + (3 if text.count(".") > 1 else 0))}

    for overlap in (0, 2, 5):
        found = chunks("a b. " * 20, Growing(), 6, overlap)
        assert found and all(len(Growing()(chunk)["input_ids"]) <= 6 for chunk in found)
        assert sum(chunk.count(".") for chunk in found) >= 20
