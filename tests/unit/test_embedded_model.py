"""The real embedded model and real rows, for a handful of steps, where the cache holds them."""

import pytest

from summkit.config import choose_profile
from summkit.data import summarisation, templates, tokenisation
from summkit.inference import generation
from summkit.models import loading, methods
from summkit.offline import assets
from summkit.training import fit, mean_loss

CACHED = all(assets.is_cached(name) for name in ("smollm2-135m-instruct", "xsum-sample"))


@pytest.mark.skipif(not CACHED, reason="the cache does not hold the embedded model and data: `make run` fetches them")
def test_a_few_steps_on_real_rows_lower_the_loss_on_rows_not_trained_on(tmp_path):
    profile = choose_profile(
        "cpu", max_words=80, max_length=176, train_rows=16, validation_rows=6, test_rows=1, evaluations_per_epoch=1
    )
    splits = summarisation.load_summaries(profile)
    tokenizer = loading.load_tokenizer(profile.model)
    template = templates.build_template(profile.template, tokenizer)
    limits = (template, tokenizer, profile.max_length, profile.max_new_tokens)
    train, validation = (tokenisation.encode_rows(rows, *limits) for rows in (splits.train, splits.validation))
    model = loading.load_model(profile.model, profile.precision)
    assert (
        sum(loading.footprint(model).values()) < 170e6 and loading.parameter_report(model)["parameters"] == 134_515_008
    )
    before = mean_loss(model, validation, tokenizer)
    model = methods.apply_method(model, profile)
    result = fit(model, tokenizer, train, validation, profile, seed=0, out_dir=tmp_path)
    assert result.steps == 4 and result.eval_loss < before - 0.1
    adapted = generation.Summarizer.load(result.adapter)
    (answer,) = adapted.summarize([splits.test[0]["document"]])
    (base,) = adapted.summarize([splits.test[0]["document"]], base=True)
    assert answer.text and answer.text != base.text
