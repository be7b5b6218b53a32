"""What is committed: reports are what the library makes of the records beside them, and the learning result holds."""

import csv
import json
import math
from pathlib import Path

import pytest

from summkit.models import methods
from summkit.reporting import records, report

ROOT = Path(__file__).parents[2]
SPINE = ("task1/xsum", "task2", "task3")
LABELS = {"task1/agnews": "accuracy", "task1/goemotions": "micro_f1", "task1/mnli": "accuracy"}
PRIMER = "notebooks/00_how_a_language_model_writes"
STUDY, DISTILLED = "notebooks/01_fine_tuning_methods", "notebooks/02_topic_distillation"
LONG, COSTS = "notebooks/03_long_documents", "notebooks/04_what_training_costs"
QUICKSTART, TEMPLATE = "notebooks/quickstart", "notebooks/template"
STUDIES = (PRIMER, STUDY, DISTILLED, LONG, COSTS, QUICKSTART, TEMPLATE)
REPORTS = {stage: ROOT / stage / "REPORT" for stage in (*SPINE, *LABELS)}
REPORTS |= {study: ROOT / "notebooks/REPORT" / study.split("/")[1] for study in STUDIES}


def notebook(stage: str) -> dict:
    """The committed notebook: a stage keeps its own in a folder, a study is a file beside the others."""
    alone = (ROOT / stage).with_suffix(".ipynb")
    path = alone if alone.is_file() else next((ROOT / stage / "NOTEBOOK").glob("*.ipynb"))
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("stage", REPORTS)
def test_a_report_is_made_from_the_record_beside_it(stage):
    record = records.read_record(REPORTS[stage] / "run.json")
    assert record["stage"] == stage and record["profile"] == "cpu" and record["seed"] == 0
    assert (REPORTS[stage] / "README.md").read_text(encoding="utf-8") == report.report_page(record)
    for name in record["figures"]:
        assert (REPORTS[stage] / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def result():
    return records.read_record(REPORTS["task3"] / "run.json")


@pytest.mark.parametrize("other", ["lead1", "zero_shot"])
@pytest.mark.parametrize("measure", ["rouge1", "rougeL"])
def test_fine_tuning_beats_the_baselines_on_the_test_rows(result, other, measure):
    found = result["details"]["differences"][f"fine_tuned_minus_{other}"][measure]
    assert found["low"] > 0, f"{measure}: {found}"
    means = [result["scores"][name][measure]["mean"] for name in ("fine_tuned", other)]
    assert means[0] - means[1] == pytest.approx(found["difference"], abs=1e-6)


def test_the_result_reaches_what_was_tried_by_hand_on_enough_rows(result):
    scores = result["scores"]["fine_tuned"]
    assert scores["n"] >= 64 and set(result["scores"]) >= {"lead1", "lead3", "zero_shot", "fine_tuned"}
    by_hand = {"rouge1": 25.7, "rouge2": 6.2, "rougeL": 20.1}  # fp32 LoRA, 176 rows, 32 test rows
    assert {key: scores[key]["mean"] >= value for key, value in by_hand.items()} == dict.fromkeys(by_hand, True)
    assert scores["ended_by_eos"] > 0.95 > result["scores"]["zero_shot"]["ended_by_eos"] + 0.2


def test_the_run_was_the_one_that_is_described(result):
    assert result["model"]["quantization"] == "nf4" and result["training"]["resumed_from"] is None
    assert result["training"]["padding_fraction"] < 0.1
    assert result["resources"]["energy_is_estimate"] in (True, False)


def test_the_short_way_trains_what_task_3_trains(result):
    short = records.read_record(REPORTS[QUICKSTART] / "run.json")
    for system in ("lead1", "lead3", "zero_shot", "fine_tuned"):
        for measure in ("rouge1", "rouge2", "rougeL", "support"):
            assert short["scores"][system][measure] == pytest.approx(result["scores"][system][measure])


def test_the_readme_shows_the_records_table(result):
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in report.report_page(result).split("## Differences")[0].splitlines() if line.startswith("|")]
    assert len(rows) == 7 and all(row in shown for row in rows)


def test_choosing_the_best_supported_answer_brings_names_back_and_keeps_rouge(result):
    scores, found = result["scores"]["supported"], result["details"]["differences"]["supported_minus_fine_tuned"]
    assert scores["rouge1"]["mean"] >= 28 and scores["rougeL"]["mean"] >= 21.5 and scores["support"]["mean"] >= 0.9
    assert found["support"]["low"] > 0.1 and found["rouge1"]["high"] > 0


def test_the_page_counts_the_answers_that_were_read_by_hand():
    with (ROOT / "task3/readings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    right = {kind: [r["without_error"] for r in rows if r["decoding"] == kind] for kind in ("greedy", "supported")}
    assert {kind: len(answers) for kind, answers in right.items()} == {"greedy": 30, "supported": 30}
    counts = [answers.count("yes") for answers in right.values()]
    text = (ROOT / "task3/README.md").read_text(encoding="utf-8")
    assert f"{counts[0]} of 30 greedy answers and {counts[1]} of 30 supported ones" in text
    assert all(bool(row["error"]) == (row["without_error"] == "no") for row in rows)


def test_the_three_stages_took_what_the_readme_says():
    seconds = sum(records.read_record(REPORTS[stage] / "run.json")["wall_seconds"] for stage in SPINE)
    assert seconds < 15 * 60
    assert f"together took {seconds / 60:.0f} minutes" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", REPORTS)
def test_the_committed_notebook_is_of_that_run(stage):
    cells = notebook(stage)["cells"]
    shown = "".join(t for c in cells for o in c.get("outputs", []) for t in o.get("text", []))
    record = records.read_record(REPORTS[stage] / "run.json")
    assert f"profile {record['profile']} (" in shown
    if stage in STUDIES:
        assert f"{record['wall_seconds'] / 60:.1f} min" in shown
    elif record["training"]["eval_loss"] is not None:
        assert f"validation loss {record['training']['eval_loss']:.3f}" in shown


@pytest.fixture(params=LABELS)
def study(request):
    return request.param, records.read_record(REPORTS[request.param] / "run.json")


def test_a_study_of_labels_took_at_most_six_minutes(study):
    assert study[1]["wall_seconds"] < 6 * 60


@pytest.mark.parametrize("stage", REPORTS)
def test_the_minutes_that_a_notebook_names_are_its_records(stage):
    """Two or three more where a page went on from earlier trainings: their records lack the start of a process."""
    record = records.read_record(REPORTS[stage] / "run.json")
    more = 3 if record["details"].get("trainings were there") else 1
    assert 0 <= notebook(stage)["metadata"]["summkit"]["minutes"]["cpu"] - record["wall_seconds"] / 60 < more


def test_a_study_of_labels_has_its_baselines_and_readings_on_the_same_rows(study):
    stage, record = study
    readings = {"zero_shot", "zero_shot_batch"} | ({"zero_shot_calibrated"} if stage == "task1/agnews" else set())
    systems = {"majority", "tfidf", "fine_tuned"} | readings | ({"hypothesis_only"} if stage == "task1/mnli" else set())
    assert systems <= set(record["scores"])
    assert {entry["n"] for entry in record["scores"].values()} == {record["data"]["test"]}
    assert all(entry[LABELS[stage]]["low"] is not None for entry in record["scores"].values())


@pytest.mark.parametrize("stage", ["task1/agnews", "task1/goemotions"])
def test_the_adapted_model_beats_its_own_zero_shot(stage):
    record = records.read_record(REPORTS[stage] / "run.json")
    found = [d[LABELS[stage]] for pair, d in record["details"]["differences"].items() if "zero_shot" in pair]
    assert len(found) == 2 and all(difference["low"] > 0.02 for difference in found)


def test_of_pairs_the_report_says_whether_it_does_or_why_not():
    record = records.read_record(REPORTS["task1/mnli"] / "run.json")
    difference = record["details"]["differences"]["fine_tuned_minus_zero_shot"]["accuracy"]
    verdict = record["details"]["against_its_own_zero_shot"]
    assert ("beats" in verdict) == (difference["low"] > 0)
    assert f"{100 * abs(difference['difference']):.1f} points" in verdict
    assert ("Why that can be" in verdict) == (difference["low"] <= 0)
    page = (REPORTS["task1/mnli"] / "README.md").read_text(encoding="utf-8")
    assert verdict.split(":")[0] in page and "few rows to learn from" in page


def test_against_counting_words_emotions_gain_and_topics_cannot_be_told():
    gains = {}
    for stage in ("task1/agnews", "task1/goemotions"):
        record = records.read_record(REPORTS[stage] / "run.json")
        gains[stage] = record["details"]["differences"]["fine_tuned_minus_tfidf"][LABELS[stage]]
    assert gains["task1/goemotions"]["low"] > 0.1 and gains["task1/agnews"]["low"] < 0 < gains["task1/agnews"]["high"]


@pytest.fixture(scope="module")
def methods_record():
    return records.read_record(REPORTS[STUDY] / "run.json")


def test_the_methods_were_compared_on_equal_terms(methods_record):
    details, scores = methods_record["details"], methods_record["scores"]
    compared = {"prompt", "lora", "full"}
    assert compared < set(methods.METHODS) and set(scores) == {"lead3", "zero_shot", *compared}
    assert len({entry["n"] for entry in scores.values()}) == 1
    assert {one["method"] for one in details["trainings"]} == compared
    assert len({one["steps"] for one in details["trainings"]}) == 1
    for name, losses in details["rates"].items():  # the rate that was taken is the one with the lowest loss
        assert len(losses) == 3 and details["chosen_rates"][name] == float(min(losses, key=losses.get))
    assert details["trainable"]["prompt"] < details["trainable"]["lora"] / 100 < details["trainable"]["full"] / 1000
    assert methods_record["wall_seconds"] < 25 * 60


def test_the_answer_on_methods_can_be_computed_from_the_records_rows(methods_record):
    details = methods_record["details"]
    rows = details["rows"]["test"]
    assert len(set(details["rows"]["ids"]["test"])) == methods_record["data"]["test"] == len(rows["untrained"])
    assert set(details["answer"]) == set(details["plan"]) == {"prompt minus lora", "full minus lora"}
    assert details["level"] == pytest.approx(1 - 0.05 / 2)
    for pair, found in details["answer"].items():
        ours, others = (rows[name] for name in pair.split(" minus "))
        assert len(ours) == 3 and ours.keys() == others.keys()
        gaps = [a - b for seed in ours for a, b in zip(ours[seed], others[seed], strict=True)]
        assert found["difference"] == pytest.approx(sum(gaps) / len(gaps))
        assert found["low"] < found["difference"] < found["high"]
        assert ("than lora" in found["verdict"]) == (found["low"] > 0 or found["high"] < 0)


def test_lora_and_all_weights_lower_the_loss_of_the_test_rows_with_every_seed(methods_record):
    rows = methods_record["details"]["rows"]["test"]
    untrained = sum(rows["untrained"]) / len(rows["untrained"])
    for name in ("lora", "full"):
        assert all(sum(losses) / len(losses) < untrained - 0.05 for losses in rows[name].values())


@pytest.fixture(scope="module")
def distilled():
    return records.read_record(REPORTS[DISTILLED] / "run.json")


def test_the_student_learned_its_teachers_answers(distilled):
    systems = {"tfidf", "student_pretrained", "student_few_shot", "student_fine_tuned"}
    details = distilled["details"]
    assert set(distilled["scores"]) == systems and set(details["comparisons"]) == systems - {"student_fine_tuned"}
    for other in ("student_pretrained", "tfidf"):
        assert details["comparisons"][other]["low"] > 5, f"{other}: {details['comparisons'][other]}"
    assert distilled["wall_seconds"] < 25 * 60


def test_a_distillations_comparison_can_be_made_again_from_its_rows(distilled):
    rows, details = distilled["details"]["rows"], distilled["details"]
    ours = rows["student_fine_tuned"]["topic_f1"]
    assert len(ours) == len(rows["id"]) == distilled["scores"]["tfidf"]["n"] >= 70
    for other, entry in details["comparisons"].items():
        apart = [a - b for a, b in zip(ours, rows[other]["topic_f1"], strict=True)]
        assert sum(apart) / len(apart) == pytest.approx(entry["mean"])
        assert entry["low"] < entry["mean"] < entry["high"] and details["level"] == pytest.approx(1 - 0.05 / 3)
    assert details["pilot"]["needed"] <= details["pilot"]["needed at the bound"]


def test_a_break_even_point_has_an_interval_and_the_kept_head_is_a_rival(distilled):
    cost = {name: row["mean"] for name, row in distilled["details"]["costs_of_one"].items()}
    assert (
        cost["student_fine_tuned"] < cost["teacher_read_anew"] and cost["teacher_head_kept"] < cost["teacher_read_anew"]
    )
    pays = distilled["details"]["break_even"]
    assert set(pays) == {"student_few_shot", "teacher_head_kept", "teacher_read_anew"}
    for entry in pays.values():  # null is "never"
        assert entry["low"] is None or entry["low"] <= (entry["rows"] or entry["low"]) <= (entry["high"] or 10**12)


@pytest.fixture(scope="module")
def papers():
    return records.read_record(REPORTS[LONG] / "run.json")


def test_every_way_of_reading_stands_between_its_bounds(papers):
    scores = {name: entry["rouge1"]["mean"] for name, entry in papers["scores"].items()}
    bounds, ways = {"lead3", "lead10", "oracle3", "oracle8"}, {"first", "lead_and_end", "extract"}
    assert set(scores) == bounds | ways | {"untrained"}
    assert scores["oracle8"] > scores["oracle3"] > max(scores[way] for way in ways) and scores["first"] > 20
    assert scores["untrained"] < scores["first"] - 10
    assert len({entry["n"] for entry in papers["scores"].values()}) == 1 and papers["wall_seconds"] < 25 * 60


def test_the_answer_on_papers_can_be_computed_from_the_records_rows(papers):
    rows, answer = papers["details"]["rows"], papers["details"]["answer"]
    assert set(rows["test"]) == set(papers["scores"]) and len(set(rows["ids"])) == papers["data"]["test"]
    assert set(answer) == set(papers["details"]["plan, in papers and points of ROUGE-1"]) == {"lead_and_end", "extract"}
    for name, found in answer.items():
        pairs = zip(rows["test"][name]["rouge1"], rows["test"]["first"]["rouge1"], strict=True)
        gaps = [ours - firsts for ours, firsts in pairs]
        assert found["difference"] == pytest.approx(sum(gaps) / len(gaps)) and found["papers"] == len(gaps)
        assert found["better on"] == sum(gap > 0 for gap in gaps)
        assert found["low"] < found["difference"] < found["high"]
        assert ("than the beginning" in found["verdict"]) == (found["low"] > 0 or found["high"] < 0)
    assert all(len(rows[name]) == 6 for name in ("chunks", "sparse_all"))


def test_the_same_weights_agree_within_the_window_and_part_beyond_it(papers):
    apart = {int(key.split()[0]): share for key, share in papers["details"]["states of dense and sparse apart"].items()}
    assert max(apart[n] for n in apart if n <= 128) < 1e-5 and min(apart[n] for n in apart if n > 128) > 0.1


def test_memory_grows_with_the_length_where_attention_is_sparse_and_faster_where_it_is_dense(papers):
    slopes, steps = papers["details"]["slope of memory over length"], papers["details"]["encoder step"]
    assert slopes["sparse"] < 1.1 and slopes["dense"] > slopes["sparse"] + 0.3
    assert max(step["tokens"] for step in steps) == 16_384
    added = {name: row.get("added memory, GB") for name, row in papers["details"]["techniques"].items()}
    assert all(added[name] < 0.9 * added["plain"] for name in ("accumulation", "checkpointing", "all together"))
    assert papers["details"]["techniques"]["mixed precision"].get("note", "").startswith("not supported")


@pytest.fixture(scope="module")
def costs_record():
    return records.read_record(REPORTS[COSTS] / "run.json")


def test_every_way_to_train_is_compared_with_plain_at_one_corrected_level(costs_record):
    details = costs_record["details"]
    compared = 0
    for length in ("short rows", "long rows"):
        memory, seconds = details[length]["memory"], details[length]["time"]
        assert set(memory) == set(seconds) >= {"plain", "LoRA", "checkpointing"}
        for found in (memory, seconds):
            for name in set(found) - {"plain"}:
                entry = found[name]
                assert 0 < entry["low"] < entry["ratio"] < entry["high"] and entry["verdict"]
                compared += 1
    assert compared <= details["pilot"]["comparisons"]
    assert details["pilot"]["level"] == pytest.approx(1 - 0.05 / details["pilot"]["comparisons"])
    assert details["long rows"]["memory"]["checkpointing"]["ratio"] < 1


def test_a_comparison_of_costs_can_be_made_again_from_its_trials(costs_record):
    details = costs_record["details"]
    for length in ("short rows", "long rows"):
        trials = details["trials"][length]
        for what, column in (("memory", "GB"), ("time", "seconds")):
            logs = {name: [] for name in details[length][what]}
            for one in trials:
                if one["way"] in logs:
                    logs[one["way"]].append(math.log(one[column]))
            rounds = len(logs["plain"])
            assert rounds > 1 and {len(values) for values in logs.values()} == {rounds}
            for name in set(logs) - {"plain"}:
                gap = (sum(logs[name]) - sum(logs["plain"])) / rounds
                assert details[length][what][name]["ratio"] == pytest.approx(math.exp(gap))


def test_a_forecast_of_costs_stands_beside_what_was_measured(costs_record):
    details = costs_record["details"]
    assert set(details["forecast"]) == set(details["trained"]) == {"plain", "LoRA", "checkpointing"}
    for name, entry in details["forecast"].items():
        assert entry["lowest"] <= entry["seconds"] <= entry["highest"]
        for key, off in details["measured over forecast, minus one"][name].items():
            assert off == pytest.approx(details["trained"][name][key] / entry[key] - 1)
    assert costs_record["wall_seconds"] < 25 * 60


def test_training_on_conversations_beats_the_untrained_model(costs_record):
    scores, rows = costs_record["scores"], costs_record["details"]["rows"]
    assert {entry["n"] for entry in scores.values()} == {costs_record["data"]["test"]} == {len(rows["id"])}
    assert scores["plain"]["rouge1"]["mean"] > scores["untrained"]["rouge1"]["mean"]
    for name, entry in scores.items():
        assert sum(rows[name]["rouge1"]) / len(rows["id"]) == pytest.approx(entry["rouge1"]["mean"])
