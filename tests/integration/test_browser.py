"""The pack on ComfyUI's own page: templates, conversion, the live panel, a reload in the middle, the app."""

import pytest

from ..comfyui import comfyui_python, comfyui_root
from ..templates import PAGES, read
from .graphs import NAMES, RUNNABLE, shipped
from .page import browsing
from .server import Server

NAMING = {f"DanceOPD_{kind}" for kind in ("LoadModel", "Teacher", "Student", "Bucket")}
SMALL = {"steps": 40, "batch": 2, "rollout_steps": 3, "validate_every": 5, "save_every": 100, "warmup": 1}

ADD_WRONG_SIZE = """
() => {
    const bucket = app.graph.nodes.find((node) => node.type === 'DanceOPD_Bucket');
    for (const [slot, count] of [['source_images', 2], ['target_images', 3]]) {
        const pictures = LiteGraph.createNode('EmptyImage');
        app.graph.add(pictures);
        pictures.widgets.find((widget) => widget.name === 'batch_size').value = count;
        pictures.connect(0, bucket, bucket.inputs.findIndex((input) => input.name === slot));
    }
}
"""


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
    wanted = read(PAGES[name])
    assert page.page.evaluate("() => app.graph.nodes.length") == len(wanted["nodes"])
    marked = page.page.evaluate("() => app.graph.nodes.filter((node) => node.has_errors).map((node) => node.type)")
    # The page marks the nodes that name a file which is not here, as a person's own are not.
    assert set(marked) <= (set() if name in RUNNABLE else NAMING)
    assert page.page.locator("[role=dialog]:visible").count() == 0


def train_small(page, name, count=12, **train):
    page.choose_template("cfg_absorption")
    page.set_widgets("DanceOPD_Train", SMALL | {"name": name} | train)
    page.set_widgets("DanceOPD_Bucket", {"content.count": count})
    page.set_widgets("DanceOPD_Compare", {"rows": 1, "steps": 2})
    page.show("DanceOPD_Train")
    page.press_run()


LOADED = """() => {
    const images = [...document.querySelectorAll('.danceopd-strip img')];
    return images.length > 0 && images.every((image) => image.complete && image.naturalWidth);
}"""
INTO_VIEW = """() => {  // pictures are loaded when they come near it
    const { ds } = app.canvas;
    ds.offset[1] -= (document.querySelector('.danceopd').getBoundingClientRect().top - 100) / ds.scale;
    app.canvas.setDirty(true, true);
}"""
TOASTS = "() => [...document.querySelectorAll('.p-toast-message')].map((toast) => toast.innerText).join('; ')"


def test_the_panel_moves_and_the_pictures_are_there_at_the_end(page):
    train_small(page, "moves")
    first = page.panel("Training")
    page.panel("Done")
    assert "moves is trained" in page.page.evaluate(TOASTS)
    page.page.wait_for_function("() => app.graph.nodes.some((n) => n.type === 'SaveImage' && n.imgs?.length)")
    page.page.evaluate(INTO_VIEW)
    page.page.wait_for_function(LOADED)
    page.shot("panel_done")
    last = page.page.locator(".danceopd").first.inner_text()
    assert first != last
    assert "40" in last
    assert "% of start" in last
    assert "LoRA healthy" in last
    assert page.page.evaluate("() => document.querySelector('.danceopd canvas').width") > 100


def test_what_a_finished_run_offers(page, server):
    """The run of the test before: enlarged pictures, the wide view, a loader, publishing, the list of runs."""
    panel = page.page.locator(".danceopd").first
    columns = page.page.locator(".danceopd-column").all_inner_texts()
    assert columns[0] == "teacher"
    assert columns[1:] == [str(update) for update in range(0, 41, 5)]

    nodes = page.page.evaluate("() => app.graph.nodes.length")
    page.page.evaluate("() => [...document.querySelectorAll('.danceopd-picture')].at(-1).click()")
    chosen = page.page.locator(".danceopd-filmstrip .chosen")
    assert chosen.inner_text() == "40"
    tags = page.page.locator(".danceopd-tag")
    assert tags.all_inner_texts() == ["0", "40"]
    box = page.page.locator(".danceopd-compare").bounding_box()
    page.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    assert abs(float(page.page.locator(".danceopd-lightbox input").input_value()) - 50) < 2
    page.shot("lightbox")
    page.page.keyboard.press("ArrowLeft")
    assert chosen.inner_text() == "35"
    assert tags.all_inner_texts() == ["35", "40"]
    page.page.keyboard.press("Delete")  # no key reaches the graph below
    page.page.keyboard.press("Escape")
    assert page.page.locator(".danceopd-overlay").count() == 0
    assert page.page.evaluate("() => app.graph.nodes.length") == nodes

    page.page.evaluate("() => document.querySelector('.danceopd-widen').click()")
    wide = page.page.locator(".danceopd-wide")
    wide.get_by_text("moves.safetensors").wait_for()
    page.page.wait_for_timeout(500)
    page.shot("panel_wide")
    assert wide.locator("canvas").bounding_box()["width"] > 300
    page.page.evaluate("() => document.querySelector('.danceopd-widen').click()")

    def press(text):
        panel.get_by_role("button", name=text).dispatch_event("click")  # it may be out of view

    press("Add Load LoRA node")
    loader = "() => app.graph.nodes.find((n) => n.type === 'DanceOPD_LoadLora')?.widgets[0].value"
    page.page.wait_for_function(f"() => ({loader})() === 'moves.safetensors'")

    status = server.get("/danceopd/runs/moves")
    assert status["saved"]["lora"] == "moves.safetensors"
    best = status["best"]["update"]
    assert f"best at update {best}" in panel.inner_text()
    if best == status["saved"]["update"]:
        assert panel.get_by_text("Publish best").is_disabled()
    else:
        press("Publish best")
        page.panel(f"is that of update {best} now", 30)
        press("Publish last")
        page.panel("is that of update 40 now", 30)

    press("Delete old runs")
    page.page.wait_for_function("() => document.querySelector('.danceopd-runs')?.innerText.includes('moves')")
    page.shot("old_runs")
    page.page.keyboard.press("Escape")

    page.press_run()
    page.page.wait_for_function(f"() => ({TOASTS})().includes('moves was finished already')", timeout=60_000)


def test_the_panel_comes_back_after_a_reload_in_the_middle(page):
    train_small(page, "reloaded", steps=400, validate_every=0)
    page.panel("Training")
    page.page.wait_for_timeout(1500)  # the page writes its drafts with a delay
    page.open()
    page.shot("reloaded")
    page.show("DanceOPD_Train")
    page.panel("Training", 30)
    page.shot("panel_after_reload")
    page.page.evaluate("() => document.querySelector('.danceopd-running button').click()")  # it may be out of view
    page.panel("Stopped and saved", 60)


def test_the_new_renderer_shows_the_panel_too(page):
    page.set("Comfy.VueNodes.Enabled", True)
    try:
        page.open()
        train_small(page, "renderer")
        page.panel("Done")
        page.page.evaluate(INTO_VIEW)
        page.page.wait_for_function(LOADED)
        page.shot("panel_nodes2")
        train = page.page.evaluate("() => app.graph.nodes.find((node) => node.type === 'DanceOPD_Train').id")
        repeated = page.page.locator(f"[data-node-id='{train}'] :is(img, video)").count()
        assert repeated == page.page.locator(f"[data-node-id='{train}'] .danceopd img").count() > 0
    finally:
        page.set("Comfy.VueNodes.Enabled", False)
        page.open()


def test_a_fault_of_another_node_reaches_the_panel(page, server):
    (server.base / "input" / "faulty.csv").write_text("text\na star\n", encoding="utf-8")
    train_small(page, "told first")
    page.panel("Done")
    page.set_widgets("DanceOPD_Bucket", {"content": "lines of text"})
    page.set_widgets("DanceOPD_Bucket", {"content.prompts": " "})
    page.press_run()  # refused when it is queued
    assert "the bucket is empty" in page.panel("Failed", 30)
    page.page.keyboard.press("Escape")
    page.set_widgets("DanceOPD_Bucket", {"content.prompts": "a star"})
    page.set_widgets("DanceOPD_Guided", {"scale": 3})
    page.page.evaluate(ADD_WRONG_SIZE)
    page.press_run()  # found when the bucket runs, before the training
    assert "belong" not in page.panel("Failed", 30)
    page.page.wait_for_function(
        "() => document.querySelector('.danceopd').innerText.includes('pictures for')", timeout=60_000
    )
    page.shot("panel_fault_of_another_node")
    page.complaints.clear()  # the page tells of the refused prompt


def test_the_side_panel_leaves_the_live_panel_as_wide_as_it_was(page):
    page.choose_template("cfg_absorption")
    page.show("DanceOPD_Train")
    width = "() => document.querySelector('.danceopd').offsetWidth"
    before = page.page.evaluate(width)
    assert before > 300
    for shown in (True, False):
        page.page.evaluate("(on) => app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', on)", shown)
        page.page.evaluate(
            "() => app.canvas.selectNode(app.graph.nodes.find((node) => node.type === 'DanceOPD_Train'))"
        )
        page.page.wait_for_timeout(1000)
    page.shot("side_panel_closed")
    assert page.page.evaluate(width) == before


def test_r_refreshes_the_list_of_csv_files(page, server):
    page.choose_template("cfg_absorption")
    page.set_widgets("DanceOPD_Bucket", {"content": "CSV file"})
    values = """() => app.graph.nodes.find((node) => node.type === 'DanceOPD_Bucket')
        .widgets.find((widget) => widget.name === 'content.file').options.values"""
    assert "new.csv" not in page.page.evaluate(values)
    (server.base / "input" / "new.csv").write_text("prompt\na star\n", encoding="utf-8")
    page.page.mouse.click(800, 900)
    page.page.keyboard.press("r")
    page.page.wait_for_function(f"() => ({values})().includes('new.csv')", timeout=30_000)
    page.set_widgets("DanceOPD_Bucket", {"content": "lines of text"})
    page.set_widgets("DanceOPD_Bucket", {"content": "CSV file"})
    assert "new.csv" in page.page.evaluate(values)


def test_a_table_is_uploaded_from_the_bucket(page, base):
    page.choose_template("cfg_absorption")
    page.set_widgets("DanceOPD_Bucket", {"content": "CSV file"})
    press = """() => {
        const bucket = app.graph.nodes.find((node) => node.type === 'DanceOPD_Bucket');
        const button = bucket.widgets.find((widget) => widget.name === 'upload');
        if (button.hidden) throw new Error('the button is hidden');
        button.callback();
    }"""
    with page.page.expect_file_chooser() as chooser:
        page.page.evaluate(press)
    chooser.value.set_files({"name": "mine.csv", "mimeType": "text/csv", "buffer": b"prompt\na red circle\n"})
    chosen = """() => app.graph.nodes.find((n) => n.type === 'DanceOPD_Bucket')
        .widgets.find((w) => w.name === 'content.file').value === 'mine.csv'"""
    page.page.wait_for_function(chosen)
    assert (base / "input" / "mine.csv").read_bytes() == b"prompt\na red circle\n"
    (bucket,) = [node["inputs"] for node in page.as_api().values() if node["class_type"] == "DanceOPD_Bucket"]
    assert bucket == {"content": "CSV file", "content.file": "mine.csv", "content.task": "", "wildcards": 0}
    page.show("DanceOPD_Bucket")
    page.shot("bucket_of_an_uploaded_table")


def test_a_template_whose_files_are_missing_says_so_on_the_panel_and_complains_of_nothing(page):
    page.choose_template("paper_zimage_local_global")
    assert "is not in ComfyUI's folders" in page.panel("Not ready yet", 30)


REPORT = {
    "1": {"class_type": "DanceOPD_LoraReport", "inputs": {"lora_name": "shapes:lit"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
}


@pytest.mark.parametrize(
    ("language", "words"),
    [("zh", ("正在编码", "训练中", "正常：")), ("ja", ("エンコードしています", "学習中", "正常："))],
)
def test_progress_and_notes_are_in_the_pages_language(page, language, words):
    page.set("Comfy.Locale", language)
    try:
        page.open()
        train_small(page, f"in {language}", count=600, steps=400)
        page.panel(words[0], 60)
        page.panel(words[1], 60)
        page.shot(f"panel_{language}")
        page.page.evaluate("() => document.querySelector('.danceopd-running button').click()")
        note = page.page.evaluate("() => app.graph.nodes.find((n) => n.type === 'MarkdownNote').widgets[0].value")
        assert not note.startswith("## Guidance absorption")
        page.page.evaluate("(graph) => app.loadApiJson(graph, 'report')", REPORT)
        page.press_run()
        shown = "() => app.graph.nodes.find((n) => n.type === 'PreviewAny')?.widgets.map((w) => w.value).join()"
        page.page.wait_for_function(f"() => ({shown})().includes('keys: ')", timeout=60_000)
        assert words[2] in page.page.evaluate(shown)
    finally:
        page.set("Comfy.Locale", "en")
        page.open()


@pytest.mark.parametrize("before", ["", "sample_student"])
def test_a_template_shows_its_start_at_a_readable_size(page, before):
    """Behind the form of the second the canvas is hidden, and the page fits what comes after it."""
    if before:
        page.choose_template(before)
    page.choose_template("quickstart")
    page.page.wait_for_timeout(1000 * bool(before))
    scale, left, right = page.page.evaluate(
        """() => {
            const { ds, canvas } = app.canvas;
            const edges = app.graph.nodes.map((node) => [node.pos[0], node.pos[0] + node.size[0]]);
            return [
                ds.scale, (Math.min(...edges.map(([a]) => a)) + ds.offset[0]) * ds.scale,
                canvas.clientWidth - (Math.max(...edges.map(([, b]) => b)) + ds.offset[0]) * ds.scale,
            ];
        }"""
    )
    assert scale >= 0.7
    assert left > 60  # the side bar's
    assert right > 0


def test_train_shows_what_most_need_and_an_edit_makes_a_preset_custom(page):
    page.choose_template("cfg_absorption")
    shown = "() => app.graph.nodes.find((n) => n.type === 'DanceOPD_Train').getLayoutWidgets().map((w) => w.name)"
    assert page.page.evaluate(shown) == ["name", "steps", "learning_rate", "quality", "panel"]
    page.set_widgets("DanceOPD_Train", {"quality": "paper"})
    train = next(node["inputs"] for node in page.as_api().values() if node["class_type"] == "DanceOPD_Train")
    assert (train["rollout_steps"], train["quality"]) == (16, "paper")
    page.set_widgets("DanceOPD_Train", {"rollout_steps": 12})
    train = next(node["inputs"] for node in page.as_api().values() if node["class_type"] == "DanceOPD_Train")
    assert train["quality"] == "custom"


@pytest.mark.parametrize(
    ("name", "inputs"),
    [("sample_student", ("task", "prompt", "lora_name")), ("quickstart", ("name", "steps", "panel"))],
)
def test_training_and_sampling_are_forms(page, name, inputs):
    page.choose_template(name)
    if name == "quickstart":  # the other opens as one
        page.page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")
    page.page.wait_for_timeout(1500)
    page.shot(f"app_mode_{name}")
    words = page.page.locator("body").inner_text()
    for text in inputs:
        assert text in words
    page.page.evaluate("() => app.extensionManager.command.execute('Comfy.ToggleLinear')")


def test_after_a_crash_of_the_server_no_button_is_live(page, servers):
    train_small(page, "crashed", steps=400, validate_every=0)
    page.panel("Training")
    servers[0].process.kill()
    servers[0].process.wait()
    page.panel("Connection lost", 30)
    page.shot("panel_crashed")
    live = "() => document.querySelectorAll('.danceopd-running button:enabled').length"
    assert page.page.evaluate(live) == 0
    port = int(servers[0].url.rpartition(":")[2])
    servers[0] = Server(comfyui_root(), comfyui_python(), servers[0].base, port=port)
    page.panel("Cancelled", 60)
    assert page.page.evaluate(live) == 0
    page.complaints.clear()  # the page tells of the lost connection
