"""The Dockerfile, read without an engine: what it copies is there, what it starts exists, and root does not run it."""

import fnmatch
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments taken out and continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined if line.strip())]


FOUND = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
LEFT_OUT = [line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if not line.startswith("#")]


def arguments(name: str) -> list[str]:
    return [rest for word, rest in FOUND if word == name]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_it_is_read_whole():
    known = {"FROM", "RUN", "USER", "ENV", "WORKDIR", "COPY", "VOLUME", "CMD"}
    assert FOUND[0][0] == "FROM" and {word for word, _ in FOUND} == known
    assert instructions("RUN a \\\n    && b\n# c\nUSER x") == [("RUN", "a && b"), ("USER", "x")]


def test_the_base_is_pinned():
    for base in arguments("FROM"):
        name, colon, tag = base.partition(":")
        assert colon and tag and "latest" not in tag, f"{name}: a tag is needed"
        assert re.match(r"3\.\d+", tag)


def test_what_is_copied_is_there_and_not_left_out():
    for copied in arguments("COPY"):
        sources = [word for word in copied.split() if not word.startswith("--")][:-1]
        for source in sources:
            assert (ROOT / source).exists(), source
            assert not any(fnmatch.fnmatch(source, pattern) for pattern in LEFT_OUT), f"{source} is in .dockerignore"


def test_what_is_installed_from_is_copied_before_it_is_installed():
    words = [word + " " + rest for word, rest in FOUND]
    first = words.index("RUN make install")
    before = " ".join(rest for word, rest in FOUND[:first] if word == "COPY").split()
    installed_from = {"Makefile", "requirements.txt", "pyproject.toml", "README.md", "LICENSE", "summkit/__init__.py"}
    assert installed_from <= set(before)


def test_it_starts_a_target_that_exists_and_not_as_root():
    program, *targets_asked = json.loads(arguments("CMD")[-1])
    assert program == "make" and targets_asked and set(targets_asked) <= targets()
    assert arguments("USER")[-1] not in ("root", "0")
    installed = next(rest for rest in arguments("RUN") if "apt-get install" in rest)
    assert "--no-install-recommends" in installed and "rm -rf /var/lib/apt/lists" in installed
    assert " make " in installed


def test_cache_and_runs_are_volumes_that_the_user_owns():
    user = arguments("USER")[-1]
    made = next(rest for rest in arguments("RUN") if "useradd" in rest)
    folders = json.loads(arguments("VOLUME")[-1])
    assert {Path(folder).name for folder in folders} == {".cache", "runs"}
    assert all(folder in made and f"-o {user}" in made for folder in folders)
    assert {"runs", ".venv", ".git"} <= set(LEFT_OUT)
