"""What a page tells `run.finish` about its model, its training and the runs before it, as the record holds it."""

import json

import pytest

import summkit as sk


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_RUN_DIR", str(tmp_path))
    return tmp_path


def recorded(run, **sections):
    return json.loads(run.finish(**sections).read_text(encoding="utf-8"))


def test_what_a_page_does_not_know_of_its_model_leaves_what_is_known(runs):
    asset = sk.offline.ASSETS["smollm2-135m-instruct"]
    for model, told, expected in (
        ("smollm2-135m-instruct", None, asset.version),
        ("org/name", None, None),
        ("org/name", "a1b2", "a1b2"),
    ):
        run = sk.start("task9", "smoke", model=model)
        section = recorded(run, model={"revision": told})["model"]
        assert section["revision"] == expected


def test_the_training_of_another_run_may_be_recorded(runs):
    run = sk.start("task9", "smoke")
    record = recorded(run, training={"method": "lora", "steps": 3})
    assert (record["training"]["method"], record["training"]["steps"]) == ("lora", 3)


def test_what_is_printed_counts_the_earlier_runs_too(runs, capsys):
    run = sk.start("task9", "smoke")
    earlier = recorded(sk.start("task8", "smoke"))
    earlier |= {"started": "2020-01-01T00:00:00+00:00", "wall_seconds": 1200.0}
    earlier["resources"]["peak_rss_bytes"] = 77_000_000_000
    run.finish(earlier=[earlier])
    assert "recorded in run.json: 20.0 min, peak memory 77.0 GB" in capsys.readouterr().out
