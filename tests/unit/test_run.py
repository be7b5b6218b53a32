"""A run from start to finish: what is chosen, what is measured, what the record holds."""

import json

import pytest

import summkit as sk
from summkit.errors import SummkitError
from summkit.reporting import records
from summkit.training import FitResult


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SUMMKIT_RUN_DIR", str(tmp_path))
    monkeypatch.delenv("SUMMKIT_DATA_DIR", raising=False)
    return tmp_path


def test_a_run_says_what_was_chosen_and_writes_a_whole_record(runs, capsys):
    run = sk.start("task9", "smoke", 3, train_rows=None, max_length=200)
    assert (run.profile.train_rows, run.profile.max_length, run.seed) == (24, 200, 3), "None leaves the preset's value"
    assert capsys.readouterr().out.startswith("profile smoke (asked for by name): tiny-llama")
    splits = sk.data.load_summaries(run.profile, run.seed)
    model = sk.models.load_model(run.profile.model)
    run.lap("loading")
    path = run.finish(model=model, data=splits, scores={"lead1": {"rouge1": {"mean": 1.0}}}, note="a detail")
    record = records.read_record(path)
    assert path == runs / "task9" / "run.json" and (record["stage"], record["seed"]) == ("task9", 3)
    assert (record["model"]["id"], record["model"]["source"]) == ("tiny-llama", "code")
    assert record["model"]["parameters"] == sk.models.parameter_report(model)["parameters"]
    assert record["model"]["footprint_bytes"] == sum(sk.models.footprint(model).values())
    assert (record["data"]["id"], record["data"]["train"]) == ("examples", 24)
    assert record["details"]["note"] == "a detail" and set(record["details"]["laps"]) == {"loading"}
    assert record["wall_seconds"] > 0 and record["resources"]["peak_rss_bytes"] > 0
    assert record["training"] == dict.fromkeys(records.SECTIONS["training"])
    assert "recorded in run.json: 0." in capsys.readouterr().out


def test_the_last_cell_may_be_run_twice(runs):
    run = sk.start("task9", "smoke")
    first = json.loads(run.finish(count=1).read_text())
    again = json.loads(run.finish(count=2).read_text())
    assert again["wall_seconds"] == first["wall_seconds"] and again["details"]["count"] == 2


def test_figures_are_named_once_in_the_order_of_saving(runs):
    import matplotlib.pyplot as plt

    run = sk.start("task9", "smoke")
    for name in ("b", "a", "b"):
        assert run.save_figure(plt.figure(), name).is_file()
    plt.close("all")
    assert json.loads(run.finish().read_text())["figures"] == ["figures/b.png", "figures/a.png"]


def test_a_figure_is_shown_once_with_its_text_and_is_in_the_record(runs, monkeypatch):
    import IPython.display
    import matplotlib.pyplot as plt

    shown = []
    monkeypatch.setattr(IPython.display, "display", lambda figure, metadata: shown.append((figure, metadata)))
    run, figure = sk.start("task9", "smoke"), plt.figure()
    run.show_figure(figure, "bars", "Two bars, the first is higher.")
    assert shown == [(figure, {"image/png": {"alt": "Two bars, the first is higher."}})]
    assert plt.get_fignums() == [], "an open figure is shown again at the end of the cell"
    assert json.loads(run.finish().read_text())["figures"] == ["figures/bars.png"]


def test_a_record_says_where_the_model_is_from(runs, tmp_path):
    asset = sk.offline.ASSETS["smollm2-135m-instruct"]
    (tmp_path / "mine").mkdir()
    for model, expected in (
        ("smollm2-135m-instruct", ("smollm2-135m-instruct", "embedded", asset.sha256)),
        ("org/name", ("org/name", "hub", None)),
        (str(tmp_path / "mine"), ("mine", "local", None)),
    ):
        run = sk.start("task9", "smoke", model=model)
        section = json.loads(run.finish(model={"parameters": 7}).read_text())["model"]
        assert (section["id"], section["source"], section["sha256"]) == expected and section["parameters"] == 7


def test_a_wrong_option_is_refused(runs):
    with pytest.raises(SummkitError, match="unknown option 'train_row'"):
        sk.start("task9", "smoke", train_row=3)
    with pytest.raises(SummkitError, match="option dropout=1.5"):
        sk.start("task9", "smoke", dropout=1.5)


def test_a_detail_of_any_kind_is_recorded(runs, caplog):
    fit = FitResult("lora", 1, 1, 1, 1, 0, None, None, None, None, False, False, "")
    path = sk.start("task9", "smoke").finish(fit=fit)
    assert json.loads(path.read_text())["details"]["fit"].startswith("FitResult(")
    assert "details.fit is a FitResult, recorded as text" in caplog.text


def test_what_a_page_does_not_know_of_its_model_leaves_what_is_known(runs):
    asset = sk.offline.ASSETS["smollm2-135m-instruct"]
    for model, told, expected in (
        ("smollm2-135m-instruct", None, asset.version),
        ("org/name", None, None),
        ("org/name", "a1b2", "a1b2"),
    ):
        run = sk.start("task9", "smoke", model=model)
        section = json.loads(run.finish(model={"revision": told}).read_text())["model"]
        assert section["revision"] == expected


def test_the_training_of_another_run_may_be_recorded(runs):
    run = sk.start("task9", "smoke")
    record = json.loads(run.finish(training={"method": "lora", "steps": 3}).read_text())
    assert (record["training"]["method"], record["training"]["steps"]) == ("lora", 3)
