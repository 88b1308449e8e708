"""How the templates look, as far as their files say: titles, groups, and nothing in the way of anything."""

import math
import re
from itertools import pairwise

import pytest

from ..templates import PAGES, read
from .test_workflows import NAMES, NOTES


def test_templates_are_numbered_sentences_with_the_quick_start_first():
    titles = sorted(path.stem for path in PAGES.values())
    assert titles[0] == PAGES["quickstart"].stem
    assert titles[0].startswith(
        "01 Quick start"
    )  # by which the page's script knows the list (web/danceopd/templates.js)
    assert all(re.match(rf"{number:02} [A-Z]", title) for number, title in enumerate(titles, 1))


GROUPS = ["1 Model", "2 Teachers and prompts", "3 Train", "4 Look"]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_the_groups_are_the_steps_and_hold_every_node_but_notes(name):
    page = read(PAGES[name])
    boxes = {group["title"]: box(*group["bounding"]) for group in page["groups"]}
    assert list(boxes) == [title for title in GROUPS if title in boxes]
    assert set(boxes) == set(GROUPS) - ({"3 Train"} if name == "sample_student" else set())
    for node in page["nodes"]:
        inside = [title for title, outer in boxes.items() if within(outer, frame(node))]
        assert len(inside) == (node["type"] not in NOTES), node["title"]
    assert page["extra"]["danceopd"]["start"] is True
    assert page["extra"]["ds"]["scale"] >= 0.7


def box(x, y, width, height):
    """Left, top, right, bottom."""
    return x, y, x + width, y + height


def frame(node):
    (x, y), (width, height) = node["pos"], node["size"]
    return box(x, y - 30, width, height + 30)  # with its title


def within(outer, inner):
    return (
        all(a <= b for a, b in zip(outer[:2], inner[:2], strict=True)) and outer[2] >= inner[2] and outer[3] >= inner[3]
    )


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_node_stands_on_another_and_no_link_runs_behind_one(name):
    page = read(PAGES[name])
    frames = {node["id"]: frame(node) for node in page["nodes"]}
    for key, (left, top, right, bottom) in frames.items():
        others = [other for other in frames if other != key]
        assert not [
            o
            for o in others
            if left < frames[o][2] and frames[o][0] < right and top < frames[o][3] and frames[o][1] < bottom
        ]
    reroutes = {point["id"]: point for point in page["extra"].get("reroutes", [])}
    last = {entry["id"]: entry["parentId"] for entry in page["extra"].get("linkExtensions", [])}
    nodes = {node["id"]: node for node in page["nodes"]}
    for key, source, slot, target, place, _ in page["links"]:
        points, at = [], last.get(key)
        while at is not None:
            points.insert(0, reroutes[at]["pos"])
            at = reroutes[at].get("parentId")
        (x, y), (width, _), to = nodes[source]["pos"], nodes[source]["size"], nodes[target]["pos"]
        points = [(x + width, y + 14 + 20 * slot), *points, (to[0], to[1] + 14 + 20 * place)]
        for number, (a, b) in enumerate(pairwise(points)):
            for px, py in spline(a, b, number == 0, number == len(points) - 2):
                behind = [
                    o for o, f in frames.items() if o not in (source, target) and f[0] < px < f[2] and f[1] < py < f[3]
                ]
                assert not behind, (nodes[source]["type"], nodes[target]["type"])


def spline(a, b, leaves, arrives):
    """Points of a link as the page draws it; leaves, arrives: whether an end is a socket and not a reroute."""
    pull = math.dist(a, b) / 4
    c, d = (a[0] + pull * leaves, a[1]), (b[0] - pull * arrives, b[1])
    for t in (step / 24 for step in range(1, 24)):
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        yield tuple(sum(w * p[axis] for w, p in zip(weights, (a, c, d, b), strict=True)) for axis in (0, 1))
