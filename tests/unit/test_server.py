"""An exported model behind a server is asked with the training's token ids, several texts at once."""

import pytest
import torch

from summkit import inference
from summkit.cli import main
from summkit.config import choose_profile
from summkit.errors import Interrupted, SummkitError
from summkit.inference import generation
from summkit.models import loading, methods
from summkit.training import checkpoints
from tests.endpoint import PLAIN, LocalEndpoint, continuation, failure

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = ["Rain.", "The bridge over the Marran opened on Monday after a year of work. " * 2, "x" * 900, "Two tugs."]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    profile = choose_profile("smoke", precision="fp32", max_new_tokens=12)
    torch.manual_seed(0)
    model = methods.apply_method(loading.load_model("tiny-llama", "fp32"), profile)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return checkpoints.save_adapter(model, tmp_path_factory.mktemp("a") / "adapter", profile)


@pytest.fixture(scope="module")
def merged(adapter):
    return inference.merge_adapter(adapter, adapter.parent / "merged")


@pytest.fixture(scope="module")
def completed(merged):
    """What the merged model writes after token ids, as a server would, and whether it ended."""
    model, tokenizer = loading.load_model(str(merged)), loading.load_tokenizer(str(merged))

    def complete(ids):
        new = model.generate(torch.tensor([ids]))[0, len(ids) :].tolist()
        return tokenizer.decode(new, skip_special_tokens=True), new[-1] == tokenizer.eos_token_id

    return complete


def test_a_server_gets_the_prompts_token_ids_and_the_answers_are_those_of_the_model(adapter, merged, completed):
    here = generation.Summarizer.load(adapter)
    with LocalEndpoint(models=("merged",), complete=completed) as stand_in:
        served = inference.Served.load(merged, stand_in.url)
        found = served.summarize(TEXTS)
    expected = here.summarize(TEXTS)
    assert [(a.text, a.ended, a.cut, a.prompt_tokens) for a in found] == [
        (a.text, a.ended, a.cut, a.prompt_tokens) for a in expected
    ]
    prompts = [row["input_ids"] for row in here.encode(TEXTS)]
    assert sorted(body["prompt"] for body in stand_in.asked) == sorted(prompts) and found[2].cut > 0
    for body in stand_in.asked:
        assert {key: body[key] for key in body if key != "prompt"} == {
            "model": "merged", "max_tokens": 12, "temperature": 0.0,
        }  # fmt: skip


def test_several_texts_are_asked_at_once(merged):
    with LocalEndpoint(models=("merged",), complete=lambda ids: ("so", True), delay=0.3) as stand_in:
        served = inference.Served.load(merged, stand_in.url)
        served.batch_size = 3
        answers = served.summarize(TEXTS * 2)
    assert stand_in.most == 3 and [answer.text for answer in answers] == ["so"] * 8
    assert served.summarize([]) == []


def test_the_command_asks_the_server(merged, tmp_path, capsys):
    (tmp_path / "a.txt").write_text(TEXTS[0])
    call = ["summarize", "--adapter", str(merged), str(tmp_path / "a.txt"), "--url"]
    with LocalEndpoint(models=("merged",), complete=lambda ids: (f"{len(ids)} tokens", False)) as stand_in:
        assert main([*call, stand_in.url]) == 0
        assert main([*call, stand_in.url, "--engine", "graphs"]) == 2
    said = capsys.readouterr()
    assert said.out == f"{len(stand_in.asked[0]['prompt'])} tokens\n" and "is an exported model" in said.err
    assert main([*call, "nowhere"]) == 2 and "an address such as" in capsys.readouterr().err


def test_the_model_of_the_folders_name_is_asked(merged):
    for models, asked in ((("a", "/srv/merged"), "/srv/merged"), (("a", "b"), "merged")):
        with LocalEndpoint(models=models, complete=lambda ids: ("so", True)) as stand_in:
            assert inference.Served.load(merged, stand_in.url).name == asked
    with LocalEndpoint(models=("a",)) as stand_in, pytest.raises(SummkitError, match="no model 'merged' .*; known: a"):
        inference.Served.load(merged, stand_in.url).summarize(TEXTS[:1])


def test_an_adapter_has_to_be_exported_first(adapter):
    with pytest.raises(
        SummkitError, match="adapter is not an exported model: make one with `python -m summkit export`"
    ):
        inference.Served.load(adapter, "http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (continuation([], "so", True, read=7), "does not complete token ids .7 tokens were read of "),
        ((200, PLAIN, b'{"choices": []}'), "does not complete token ids"),
        ((200, PLAIN, b"<html>"), "does not complete token ids .*: <html>"),
        (failure(400, "too long"), "status 400; the server says: .*too long"),
        (failure(401, "no"), "the key is missing"),
    ],
)
def test_a_reply_that_is_no_completion_ends_it(merged, reply, said):
    with LocalEndpoint(models=("merged",), script=[reply]) as stand_in:
        served = inference.Served.load(merged, stand_in.url)
        with pytest.raises(SummkitError, match=said):
            served.summarize(TEXTS[:1])


def test_ctrl_c_ends_the_requests(merged, monkeypatch):
    def complete(ids):
        return "so", True

    with LocalEndpoint(models=("merged",), complete=complete, delay=0.1) as stand_in:
        served = inference.Served.load(merged, stand_in.url)
        served.batch_size = 1
        read = generation.read_answer

        def stopped(*args):
            if len(stand_in.asked) > 1:
                raise KeyboardInterrupt
            return read(*args)

        monkeypatch.setattr(generation, "read_answer", stopped)
        with pytest.raises(Interrupted, match="of 8 texts were answered"):
            served.summarize(TEXTS * 2)
    assert len(stand_in.asked) < 8
