"""The page of `vlmcollate doctor` in a real browser."""

from __future__ import annotations

import attrs
import pytest

from tests.processors.published_templates import processor_with
from vlmcollate import collator_for
from vlmcollate.cli.diagnosis import diagnose
from vlmcollate.cli.doctor_page import doctor_page

ATTACK = '<img src=x onerror="window.hacked=1">'


@pytest.fixture(scope="module")
def diagnosis():
    return diagnose(collator_for(processor_with("gemma4")))


@pytest.fixture(scope="module")
def file(diagnosis, tmp_path_factory):
    first, *others = diagnosis.findings
    marked = attrs.evolve(first, runs=(*first.runs, ("template", ATTACK)), notes=(ATTACK,))
    path = tmp_path_factory.mktemp("doctor") / "page.html"
    found = attrs.evolve(diagnosis, findings=(marked, *others))
    path.write_text(doctor_page(found, name=f"gemma {ATTACK}"), "utf-8")
    return path


@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_makes_no_request_and_runs_no_text(open_page, file, width):
    opened = open_page(file, width=width)
    page = opened.page
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert ATTACK in page.locator("article .text").first.text_content()


def test_every_fact_stands_beside_its_option(open_page, file, diagnosis):
    page = open_page(file).page
    shown = [fact.inner_text() for fact in page.locator(".fact dt").all()]
    assert shown == [fact.topic for fact in diagnosis.facts]
    remedies = [fact.remedy for fact in diagnosis.facts if fact.remedy]
    assert page.locator(".remedy").all_text_contents() == remedies
    code = page.locator(".fact code", has_text="template_kwargs").first
    assert code.text_content() == "template_kwargs={'enable_thinking': True}"


def test_every_chat_shows_what_trains_or_why_it_is_refused(open_page, file, diagnosis):
    page = open_page(file).page
    assert page.locator("article h3").all_text_contents() == [f.chat for f in diagnosis.findings]
    refused = [finding for finding in diagnosis.findings if not finding.is_exact]
    assert page.locator(".failed p").all_text_contents() == [f.notes[0] for f in refused]
    trained = page.locator("article", has_text="several answers").locator(".text .k0")
    assert trained.all_text_contents() == ["It is mild.<turn|>", "It will rain.<turn|>"]


def test_light_and_dark_differ_in_every_colour_of_a_fact(open_page, file):
    colour = "getComputedStyle(document.querySelector('.fact.loss .remedy')).backgroundColor"
    light, dark = open_page(file).page, open_page(file, scheme="dark").page
    assert light.evaluate(colour) == "rgb(255, 246, 220)"
    assert dark.evaluate(colour) == "rgb(43, 36, 18)"
    dark.locator("#theme").click()
    assert dark.evaluate(colour) == "rgb(255, 246, 220)"
