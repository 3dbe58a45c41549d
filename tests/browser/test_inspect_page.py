"""The page of `vlmcollate inspect` in a real browser.

The page draws a row when it comes near, so what a test reads is waited for.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from PIL import Image

from vlmcollate import collator_for
from vlmcollate.cli.inspection import InspectedRow, inspect_rows, pack_rows
from vlmcollate.cli.inspection_output import write_page
from vlmcollate.cli.source_surveys import SourceSurvey
from vlmcollate.cli.survey import survey_rows
from vlmcollate.cli.survey_page import survey_page
from vlmcollate.testing import tiny_processor

api = pytest.importorskip("playwright.sync_api", reason="the extra `browser` installs playwright")

ATTACK = '</script><img src=x onerror="window.hacked=1"><!--<script>'


def chat(*turns, image=True):
    messages = []
    for i, (question, answer) in enumerate(turns):
        picture = [{"type": "image", "image": Image.new("RGB", (112, 84), "red")}]
        shown = picture if image and not i else []
        messages += [
            {"role": "user", "content": [*shown, {"type": "text", "text": question}]},
            {"role": "assistant", "content": answer},
        ]
    return messages


VIDEO = [
    {
        "role": "user",
        "content": [
            {"type": "video", "video": np.zeros((8, 56, 56, 3), np.uint8)},
            {"type": "text", "text": "What moves?"},
        ],
    },
    {"role": "assistant", "content": "Nothing."},
]
CHATS = [
    chat(("What is it?", "A needle."), ("And now?", "Nothing\nnew.")),
    chat((ATTACK, f"No {ATTACK}"), image=False),
    *[chat((f"Question {i} " * 40, "Hay. " * 30)) for i in range(12)],
    VIDEO,
    chat(("Where is the needle?", "日本 🙂 here.")),
]


@pytest.fixture(scope="module")
def rows():
    collator = collator_for(tiny_processor())
    found = [InspectedRow(number=i, explanation=collator.explain(c)) for i, c in enumerate(CHATS)]
    return [*found, InspectedRow(number=len(found), error=f"bad {ATTACK}")]


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(path, rows, [], name=f"data {ATTACK}")
    return path


def shows(locator, *texts):
    """Waits until each element has its text, and until there are no others."""
    api.expect(locator).to_have_text(list(texts))


def contains(locator, text):
    """Waits until the element has a text that contains this one."""
    api.expect(locator).to_contain_text(text)


def test_it_asks_nobody_and_reports_no_error(open_page, file):
    opened = open_page(file)
    opened.page.mouse.wheel(0, 20000)
    opened.page.wait_for_timeout(300)
    assert opened.errors == []
    own = [url for url in opened.requests if not url.startswith("data:")]
    assert own == [file.as_uri()]


def test_what_users_wrote_is_no_markup(open_page, file):
    page = open_page(file).page
    contains(page.locator("#sample-1 .text", has_text="No"), f"No {ATTACK}")
    contains(page.locator(".failed"), ATTACK)
    assert page.evaluate("window.hacked") is None
    assert page.locator('img[src="x"]').count() == 0


def test_notes_on_all_rows_stand_on_top(open_page, rows, tmp_path):
    path, notes = tmp_path / "page.html", [f"two rows {ATTACK}", "one row"]
    write_page(path, rows[:2], [], name="data", notes=lambda: notes)
    page = open_page(path).page
    shows(page.locator("section[aria-label='All rows'] .notes li"), *notes)
    assert page.evaluate("window.hacked") is None


def test_hover_tells_id_offset_role_and_label(open_page, file, rows):
    page = open_page(file).page
    token = next(t for t in rows[0].explanation.tokens if t.kind == "trained")
    page.locator("#sample-0 .k0 .tok").first.hover()
    contains(page.locator("#tip"), "trained")
    facts = page.locator("#tip").inner_text().replace("\xa0", " ").split("\n")
    told = dict(zip(facts[::2], facts[1::2], strict=True))
    assert told["id"] == told["label"] == str(token.id)
    assert told["offset"] == str(token.offset)
    assert told["role"] == "assistant, message 1"
    assert told["class"] == "trained"
    page.locator("#sample-0 .k2 .tok").first.hover()
    contains(page.locator("#tip"), "-100")


def test_tokens_can_be_walked_with_the_keyboard(open_page, file):
    page = open_page(file).page
    page.locator("#sample-0 .text").first.focus()
    page.keyboard.press("ArrowRight")
    shows(page.locator(":focus"), "<|im_start|>")
    page.keyboard.press("ArrowRight")
    shows(page.locator(":focus"), "u")
    api.expect(page.locator("#tip")).to_be_visible()
    page.keyboard.press("Escape")
    api.expect(page.locator("#tip")).to_be_hidden()
    page.locator("#sample-15 .text").last.focus()  # far down, so this scrolls
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(200)  # in which scrolling would hide it
    api.expect(page.locator("#tip")).to_be_visible()


def test_media_is_folded_beside_its_thumbnail(open_page, file):
    page = open_page(file).page
    folded = page.locator("#sample-0 .text .k3")
    api.expect(folded).to_have_text("image 1: 12 tokens", use_inner_text=True)
    picture = page.locator("#sample-0 .thumbs img")
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 112
    contains(page.locator("#sample-14 .thumbs"), "video 1: 8 frames of 56 x 56")


def test_search_finds_text_across_tokens_and_steps_through(open_page, file):
    page = open_page(file).page
    page.keyboard.press("/")
    page.keyboard.type("a NEEDLE")
    found = page.locator("#matches")
    shows(found, "1 of 1")
    page.locator("#search").fill("needle")
    shows(found, "1 of 2")
    page.keyboard.press("Enter")
    shows(found, "2 of 2")
    assert "needle" in "".join(page.locator("#sample-15 .hit.now").all_text_contents())
    api.expect(page.locator(".hit.now").first).to_be_in_viewport()
    page.locator("#search").fill("not in any row")
    shows(found, "0 found")
    api.expect(page.locator(".hit")).to_have_count(0)


def test_turns_are_jumped_to_by_key_and_button(open_page, file):
    page = open_page(file).page
    turn = page.locator(".block.here")
    page.keyboard.press("n")
    contains(turn, "A needle.")
    page.locator("#next").click()
    contains(turn, "new.")
    page.keyboard.press("p")
    page.keyboard.press("p")
    contains(turn, "日本 🙂 here.")
    api.expect(turn).to_be_in_viewport()


def test_a_phone_scrolls_one_way_only(open_page, file):
    page = open_page(file, width=360).page
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.locator("#sample-0 .k0 .tok").first.click()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 360


@pytest.fixture(scope="module")
def mixed(rows, tmp_path_factory):
    """A page whose rows fail here and there, and one of which has a warning."""
    warned = attrs.evolve(rows[2], explanation=attrs.evolve(rows[2].explanation, warnings=("odd",)))
    bad = [InspectedRow(number=50 + i, error=f"no file at 'needle{i}.png'; add it") for i in (0, 1)]
    path = tmp_path_factory.mktemp("mixed") / "page.html"
    write_page(path, [rows[0], bad[0], warned, rows[1], bad[1]], [], name="mixed")
    return path


def titles(page):
    return page.locator("article h3:visible")


@pytest.mark.parametrize("width", [390, 1280])
def test_failed_rows_are_filtered_and_found(open_page, mixed, width):
    opened = open_page(mixed, width=width)
    page = opened.page
    shows(titles(page), "row 0", "row 50", "row 2", "row 1", "row 51")
    shows(page.locator(".filter button"), "All 5", "Failed 2", "Warnings 1")
    page.locator('[data-show="failed"]').click()
    shows(titles(page), "row 50", "row 51")
    shows(page.locator('[aria-pressed="true"]'), "Failed 2")
    box = page.locator(".failed").first.bounding_box()
    assert box["y"] >= page.locator("header").bounding_box()["height"]  # nothing covers it
    assert box["y"] + box["height"] < 800
    page.locator('[data-show="warnings"]').click()
    shows(titles(page), "row 2")
    page.locator('[data-show="all"]').click()
    page.locator("#search").fill("needle")
    shows(page.locator("#matches"), "1 of 3")
    page.locator("#search").press("Enter")
    contains(page.locator(".failed .hit.now"), "needle0.png")
    page.locator('[data-show="failed"]').click()
    shows(page.locator("#matches"), "1 of 2")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert opened.errors == []


def test_a_key_shows_the_failed_rows_and_turns_skip_hidden_ones(open_page, mixed):
    page = open_page(mixed).page
    page.keyboard.press("f")
    shows(titles(page), "row 50", "row 51")
    page.keyboard.press("n")
    api.expect(page.locator(".block.here")).to_have_count(0)
    page.keyboard.press("f")
    api.expect(titles(page)).to_have_count(5)
    page.locator('[data-show="warnings"]').click()
    page.keyboard.press("n")
    page.keyboard.press("n")
    api.expect(page.locator("#sample-2 .block.here")).to_have_count(1)
    contains(page.locator(".rail a:visible").first, "row 2")


def test_a_page_without_failures_cannot_be_emptied(open_page, rows, tmp_path):
    write_page(tmp_path / "page.html", rows[:1], [], name="good")
    page = open_page(tmp_path / "page.html").page
    api.expect(page.locator('[data-show="failed"]')).to_be_disabled()
    page.keyboard.press("f")
    shows(titles(page), "row 0")


def test_dark_follows_the_system_and_the_toggle(open_page, file):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = open_page(file).page, open_page(file, scheme="dark").page
    assert light.evaluate(colour) == "rgb(246, 247, 249)"
    assert dark.evaluate(colour) == "rgb(14, 18, 23)"
    dark.locator("#theme").click()
    assert dark.evaluate(colour) == "rgb(246, 247, 249)"
    assert dark.locator("#theme").get_attribute("aria-label") == "Dark colours"


def test_packs_and_differences_are_marked(open_page, rows, tmp_path):
    collator = collator_for(tiny_processor())
    other = rows[0].explanation.sample
    labels = other.labels.clone()
    labels[other.labels != -100] = -100
    labels[:2] = other.input_ids[:2]
    changed = attrs.evolve(other, tokens={**other.tokens, "labels": labels})
    compared = attrs.evolve(rows[0], explanation=rows[0].explanation.compared(changed))
    packs = pack_rows(collator, [compared, rows[1]], 256)
    write_page(tmp_path / "p.html", [compared, rows[1]], packs, name="d", diff="TextSearchLabels")
    opened = open_page(tmp_path / "p.html")
    page = opened.page
    assert opened.errors == []
    contains(page.locator(".pack"), "pack 1: 2 documents")
    shows(page.locator(".pack .bar i:not(.free)"), "1", "2")
    # the first token of a document has no label, so no strategy trains it
    shows(page.locator(".text .d2").first, "u")
    contains(page.locator(".text .d1").first, "A needle.")


def test_rows_are_read_and_written_as_they_come(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"messages": []}\nno json\n')
    found = list(inspect_rows(collator_for(tiny_processor()), tmp_path / "a.jsonl"))
    assert [row.explanation for row in found] == [None, None]
    assert "at least one message" in found[0].error
    assert found[1].title == "row 1"
    assert "no JSON: Expecting value at character 0" in found[1].error


def test_the_plots_of_stats_need_no_network_either(open_page, tmp_path):
    collator = collator_for(tiny_processor())
    found = survey_rows(collator, enumerate([*CHATS, {"messages": []}]))
    page = survey_page([SourceSurvey(source=ATTACK, survey=found)], name=f"data {ATTACK}")
    (tmp_path / "stats.html").write_text(page, "utf-8")
    opened = open_page(tmp_path / "stats.html", width=360, scheme="dark")
    page = opened.page
    assert opened.errors == []
    assert opened.requests[0].startswith("file:")
    assert not [url for url in opened.requests[1:] if not url.startswith("data:")]
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("window.hacked") is None
    axes = [chart.locator(".axis").all_text_contents() for chart in page.locator(".chart").all()]
    assert axes == [
        ["rows", "tokens of a row"],
        ["rows", "trained share, %"],
        ["rows", "media tokens of a row"],
        ["padding, %", "rows per batch"],
        ["fill, %", "pack length, tokens"],
        ["rows", "error"],
    ]
    titles = page.locator(".chart h3").all_text_contents()
    assert titles == [
        "Tokens of a row",
        "Trained share of a row",
        "Media tokens of a row",
        "Padding by rows per batch",
        "Fill of packs by their length",
        "Dropped rows by reason",
    ]
    page.locator("#theme").click()
    assert page.locator("#theme").get_attribute("aria-label") == "Dark colours"
