from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from hubmerge.card.sections import fence_section, replace_sections, split_sections

LINES = [
    "text",
    "",
    "```",
    "````yaml",
    "~~~",
    "<!-- hubmerge:recipe begin -->",
    "<!-- hubmerge:recipe end -->",
    "<!-- hubmerge:notes begin -->",
    "<!-- hubmerge:notes end -->",
]
bodies = st.lists(st.sampled_from(LINES)).map("\n".join)


def section(name: str, text: str) -> str:
    return fence_section(name, text)


@given(bodies)
def test_the_pieces_of_a_body_are_the_body(body: str):
    assert "".join(piece.text for piece in split_sections(body)) == body


NESTED = (
    "<!-- hubmerge:notes begin -->\n<!-- hubmerge:notes end -->\n<!-- hubmerge:notes begin -->\n"
    "<!-- hubmerge:notes begin -->\n<!-- hubmerge:notes end -->\n<!-- hubmerge:notes end -->"
)


@given(bodies)
@example(NESTED)
def test_replacing_twice_is_replacing_once(body: str):
    sections = {"recipe": section("recipe", "new"), "notes": section("notes", "```\nx\n```")}
    once = replace_sections(body, sections)
    if once is not None:
        assert replace_sections(once, sections) == once


@given(bodies)
@example(
    NESTED.replace("end -->\n<", "end -->\nmine\n<") + "\n<!-- hubmerge:recipe begin -->\n<!-- hubmerge:recipe end -->"
)
def test_text_of_people_is_never_lost(body: str):
    renewed = replace_sections(body, {"recipe": section("recipe", "new"), "notes": ""})
    assert renewed is None or people_lines(renewed) == people_lines(body)


def people_lines(body: str) -> list[str]:
    texts = [piece.text for piece in split_sections(body) if piece.name is None]
    return [line for text in texts for line in text.splitlines() if "hubmerge:" not in line]


def test_a_body_without_sections_is_not_ours():
    assert replace_sections("# Hand-written\n", {"recipe": section("recipe", "new")}) is None


def test_text_around_the_sections_and_their_order_stay():
    body = "mine\n\n" + section("notes", "old") + "\nmore of mine\n" + section("recipe", "old") + "end\n"
    sections = {"recipe": section("recipe", "new r"), "notes": section("notes", "new n")}
    assert replace_sections(body, sections) == (
        "mine\n\n" + sections["notes"] + "\nmore of mine\n" + sections["recipe"] + "end\n"
    )


def test_a_new_section_goes_behind_the_one_before_it():
    body = section("parents", "p") + "\nmine\n\n" + section("licence", "l")
    sections = {name: section(name, name) for name in ("summary", "parents", "method", "licence", "notes")}
    assert [piece.name for piece in split_sections(replace_sections(body, sections) or "") if piece.name] == [
        *("summary", "parents", "method", "licence", "notes")
    ]
    assert "\nmine\n" in (replace_sections(body, sections) or "")


def test_a_section_that_has_nothing_to_say_goes():
    body = section("parents", "p") + "\n" + section("notes", "warning")
    assert replace_sections(body, {"parents": section("parents", "p"), "notes": ""}) == section("parents", "p") + "\n"


def test_a_section_of_another_name_stays():
    body = section("recipe", "old") + section("evaluation", "scores")
    assert section("evaluation", "scores") in (replace_sections(body, {"recipe": section("recipe", "new")}) or "")


def test_a_second_copy_of_a_section_goes():
    body = section("recipe", "old") + section("recipe", "old")
    assert replace_sections(body, {"recipe": section("recipe", "new")}) == section("recipe", "new")


def test_a_marker_in_a_code_block_is_text():
    own = section("recipe", "````yaml\n<!-- hubmerge:recipe end -->\n```\n<!-- hubmerge:notes begin -->\n````")
    assert [piece.name for piece in split_sections(own + "mine\n")] == ["recipe", None]


def test_what_follows_a_marker_without_its_end_is_kept_as_text():
    body = "<!-- hubmerge:recipe begin -->\nold\nmine\n" + section("recipe", "old")
    assert replace_sections(body, {"recipe": section("recipe", "new")}) == "old\nmine\n" + section("recipe", "new")
