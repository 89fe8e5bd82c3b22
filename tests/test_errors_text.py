"""Names as text: what the console, Markdown, XML and CSV would obey is escaped, and nothing else is."""

import csv
import io
from xml.etree import ElementTree

import pytest

from isometry.errors import counted, csv_cell, markdown, markdown_code, printable, xml

ORDINARY = [
    "cat",
    "vit_tiny_patch16_224.augreg_in21k",
    "Ärger über 3 × 4",
    "猫　犬",
    "می‌خواهم",
    "👩‍🔬",
    "a - b (c), 95 %",
]


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_stay_as_they_are(name: str):
    assert printable(name) == csv_cell(name) == xml(name) == name
    assert markdown_code(name) == f"`{name}`"
    assert markdown(name) == " ".join(name.split())


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2J\udce9é\n", "a\\x1b[2J\\udce9é\\n"),
        ("gpj.\u202eexe", "gpj.\\u202eexe"),
        ("a\u200fb\u2028c\x9b", "a\\u200fb\\u2028c\\x9b"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(name: str, shown: str):
    assert printable(name) == shown


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a|b", r"a\|b"),
        ("<u>&amp;", "&lt;u&gt;&amp;amp;"),
        ("[x](y) ![z]", r"\[x\](y) !\[z\]"),
        ("*a* `b` ~c~ $d$ \\", r"\*a\* \`b\` \~c\~ \$d\$ \\"),
        ("_a_ b_c", r"\_a\_ b_c"),
        ("# a\n# b", r"\# a \# b"),
    ],
)
def test_markup_in_markdown(name: str, source: str):
    assert markdown(name) == source


def test_code_in_markdown_ends_where_the_name_does():
    assert markdown_code("a`b") == r"<code>a\`b</code>"
    assert markdown_code("<u>|") == r"<code>&lt;u&gt;\|</code>"
    assert markdown_code("a\n\n# b") == r"`a\n\n# b`"


@pytest.mark.parametrize("name", ["<a", "&", "\"'", "\x00\x1b\ud800\uffff"])
def test_xml_is_well_formed(name: str):
    read = ElementTree.fromstring(f'<t a="{xml(name)}">{xml(name)}</t>'.encode())
    assert read.text == read.get("a") == printable(name)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(1)"])
def test_a_formula_in_a_csv_file_is_text(name: str):
    assert csv_cell(name) == f"'{name}"


def test_a_csv_file_has_a_line_a_row():
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell("a\n=1,\r\x00")])
    assert len(file.getvalue().splitlines()) == 1


def test_one_is_one_and_the_others_are_many():
    assert [counted(number, "file") for number in (0, 1, 2, 1200)] == [
        "0 files",
        "1 file",
        "2 files",
        "1,200 files",
    ]
    assert [counted(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
