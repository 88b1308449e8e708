"""The way of docs/first-run.md on ComfyUI's own page, click by click: from nothing to a LoRA.

DANCEOPD_ARTIFACTS: a folder for the pictures of the way. Moving and zooming the view are not counted as clicks.
"""

from __future__ import annotations

import re
import shutil
import time

import pytest

from danceopd_core.shapes import MODEL

from ..templates import PAGES
from .page import browsing
from .server import PACK

PROMPTS = [f"a {size} {shape}" for size in ("big", "small", "red", "blue")
           for shape in ("star", "circle", "square", "cross", "triangle")]  # fmt: skip
PLACE = """([title, widget]) => {  // brings a widget into view, and tells where its middle is on the page
    const node = app.graph.nodes.find((node) => node.title === title);
    const { ds, canvas } = app.canvas;
    ds.offset[0] = 500 / ds.scale - node.pos[0];
    ds.offset[1] = 300 / ds.scale - node.pos[1];
    app.canvas.draw(true, true);
    const { y, computedHeight } = node.widgets.find(({ name }) => name === widget);
    const { left, top } = canvas.getBoundingClientRect();
    const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + y + (computedHeight ?? 20) / 2];
    return [left + (middle[0] + ds.offset[0]) * ds.scale, top + (middle[1] + ds.offset[1]) * ds.scale];
}"""


FIRST = """() => {
    const panel = document.querySelector('.danceopd');
    const count = panel?.querySelector('.danceopd-count').innerText;
    return panel?.dataset.state === 'training' && /^[1-9]\\d* \\/ 12$/.test(count)
        && !panel.querySelector('.danceopd-message').innerText;
}"""
"""Of the 12 updates one is done; before that the panel counts what is encoded."""


class Walk:
    """A user's hand on the page, whose clicks are counted."""

    def __init__(self, page, name):
        self.page, self.name, self.clicks = page, name, 0

    def click(self, locator):
        locator.wait_for()
        self.shot()
        locator.click()
        self.clicks += 1

    def click_widget(self, title, widget):
        x, y = self.page.page.evaluate(PLACE, [title, widget])
        self.page.page.wait_for_timeout(300)
        self.page.page.mouse.click(x, y)
        self.clicks += 1
        self.page.page.wait_for_timeout(300)

    def choose(self, title, widget, value):
        self.click_widget(title, widget)
        self.click(self.page.page.locator(".litemenu-entry", has_text=value).first)

    def paste(self, title, widget, text):
        self.click_widget(title, widget)
        self.page.page.keyboard.press("Control+A")
        self.page.page.keyboard.insert_text(text)
        self.shot()

    def template(self, name):
        sidebar = self.page.page.get_by_role("button", name=re.compile("Templates"))
        self.click(sidebar.first)
        self.click(self.page.page.get_by_role("dialog").get_by_text(PACK, exact=True).first)
        self.click(self.page.page.get_by_test_id(f"template-workflow-{PAGES[name].stem}"))
        self.page.page.wait_for_function("() => app.graph.nodes.some((node) => node.type === 'DanceOPD_Train')")
        self.page.page.wait_for_timeout(1000)

    def run(self):
        """Seconds from the click to the first update."""
        self.click(self.page.page.get_by_test_id("queue-button").first)
        began = time.monotonic()
        self.page.page.wait_for_function(
            r"() => /\b[1-9]\d* \/ \d+/.test(document.querySelector('.danceopd-count')?.innerText)"
        )
        return time.monotonic() - began

    def shot(self):
        self.page.shot(f"walk_{self.name}_{self.clicks}")


@pytest.fixture(scope="module")
def page(servers, tmp_path_factory):
    with browsing(servers[0].url, tmp_path_factory.mktemp("walk")) as page:
        page.page.evaluate("() => app.graph.clear()")
        yield page


def shorten(page, name, **more):
    """For the test's sake: how well it is trained is not what is tried here."""
    page.set_widgets("DanceOPD_Train", {"name": name, "steps": 12, "validate_every": 6, **more})
    page.set_widgets("DanceOPD_Compare", {"rows": 1, "steps": 2})


def test_from_an_empty_comfyui_to_a_lora_in_five_clicks(page, servers):
    walk = Walk(page, "first")
    walk.template("quickstart")
    shorten(page, "walk")
    first = walk.run()
    page.panel("Done")
    page.page.wait_for_timeout(1500)
    walk.shot()
    print(f"{walk.clicks} clicks; the first update {first:.1f} s after Run")
    assert walk.clicks <= 5
    assert first < 60  # 15 where nothing else runs
    assert (servers[0].base / "output" / "loras" / "walk.safetensors").is_file()


def test_from_two_loras_and_twenty_prompts_in_twelve_clicks(page, servers):
    loras = servers[0].base / "models" / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    for mine, theirs in (("my style", "lit"), ("my guidance", "guided")):
        shutil.copyfile(MODEL / "loras" / f"{theirs}.safetensors", loras / f"{mine}.safetensors")
    page.open()  # the files were there before the page was
    walk = Walk(page, "loras")
    walk.template("two_loras_into_one_zimage_turbo")
    shorten(page, "walk of two", batch=2, accumulate=1)
    for number, lora in ((1, "my style"), (2, "my guidance")):
        walk.choose(f"Teacher Field: LoRA {number}", "lora", lora)
        walk.paste(f"Prompt Bucket: prompts of LoRA {number}", "content.prompts", "\n".join(PROMPTS[number - 1 :: 2]))
    first = walk.run()
    page.panel("Done")
    walk.shot()
    print(f"{walk.clicks} clicks; the first update {first:.1f} s after Run")
    assert walk.clicks <= 12
    graph = page.as_api().values()
    chosen = {node["inputs"]["lora"] for node in graph if node["class_type"] == "DanceOPD_Teacher"}
    assert chosen == {"my style.safetensors", "my guidance.safetensors"}
    typed = [node["inputs"]["content.prompts"] for node in graph if node["class_type"] == "DanceOPD_Bucket"]
    assert sorted("\n".join(typed).splitlines()) == sorted(PROMPTS)
    assert (servers[0].base / "output" / "loras" / "walk of two.safetensors").is_file()
