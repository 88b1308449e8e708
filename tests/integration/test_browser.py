"""The pack on ComfyUI's own page: templates, conversion, the live panel, a reload in the middle, the app."""

import json

import pytest

from .graphs import FOLDER, NAMES, RUNNABLE, shipped
from .page import browsing

NAMING = {f"DanceOPD_{kind}" for kind in ("LoadModel", "Teacher", "Student", "Bucket")}
SMALL = {"steps": 40, "batch": 2, "rollout_steps": 3, "validate_every": 5, "save_every": 100, "warmup": 1}


@pytest.fixture(scope="module")
def shared(server, tmp_path_factory):
    with browsing(server.url, tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="session")
def server(servers):
    return servers[0]


@pytest.fixture
def page(shared):
    shared.complaints.clear()
    yield shared
    assert not shared.complaints


@pytest.mark.parametrize("name", NAMES)
def test_a_template_loads_from_the_browser_and_is_its_api_copy(page, name):
    page.choose_template(name)
    page.shot(f"template_{name}")
    mine = {
        key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in shipped(name).items()
    }  # fmt: skip
    assert page.as_api() == mine
    wanted = json.loads((FOLDER.parent / f"{name}.json").read_text(encoding="utf-8"))
    assert page.page.evaluate("() => app.graph.nodes.length") == len(wanted["nodes"])
    marked = page.page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).map((node) => node.type)")
    # The page marks the nodes that name a file which is not here, as a person's own are not.
    assert set(marked) <= (set() if name in RUNNABLE else NAMING)
    assert page.page.locator("[role=dialog]:visible").count() == 0


def train_small(page, name, **train):
    page.choose_template("cfg_absorption")
    page.set_widgets("DanceOPD_Train", SMALL | {"name": name} | train)
    page.set_widgets("DanceOPD_Bucket", {"content.count": 12})
    page.set_widgets("DanceOPD_Compare", {"rows": 1, "steps": 2})
    page.show("DanceOPD_Train")
    page.press_run()


def test_the_panel_moves_and_the_pictures_are_there_at_the_end(page):
    train_small(page, "moves")
    first = page.panel("Training")
    page.panel("Done")
    page.shot("panel_done")
    last = page.page.locator(".danceopd").first.inner_text()
    assert first != last
    assert "40" in last
    assert page.page.locator(".danceopd-pictures img").count() > 0
    loaded = "() => [...document.querySelectorAll('.danceopd-pictures img')].every((i) => i.complete && i.naturalWidth)"
    page.page.wait_for_function(loaded)
    assert page.page.evaluate("() => document.querySelector('.danceopd canvas').width") > 100
    page.page.wait_for_function("() => app.graph.nodes.some((n) => n.type === 'SaveImage' && n.imgs?.length)")


def test_the_panel_comes_back_after_a_reload_in_the_middle(page):
    train_small(page, "reloaded", steps=400, validate_every=0)
    page.panel("Training")
    page.page.wait_for_timeout(1500)  # the page writes its drafts with a delay
    page.open()
    page.shot("reloaded")
    page.show("DanceOPD_Train")
    page.panel("Training", 30)
    page.shot("panel_after_reload")
    page.page.evaluate("() => document.querySelector('.danceopd-buttons button').click()")  # it may be out of view
    page.panel("Stopped and saved", 60)


def test_the_new_renderer_shows_the_panel_too(page):
    page.set("Comfy.VueNodes.Enabled", True)
    try:
        page.open()
        train_small(page, "renderer")
        page.panel("Done")
        page.shot("panel_nodes2")
    finally:
        page.set("Comfy.VueNodes.Enabled", False)
        page.open()


def test_the_sampling_workflow_is_a_form(page):
    page.choose_template("sample_student")
    page.page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.page.wait_for_timeout(1500)
    welcome = page.page.get_by_role("button", name="Skip")
    if welcome.count():
        welcome.first.click()
    page.shot("app_mode")
    words = page.page.locator("body").inner_text()
    for name in ("task", "prompt", "image"):
        assert name in words
    page.page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
