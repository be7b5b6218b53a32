"""Prompt tuning's traps: padding on the left puts the prompt before the pads, and labels shift by the prompt."""

import pytest

from summkit.config import choose_profile
from summkit.data import batching, templates, tokenisation
from summkit.inference import generation
from summkit.models import loading, methods
from summkit.training import summary_loss

DOCUMENTS = ["A bridge fell.", "A much longer report of what the council said about the bridge and the river below it."]


@pytest.fixture(scope="module")
def asked():
    profile = choose_profile("smoke", method="prompt", precision="fp32", virtual_tokens=12)
    model = methods.apply_method(loading.load_model("tiny-llama"), profile)
    return model, loading.tiny_tokenizer(), templates.build_template("instruction", loading.tiny_tokenizer())


def encoded(asked, document, summary):
    _, tokenizer, template = asked
    return tokenisation.encode(template, tokenizer, document, summary, 320, 24)


def test_a_batch_answers_as_each_row_alone(asked):
    limits = {"max_length": 320, "max_new_tokens": 12}
    together = generation.summarize(*asked, DOCUMENTS, batch_size=2, **limits)
    assert together == [generation.summarize(*asked, [text], batch_size=1, **limits)[0] for text in DOCUMENTS]


def test_an_answer_is_what_pefts_own_generate_gives_for_one_row(asked):
    import torch

    model, tokenizer, _ = asked
    ids = torch.tensor([encoded(asked, DOCUMENTS[1], None)["input_ids"]])
    theirs = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    new = theirs[0, ids.shape[1] :].tolist()
    ours = generation.summarize(*asked, [DOCUMENTS[1]], max_length=320, max_new_tokens=12)[0]
    assert generation.read_answer(tokenizer, new, 0).text == ours.text


def test_without_the_adapter_the_base_answers_without_the_prompt(asked):
    base = loading.load_model("tiny-llama")
    for parameter in base.parameters():  # louder, so that the answers depend on the prompt
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    _, *rest = asked
    limits = {"max_length": 320, "max_new_tokens": 12}
    plain = generation.summarize(base, *rest, DOCUMENTS, **limits)
    tuned = methods.apply_method(base, choose_profile("smoke", method="prompt", precision="fp32", virtual_tokens=12))
    summarizer = generation.Summarizer(tuned, *rest, **limits)
    assert summarizer.summarize(DOCUMENTS, base=True) == plain != summarizer.summarize(DOCUMENTS)
    assert (loading.virtual_tokens(tuned), loading.virtual_tokens(base)) == (12, 0)


def test_the_loss_is_that_of_all_positions_with_the_prompt_masked(asked):
    import torch

    model, tokenizer, _ = asked
    rows = [encoded(asked, text, "It fell.") for text in DOCUMENTS]
    batch = batching.Collator(tokenizer)(rows)
    with torch.no_grad():
        ours, theirs = summary_loss(model, batch), model(**batch, use_cache=False).loss
        alone = [summary_loss(model, batching.Collator(tokenizer)([row])) for row in rows]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert ours.item() == pytest.approx(torch.stack(alone).mean().item(), rel=1e-5)


def test_padding_on_the_left_would_change_pefts_answer(asked):
    """Why `generation` builds the batch itself: this is the trap, and where it goes away this can go too."""
    import torch

    model, tokenizer, _ = asked
    rows = [encoded(asked, text, None) for text in DOCUMENTS]
    left = batching.Collator(tokenizer, side="left")(rows)
    with torch.no_grad():
        padded = model(**left, use_cache=False).logits[0, -1]
        alone = model(**batching.Collator(tokenizer)(rows[:1]), use_cache=False).logits[0, -1]
    assert (padded - alone).abs().max() > 1e-4  # rounding alone is a hundred times less
