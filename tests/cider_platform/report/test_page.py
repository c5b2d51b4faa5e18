"""The HTML page: one file, nothing fetched, everything escaped, every number linked to its runs."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from made_up_runs import made_up_spec, write_seeds

from cider_platform.report.curves import COLOURS, DASHES, look, nice_ticks
from cider_platform.report.data import Group, build
from cider_platform.report.gather import gather
from cider_platform.report.page import page
from cider_platform.results import all_runs

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = "</script><script>alert(1)</script>\"' onload=x <img src=http://e>&amp;"


class Tree(HTMLParser):
    """Reads a page; remembers elements, and fails where tags do not close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def made(results, **options):
    found = gather(results, ())
    return build(found.subject, found.groups, **options)


@pytest.fixture(scope="module")
def tree(two):
    return Tree(page(made(two, against="maci.mcm=true")))


def test_page_is_one_file_that_asks_for_nothing(tree, two):
    text = page(made(two))
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", text)
    for _, attributes in tree.elements:
        assert not {"src", "srcset", "action"} & set(attributes)
        assert attributes.get("href", "#").startswith("#")
    assert "link" not in {tag for tag, _ in tree.elements}
    policy = next(a["content"] for a in tree.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_every_link_leads_to_something_on_the_page_and_no_id_is_twice(tree):
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in tree.all("a")}
    assert targets <= set(ids)
    assert {f"run-{made_up_spec(seed).run_id}" for seed in range(1, 9)} <= targets


def test_every_number_opens_to_its_seeds_and_runs(tree, two):
    report = made(two, against="maci.mcm=true")
    numbers = sum(len(each.numbers) for each in report.configurations)
    text = page(report)
    assert len(re.findall(r"<li>95&nbsp;% interval", text)) == numbers
    assert len(re.findall(r"<li>seed \d+: ", text)) == 8 * numbers
    commands = [each for each in tree.texts["code"] if each.startswith("cider-platform runs show")]
    assert len(commands) == 16


def test_columns_sort_by_buttons_and_say_so(tree):
    heads = [each for each in tree.all("th") if each.get("scope") == "col"]
    assert heads
    assert all(each["aria-sort"] == "none" for each in heads)
    assert len(tree.all("button")) == len(heads) + 1
    numbers = [each for each in tree.all("td") if "data-sort" in each]
    assert all(each["class"] == "num" for each in numbers)


def test_curves_are_well_formed_and_linked_to_their_rows(two):
    report = made(two)
    text = page(report)
    figures = re.findall(r'<svg class="curves.*?</svg>', text)
    assert len(figures) == 2  # rmfm and rmm have rates, smm has none
    for figure in figures:
        drawn = ET.fromstring(figure)
        groups = [each for each in drawn if each.tag == "g"]
        assert {each.get("data-c") for each in groups} == {c.id for c in report.configurations}
        assert [len(each.findall("circle")) for each in groups] == [3, 3]
        for circle in drawn.iter("circle"):
            assert 0 <= float(circle.get("cx")) <= 640
            assert 0 <= float(circle.get("cy")) <= 330
            assert "95 % interval" in circle.get("data-say")
            assert circle.find("title").text == circle.get("data-say")
        numbers = [float(each) for each in re.findall(r"-?\d+\.\d", figure)]
        assert min(numbers) >= 0
    rows = re.findall(r'<tr data-c="(\w+)"', text)
    assert set(rows) == {each.id for each in report.configurations}


def test_names_are_data_and_never_markup(tmp_path):
    write_seeds(tmp_path, (0.8, 0.7))
    group = Group(records=all_runs(tmp_path), labels={EVIL: EVIL})
    text = page(build(f"grid {EVIL}", [group]))
    tree = Tree(text)
    assert len(tree.all("script")) == 1
    assert not tree.all("img")
    assert not any("onload" in attributes for _, attributes in tree.elements)
    assert EVIL in tree.texts["title"][0]


def test_error_of_a_failed_run_is_escaped(two):
    found = gather(two, [made_up_spec(99, maci__mcm=False).run_id, made_up_spec(1).run_id])
    text = page(build(found.subject, found.groups))
    assert "the loss is &lt;b&gt;not&lt;/b&gt; finite" in text


def test_marks_stand_beside_the_numbers(tmp_path):
    write_seeds(tmp_path, (0.8,), dataset="synthetic-mosi")
    text = page(made(tmp_path))
    assert '<span class="badge">synthetic</span>' in text
    assert "[synthetic]" in re.search(r"<caption>(.*?)</caption>", text)[1]


def test_light_dark_and_print_have_styles(two):
    text = page(made(two))
    assert "prefers-color-scheme: dark" in text
    assert '[data-theme="dark"]' in text
    assert "@media print" in text
    assert "tabular-nums" in text
    for index in range(COLOURS):
        assert f".k{index} {{ color" in text


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 100.0), (61.2, 61.2), (49.97, 50.03), (-3.0, 12.5), (0.0, 0.0)]
)
def test_ticks_are_round_and_around_the_values(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert ticks == sorted(ticks)


def test_looks_of_many_configurations_differ():
    assert len({look(index) for index in range(COLOURS * DASHES)}) == COLOURS * DASHES
