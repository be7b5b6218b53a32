"""The website: a link that leads nowhere is found, and what is checked is what is published."""

import importlib.util
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8"))


@pytest.fixture
def check_site(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spec = importlib.util.spec_from_file_location("check_site", ROOT / "tools" / "check_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("links", None)


@pytest.mark.parametrize(
    ("link", "good"),
    [
        ("b/page.html", True),
        ("b/page.html#there", True),
        ("#here", True),
        ("https://example.com/not-asked", True),
        ("https://github.com/OWN/blob/main/README.md?plain=1", True),
        ("https://github.com/OWN/tree/main/summkit/presets", True),
        ("b/gone.html", False),
        ("b/page.html#gone", False),
        ("#gone", False),
        ("https://github.com/OWN/blob/main/summkit/gone.py", False),
        ("https://github.com/OWN/blob/main/build/site/made.html", False),
    ],
)
def test_a_link_that_leads_nowhere_is_found(check_site, tmp_path, link, good):
    link = link.replace("OWN", check_site.links.repository())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "page.html").write_text('<h1 id="there">There</h1>', encoding="utf-8")
    (tmp_path / "a.html").write_text(f'<p id="here"><a href="{link}">a link</a></p>', encoding="utf-8")
    (tmp_path / "_static").mkdir()
    (tmp_path / "_static" / "part.html").write_text('<a href="gone.html">of the theme</a>', encoding="utf-8")
    assert check_site.broken_links(tmp_path) == ([] if good else [f"a.html: {link}"])


def test_no_site_is_a_fault(check_site, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_site, "BUILD", tmp_path)
    assert check_site.main([]) == 1
    assert "make site" in capsys.readouterr().err


def test_what_is_published_was_checked():
    steps = WORKFLOW["jobs"]["build"]["steps"]
    assert {"run": "make test-site"} in steps
    (published,) = [step for step in steps if "upload-pages-artifact" in step.get("uses", "")]
    assert published["with"]["path"] == "build/site" and steps.index(published) > steps.index({"run": "make test-site"})
    assert WORKFLOW["jobs"]["publish"]["needs"] == "build"
    assert "\ntest-site: site " in (ROOT / "Makefile").read_text(encoding="utf-8")


def test_the_readme_links_to_the_website(check_site):
    assert check_site.links.book(check_site.links.repository()) in (ROOT / "README.md").read_text(encoding="utf-8")
