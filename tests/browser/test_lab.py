"""In JupyterLab and Chromium: a page that was run, saved and shut down reads well when it is opened again."""

import json
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.lab import ROOT, UNFINISHED, Lab, browser_program, outputs, server, texts

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
# What the chapters do: the imports, a training with its bar and curves, answers, a wait, a step that fails, own texts.
IMPORTS = """\
import summkit as sk

import time

import matplotlib.pyplot as plt
import torch
from IPython.display import display
from transformers import set_seed

from summkit import progress
from summkit.reporting import figures, widgets"""
BARS = """\
for _ in progress.bar(range(3), desc="kept", leave=True):
    time.sleep(0.2)
for _ in progress.bar(range(3), desc="cleared", leave=False):
    time.sleep(0.2)
with progress.clock("waiting"):
    time.sleep(1.2)"""
LOAD = """\
run = sk.start("task3", "smoke", 0, train_rows=16, validation_rows=4, test_rows=4)
profile = run.profile
splits = sk.data.load_summaries(profile, 0)
tokenizer = sk.models.load_tokenizer(profile.model)
template = sk.data.summary_template(profile, tokenizer)
limits = {"max_length": profile.max_length, "max_new_tokens": profile.max_new_tokens}
set_seed(0)
base = sk.models.load_model(profile.model, profile.precision, profile.compute_dtype)
model = sk.models.apply_method(base, profile)"""
FIT = """\
def on_log(history):
    plt.close(figures.learning_curves(history).figure)
    live.update(f"{len(history)} entries")


rows = {"train": splits.train, "validation": splits.validation}
encoded = {name: sk.data.encode_rows(part, template, tokenizer, **limits) for name, part in rows.items()}
live = display("the curves come with the first step", display_id=True)
ways = {"seed": 0, "out_dir": run.folder, "on_log": on_log}
fit = sk.training.fit(model, tokenizer, encoded["train"], encoded["validation"], profile, **ways)
print("trained")"""
ASK = """\
answers = sk.inference.summarize(model, tokenizer, template, list(splits.test["document"]), **limits)
print(len(answers), "answers")"""
PLAYGROUND = """\
summarizer = sk.inference.Summarizer(model, tokenizer, template, **limits)
shown = widgets.playground(summarizer)
shown"""
CELLS = [IMPORTS, BARS, LOAD, FIT, ASK, PLAYGROUND]
SLOW = """\
asked = []
answer = summarizer.summarize


def counted(*arguments, **options):
    asked.append(options["decoding"])
    return answer(*arguments, **options)


summarizer.summarize = counted
summarizer.end_tokens = []
base.register_forward_pre_hook(lambda *_: time.sleep(0.3));"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab") / "pages"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def lab(folder):
    """A function that opens a notebook in JupyterLab, in a page of the given width."""
    from playwright.sync_api import sync_playwright

    with server(folder, folder.parent / "settings") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_program())

        def start(name, width=1280):
            opened = Lab(browser, address, folder, width)
            opened.open(name)
            return opened

        yield start
        browser.close()


def write(folder, name, cells):
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=KERNEL), folder / name)


@pytest.fixture(scope="module")
def saved(lab, folder):
    """The name of a page that was run in JupyterLab, and then saved, and its kernel shut down."""
    write(folder, "page.ipynb", CELLS)
    opened = lab("page.ipynb")
    opened.run()
    notebook = opened.save()
    opened.shut_down()
    assert [output for output in outputs(notebook) if output["output_type"] == "error"] == []
    return "page.ipynb"


def test_nothing_stays_of_progress_but_text(saved, folder):
    notebook = json.loads((folder / saved).read_text(encoding="utf-8"))
    assert [texts(output) for output in outputs(notebook) if UNFINISHED.search(texts(output))] == []
    bars = [texts(output).strip() for output in notebook["cells"][1]["outputs"]]
    assert bars[0].startswith("kept: 100%") and bars[1:] == ["", ""]
    assert any(texts(output).startswith("training: 100%") for output in notebook["cells"][3]["outputs"])


def test_nothing_is_in_red(saved, folder):
    notebook = json.loads((folder / saved).read_text(encoding="utf-8"))
    assert notebook["cells"][0]["outputs"] == []
    assert [texts(output) for output in outputs(notebook) if output.get("name") == "stderr"] == []


def test_a_page_that_is_opened_again_has_its_example_and_no_dead_widget(lab, saved):
    opened = lab(saved)
    opened.page.wait_for_timeout(3_000)  # until JupyterLab has given the widgets up
    text = opened.text()
    assert "Port Ennick" in text and "fine-tuned (greedy" in text
    assert UNFINISHED.search(text) is None and "kept: 100%" in text
    opened.shut_down()


def test_the_html_export_has_the_example_and_no_dead_widget(saved, folder):
    from nbconvert import HTMLExporter

    page, _ = HTMLExporter().from_filename(str(folder / saved))
    body = page[page.index("<body") :]
    assert "Port Ennick" in body and "need a running kernel" in body
    assert UNFINISHED.search(body) is None


def test_the_playground_answers_one_click_at_a_time_and_can_be_stopped(lab, folder):
    write(folder, "own.ipynb", [IMPORTS, LOAD, PLAYGROUND, SLOW])
    opened = lab("own.ipynb")
    opened.run()
    page = opened.page
    page.locator(".summkit-playground textarea").fill("الجسر مفتوح اليوم.")
    bidi = page.locator(".summkit-playground textarea").evaluate("area => getComputedStyle(area).unicodeBidi")
    assert bidi == "plaintext"
    start, stop = page.get_by_role("button", name="Summarise"), page.get_by_role("button", name="Stop", exact=True)
    start.dblclick()
    page.wait_for_function("() => /greedy: [1-9]\\d* steps, \\d+ s/.test(document.body.innerText)")
    assert start.is_disabled() and stop.is_enabled()
    stop.click()
    page.wait_for_function("() => document.body.innerText.includes('Stopped; below are the last answers')")
    assert start.is_enabled()
    assert "Port Ennick" in opened.text()
    page.locator(".summkit-playground textarea").fill("")
    start.click()
    page.wait_for_function("() => document.body.innerText.includes('there is no text to summarise')")
    opened.type_and_run("print(asked)")
    assert "['greedy', 'greedy']" in opened.text()  # the double click asked once; the empty text asked once
    opened.shut_down()


SIDES = """\
from summkit.reporting import widgets

text = "Ann Reed opened the extraordinarily long footbridge over the Marran on 3 March, said Sound & Isles. " * 3
row = {"id": "7", "document": text, "reference": text, "base": "", "fine_tuned": text}
widgets.side_by_side([row])"""


def test_on_a_phone_no_column_is_off_screen(lab, folder):
    write(folder, "narrow.ipynb", [SIDES])
    opened = lab("narrow.ipynb", width=390)
    opened.command("application:toggle-left-area")
    opened.run()
    boxes = opened.page.evaluate(
        """() => [...document.querySelectorAll(".jp-OutputArea-output div[dir=auto]")].map(part => {
          const box = part.getBoundingClientRect();
          return [box.left, box.right, getComputedStyle(part).textAlign, part.innerText];
        })"""
    )
    assert len(boxes) == 4
    assert all(0 <= left < right <= 390 and align in {"start", "left"} for left, right, align, _ in boxes)
    assert boxes[2][3].split() == ["base", "(empty)"]
    opened.shut_down()


def test_opening_and_saving_a_committed_notebook_changes_what_the_reader_changed(lab, folder):
    for path in (ROOT / "task2" / "NOTEBOOK" / "task_2.ipynb", ROOT / "notebooks" / "template.ipynb"):
        before = json.loads(shutil.copy(path, folder / path.name).read_text(encoding="utf-8"))
        opened = lab(path.name)
        opened.page.evaluate(
            """() => {
              const {model} = window.jupyterapp.shell.currentWidget.context;
              const cell = model.cells.get(1);
              cell.sharedModel.setSource(cell.sharedModel.getSource() + "\\n\\nA note of a reader.");
            }"""
        )
        after = opened.save()
        opened.shut_down()
        source = "".join(after["cells"][1].pop("source"))
        assert source == "".join(before["cells"][1].pop("source")) + "\n\nA note of a reader."
        assert after == before
