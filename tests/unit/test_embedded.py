"""The real embedded model and real rows, for a handful of steps, where the cache holds them."""

import pytest

from summkit import assets, data, features, generation, methods, models, profiles, templates, training

CACHED = all(assets.is_cached(name) for name in ("smollm2-135m-instruct", "xsum-sample"))


@pytest.mark.skipif(not CACHED, reason="the cache does not hold the embedded model and data: `make run` fetches them")
def test_a_few_steps_on_real_rows_lower_the_loss_on_rows_not_trained_on(tmp_path):
    profile = profiles.choose(
        "cpu", max_words=80, max_length=176, train_rows=16, validation_rows=6, test_rows=1, evaluations_per_epoch=1
    )
    splits = data.for_profile(profile)
    tokenizer = models.load_tokenizer(profile.model)
    template = templates.build(profile.template, tokenizer)
    limits = (template, tokenizer, profile.max_length, profile.max_new_tokens)
    train, validation = (features.encode_rows(rows, *limits) for rows in (splits.train, splits.validation))
    model = models.load_model(profile.model, profile.precision)
    assert sum(models.footprint(model).values()) < 170e6 and models.parameter_report(model)["parameters"] == 134_515_008
    before = training.mean_loss(model, validation, tokenizer)
    model = methods.apply(model, profile)
    fit = training.fit(model, tokenizer, train, validation, profile, seed=0, out_dir=tmp_path)
    assert fit.steps == 4 and fit.eval_loss < before - 0.1
    adapted = generation.Summarizer.load(fit.adapter)
    (answer,) = adapted.summarize([splits.test[0]["document"]])
    (base,) = adapted.summarize([splits.test[0]["document"]], base=True)
    assert answer.text and answer.text != base.text
