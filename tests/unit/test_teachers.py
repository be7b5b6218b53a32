"""Who answers: a tiny model here, and a server on 127.0.0.1 that is well, busy, slow, broken or refuses."""

import json
import logging
import os
import re
import sys
import threading

import pytest

from summkit.config import choose_profile
from summkit.data import templates
from summkit.distillation import teachers
from summkit.errors import SummkitError
from summkit.inference import generation
from summkit.models import loading
from tests.endpoint import LocalEndpoint, failure

PAIRS = (("A sheep eats grass.", "sheep; grass"), ("A ship leaves the port.", "ships; ports"))
WORDING = templates.Wording("Name the topics.", "Abstract", answer="Topics", examples=PAIRS)
TEXTS = [f"Text {number} is about bridges." for number in range(9)]
KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch):
    for name in [name for name in os.environ if name.startswith("OPENAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SUMMKIT_TEACHER_KEY", raising=False)


def topics_of(document: str, temperature: float) -> str:
    return f"topic of {document.split()[1]}; at {temperature}"


def endpoint(server, **changes):
    settings = {"max_new_tokens": 24, "timeout": 5, "retries": 2} | changes
    return teachers.EndpointTeacher(server.url, settings.pop("model", "teacher"), WORDING, **settings)


def test_a_server_is_asked_as_the_template_asks_a_model():
    with LocalEndpoint(topics_of) as server:
        teacher = endpoint(server)
        assert teacher.ask(TEXTS, temperature=0.7, seed=3) == [topics_of(text, 0.7) for text in TEXTS]
    [body] = [body for body in server.asked if body["messages"][-1]["content"] == TEXTS[0]]
    turns = [("system", "Name the topics."), ("user", PAIRS[0][0]), ("assistant", "sheep; grass")]
    turns += [("user", PAIRS[1][0]), ("assistant", "ships; ports"), ("user", TEXTS[0])]
    assert [(turn["role"], turn["content"]) for turn in body["messages"]] == turns
    expected = {"model": "teacher", "max_tokens": 24, "temperature": 0.7, "seed": 3}
    assert {key: value for key, value in body.items() if key != "messages"} == expected
    tokenizer = loading.tiny_tokenizer()
    rendered = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    assert rendered == templates.build_template("chat", tokenizer, WORDING).prompt(TEXTS[0])


def test_about_says_what_the_answers_depend_on():
    with LocalEndpoint(topics_of) as server:
        about = endpoint(server).about
        other = teachers.EndpointTeacher(server.url, "teacher", templates.Wording("Name it."), max_new_tokens=24).about
    assert about | {"prompt": "?"} == {"model": "teacher", "revision": None, "prompt": "?", "base_url": server.url}
    assert re.fullmatch("[0-9a-f]{12}", about["prompt"]) and about["prompt"] != other["prompt"]


def test_documents_are_asked_side_by_side_and_answered_in_order():
    together, lock, inside, most = threading.Barrier(3), threading.Lock(), [], []

    def answer(document, temperature):
        with lock:
            inside.append(document)
            most.append(len(inside))
        together.wait(timeout=60)  # breaks where fewer than three are asked at a time
        with lock:
            inside.remove(document)
        return topics_of(document, temperature)

    with LocalEndpoint(answer) as server:
        assert endpoint(server, workers=3, timeout=60).ask(TEXTS) == [topics_of(text, 0.0) for text in TEXTS]
    assert max(most) == 3


def test_a_busy_server_is_asked_again_when_it_says():
    with LocalEndpoint(topics_of, script=[failure(429, Retry_After="1.2")]) as server:
        assert endpoint(server).ask(TEXTS[:1]) == [topics_of(TEXTS[0], 0.0)]
    assert len(server.asked) == 2 and server.times[1] - server.times[0] >= 1.2


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_stumbling_server_is_asked_again_after_a_growing_pause(status):
    with LocalEndpoint(topics_of, script=[failure(status)] * 2) as server:
        assert endpoint(server).ask(TEXTS[:1]) == [topics_of(TEXTS[0], 0.0)]
    first, second = (server.times[n + 1] - server.times[n] for n in range(2))
    assert first > 0.3 and second > 0.7


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_is_named_with_what_to_do(status):
    server = LocalEndpoint(topics_of, script=[failure(status, "overloaded")] * 2)
    with server, pytest.raises(SummkitError) as error:
        endpoint(server, retries=1).ask(TEXTS[:1])
    said = str(error.value)
    assert said.startswith(f"{server.url}: status {status} after up to 2 tries") and "overloaded" in said
    assert said.endswith("Finished labels are saved: run the same command again to resume")


def test_a_server_that_does_not_answer_in_time():
    server = LocalEndpoint(topics_of, delay=2)
    with server, pytest.raises(SummkitError, match="no answer in time after 2 tries.*Finished labels are saved"):
        endpoint(server, timeout=0.2, retries=1).ask(TEXTS[:1])
    assert len(server.asked) == 2


def test_a_server_that_is_not_there():
    with LocalEndpoint(topics_of) as server:
        pass
    with pytest.raises(SummkitError, match=f"{re.escape(server.url)}: no connection after 1 tries; is the server up"):
        endpoint(server, retries=0).ask(TEXTS[:1])


@pytest.mark.parametrize(
    "body",
    [
        b"<html>oops</html>", b"", b"[]", b"null", b"3", b"{}", b'{"choices": []}', b'{"choices": {}}',
        b'{"choices": [{}]}', b'{"choices": [null]}', b'{"choices": [{"message": null}]}', b'{"choices": "x"}',
        b'{"choices": [{"message": {"content": null}}]}', b'{"choices": [{"message": {"content": [1]}}]}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_garbage_is_an_empty_answer(body, kind):
    with LocalEndpoint(topics_of, script=[(200, {"Content-Type": kind}, body)]) as server:
        assert endpoint(server).ask(TEXTS[:2], seed=1).count("") == 1
        assert len(server.asked) == 2, "not asked again here: the job counts its attempts"


@pytest.mark.parametrize(("status", "words"), [(401, "the key is missing"), (403, "the key is missing")])
def test_a_key_that_is_wanted_is_asked_for_at_once(status, words):
    server = LocalEndpoint(topics_of, script=[failure(status)])
    with server, pytest.raises(SummkitError, match=f"status {status}: {words}; put .* variable MY_KEY$"):
        endpoint(server, key_variable="MY_KEY").ask(TEXTS[:1])
    assert len(server.asked) == 1


def test_an_unknown_model_is_told_which_there_are():
    with LocalEndpoint(topics_of, models=("llama", "qwen")) as server:
        with pytest.raises(SummkitError, match="status 404: no model 'teacher' .*; known: llama, qwen$"):
            endpoint(server).ask(TEXTS[:1])
        server.url = server.url.removesuffix("/v1")
        with pytest.raises(SummkitError, match=r"status 404: .* \(it often ends in /v1\); known: none that it lists$"):
            endpoint(server).ask(TEXTS[:1])


def test_a_text_that_the_server_refuses_is_named():
    server = LocalEndpoint(topics_of, broken={TEXTS[1]: failure(400, "maximum context length is 8")})
    words = "begins 'Text 1 is about bridges.'; the server says: maximum context"
    with server, pytest.raises(SummkitError, match=words):
        endpoint(server).ask(TEXTS[:3])


def test_the_key_comes_from_its_variable_and_is_shown_nowhere(monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SUMMKIT_TEACHER_KEY", f"{KEY}\n")
    replies = [failure(401, f"bad key {KEY}"), failure(400, f"you sent {KEY}"), failure(503, f"no {KEY}")]
    with LocalEndpoint(topics_of, script=replies) as server:
        teacher = endpoint(server, retries=0)
        for words in ("is not accepted", "you sent …", "no …"):
            with pytest.raises(SummkitError, match=words) as error:
                teacher.ask(TEXTS[:1])
            assert KEY not in str(error.value) and error.value.__suppress_context__
        teacher.ask(TEXTS[:1])
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert KEY not in json.dumps(teacher.about) + json.dumps(server.asked) + repr(teacher) + caplog.text
    assert len(caplog.records) > 4


@pytest.mark.parametrize("key", ["ä-key", "two words", "a\nb", "a\x7fb"])
def test_what_is_no_key_is_refused_unshown(monkeypatch, key):
    monkeypatch.setenv("SUMMKIT_TEACHER_KEY", key)
    with (
        LocalEndpoint(topics_of) as server,
        pytest.raises(SummkitError, match="SUMMKIT_TEACHER_KEY is not a valid key") as error,
    ):
        endpoint(server)
    assert key not in str(error.value)


def test_nothing_that_was_meant_for_another_server_is_sent(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "HF_TOKEN"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {KEY}")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with LocalEndpoint(topics_of) as server:
        assert endpoint(server, retries=0).ask(TEXTS[:1]) == [topics_of(TEXTS[0], 0.0)]
    assert KEY not in json.dumps(server.headers)


@pytest.mark.parametrize("url", ["", "here", "ftp://host/v1", "http://", "http://host:x/v1", "http://host/v1?key=a"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(SummkitError, match="an address such as"):
        teachers.EndpointTeacher(url, "teacher", WORDING, max_new_tokens=8)


def test_a_password_in_the_address_is_refused_unshown():
    with pytest.raises(SummkitError, match="contains a name or password") as error:
        teachers.EndpointTeacher(f"http://me:{KEY}@host/v1", "teacher", WORDING, max_new_tokens=8)
    assert KEY not in str(error.value)


@pytest.fixture(scope="module")
def tiny():
    tokenizer = loading.tiny_tokenizer()
    return loading.load_model("tiny-llama"), tokenizer, templates.build_template("chat", tokenizer, WORDING)


LIMITS = {"max_length": 400, "max_new_tokens": 6}


def test_a_model_here_answers_as_generation_does(tiny):
    teacher = teachers.LocalTeacher(generation.Summarizer(*tiny, batch_size=4, **LIMITS), "tiny-llama")
    expected = [answer.text for answer in generation.summarize(*tiny, TEXTS, batch_size=4, **LIMITS)]
    assert teacher.ask(TEXTS) == expected
    drawn = teacher.ask(TEXTS, temperature=0.7, seed=1)
    assert drawn == teacher.ask(TEXTS, temperature=0.7, seed=1) != expected
    assert drawn != teacher.ask(TEXTS, temperature=0.7, seed=2)
    assert teacher.about == {"model": "tiny-llama", "revision": None, "prompt": tiny[2].version}
    assert teachers.LocalTeacher(teacher.summarizer, revision="abc").about["revision"] == "abc"


def test_a_teacher_reads_as_much_of_a_text_as_a_student_without_examples():
    profile = choose_profile("smoke", task="topics")
    teacher = teachers.LocalTeacher.load("tiny-llama", profile, WORDING)
    plain = templates.Wording("Name the topics.", "Abstract", answer="Topics")
    student = generation.Summarizer(
        teacher.summarizer.model,
        teacher.summarizer.tokenizer,
        templates.build_template(profile.template, teacher.summarizer.tokenizer, plain),
        profile.max_length,
        profile.max_new_tokens,
    )
    [there] = teacher.summarizer.encode(["A sentence about bridges. " * 200])
    [here] = student.encode(["A sentence about bridges. " * 200])
    assert there["cut"] == here["cut"] > 0
    assert teacher.about["model"] == "tiny-llama" and teacher.about["prompt"] == teacher.summarizer.template.version


def test_without_the_client_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(SummkitError, match=r"openai is not installed: pip install 'summkit\[distill\]'"):
        teachers.EndpointTeacher("http://127.0.0.1:1/v1", "teacher", WORDING, max_new_tokens=8)


def reply(body, kind="application/json", status=200):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status, {"Content-Type": kind}, text


def choice(message, finish="stop", **more):
    return reply({"choices": [{"index": 0, "message": message, "finish_reason": finish} | more]})


THOUGHT = {"content": None, "reasoning_content": "They want"}


@pytest.mark.parametrize(
    ("given", "text", "reason", "failed"),
    [
        (reply({"error": "Unexpected endpoint or method."}), "", "server error", True),
        (reply({"error": {"code": 429, "message": "rate-limited upstream"}}), "", "server error", True),
        (choice({"content": "half an ans"}, "error", error={"code": 502}), "", "server error", True),
        (reply(b"<!doctype html><title>Sign in</title>", "text/html"), "", "HTML instead of JSON", True),
        (reply(b"<!doctype html><title>Sign in</title>"), "", "HTML instead of JSON", True),
        (reply(b"ok"), "", "not JSON", True),
        (reply({"detail": "Not Found"}), "", "no answer in the reply", True),
        (reply([]), "", "no answer in the reply", True),
        (choice({"content": "robots; ice"}), "robots; ice", None, False),
        (choice({"content": [{"type": "text", "text": "robots; "}, {"type": "text", "text": "ice"}]}), "robots; ice",
         None, False),
        (choice({"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "ice"}]}), "ice", None,
         False),
        (choice({"content": "robots that"}, "length"), "robots that", "cut", False),
        (choice({"content": "robots"}, "content_filter"), "robots", "content filter", False),
        (choice({"content": None, "refusal": "I cannot."}), "", "refusal", False),
        (choice(THOUGHT), "", "thinking", False),
        (choice(THOUGHT, "length"), "", "cut", False),
        (choice({"content": ""}), "", None, False),
    ],
)  # fmt: skip
def test_what_else_a_server_says_with_status_200_is_told_apart(given, text, reason, failed, caplog):
    with LocalEndpoint(topics_of, script=[given]) as server:
        [answer] = endpoint(server).ask(TEXTS[:1])
    assert (answer, answer.reason, answer.failed) == (text, reason, failed)
    assert len(server.asked) == 1 and ("answers with status 200, but" in caplog.text) == failed


def test_what_a_failing_server_says_is_logged_once(caplog):
    page = reply({"error": {"message": f"no quota for {KEY}"}})
    with LocalEndpoint(topics_of, broken=dict.fromkeys(TEXTS, page)) as server:
        teacher = endpoint(server)
        teacher._key = KEY
        teacher.ask(TEXTS)
    [record] = [record for record in caplog.records if record.name == "summkit.distillation.teachers"]
    assert "server error: no quota for …" in record.getMessage()


def test_fields_are_left_out_renamed_and_added():
    changes = {"without": ["seed", "system"], "rename": {"max_tokens": "max_completion_tokens"}}
    with LocalEndpoint(topics_of) as server:
        teacher = endpoint(server, **changes, extra={"temperature": 1, "reasoning_effort": "low"})
        assert teacher.ask(TEXTS[:1]) == [topics_of(TEXTS[0], 1)]
        plain = endpoint(server)
    [body] = server.asked
    first = {"role": "user", "content": f"Name the topics.\n\n{PAIRS[0][0]}"}
    assert body["messages"][0] == first and body["messages"][-1]["content"] == TEXTS[0]
    expected = {"model": "teacher", "max_completion_tokens": 24, "temperature": 1, "reasoning_effort": "low"}
    assert {key: value for key, value in body.items() if key != "messages"} == expected
    assert teacher.about["request"]["without"] == ["seed", "system"] and "request" not in plain.about
    assert teacher.about["prompt"] != plain.about["prompt"]


def test_the_system_role_may_have_another_name():
    with LocalEndpoint(topics_of) as server:
        endpoint(server, rename={"system": "developer"}).ask(TEXTS[:1])
    assert server.asked[0]["messages"][0] == {"role": "developer", "content": "Name the topics."}


@pytest.mark.parametrize("change", [{"without": ["sed"]}, {"rename": {"top": "top_p"}}])
def test_an_unknown_field_is_refused(change):
    with pytest.raises(SummkitError, match="unknown field of a request '.*'; known: max_tokens, seed, system, temp"):
        teachers.EndpointTeacher("http://127.0.0.1:1/v1", "teacher", WORDING, max_new_tokens=8, **change)


def test_a_refused_field_is_named_with_the_way_out():
    refusal = failure(400, "Unsupported parameter: 'max_tokens' is not supported with this model.")
    server = LocalEndpoint(topics_of, script=[refusal])
    with server, pytest.raises(SummkitError, match="Leave max_tokens out of requests with --without max_tokens, or"):
        endpoint(server).ask(TEXTS[:1])


def test_a_model_here_that_only_thinks_has_no_answer(tiny):
    model, tokenizer, template = tiny
    opened = templates.Template("chat", template.head, template.tail + "<think>")
    teacher = teachers.LocalTeacher(generation.Summarizer(model, tokenizer, opened, **LIMITS), "tiny-llama")
    assert [(answer, answer.reason) for answer in teacher.ask(TEXTS[:2])] == [("", "thinking")] * 2
