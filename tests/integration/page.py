"""ComfyUI's own page in a real Chromium: loads templates, converts and runs them, and hears every complaint."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..comfyui import absent
from ..templates import PAGES
from .server import PACK

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingModelsWarning": False}
READY = "() => window.app?.vueAppReady && window.LiteGraph?.registered_node_types?.DanceOPD_Train && window.app.canvas"
# What an empty ComfyUI page complains of itself: models of its default graph that it looks for in the network, files of
# a user who has none yet, and the question whether the graph is there, asked before it is.
OWN_NOISE = re.compile(
    r"huggingface\.co|graph accessed before initialization|net::ERR_|user\.css|userdata|global_subgraphs|/api/jobs"
)


class Page:
    """One browser page on a server. `complaints` grows with every console error, page error and failed request."""

    def __init__(self, page: Any, url: str, pictures: Path) -> None:
        self.page, self.url, self.pictures = page, url, pictures
        self.complaints: list[str] = []
        page.set_default_timeout(120_000)  # other tests may run beside it
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        told = f"{message.text} at {(message.location or {}).get('url', '')}"
        if message.type == "error" and not OWN_NOISE.search(told):
            self.complaints.append(told)

    def _response(self, response: Any) -> None:
        if response.status >= 400 and response.url.startswith(self.url) and not OWN_NOISE.search(response.url):
            self.complaints.append(f"{response.status} {response.url}")

    def set(self, key: str, value: Any) -> None:
        """A setting of the user's, from the next `open` on."""
        request = urllib.request.Request(
            f"{self.url}/api/settings/{key}", json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).read()

    def open(self) -> None:
        """The page anew, as after F5."""
        self.page.goto(self.url, wait_until="domcontentloaded", timeout=180_000)
        self.page.wait_for_function(READY, timeout=180_000)
        self.page.wait_for_timeout(1000)
        self.page.keyboard.press("Escape")

    def load(self, workflow: dict) -> None:
        self.page.evaluate("(workflow) => app.loadGraphData(workflow, true, true, 'test')", workflow)
        self.page.wait_for_timeout(500)

    def choose_template(self, name: str) -> None:
        """Through the template browser, by its cards; again where a busy page lost the click. name: of the API copy."""
        from playwright.sync_api import TimeoutError as Lost

        self.page.evaluate("() => app.graph.clear()")  # else what was open before would pass for the template
        for left in (3, 2, 1, 0):
            self.page.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
            self.page.get_by_role("dialog").get_by_text(PACK, exact=True).first.click(timeout=120_000)
            card = self.page.get_by_test_id(f"template-workflow-{PAGES[name].stem}")
            card.wait_for(timeout=120_000)
            self.shot(f"templates_{name}")
            card.click()
            try:
                self.page.wait_for_function(
                    "() => app.graph.nodes.some((node) => node.type.startsWith('DanceOPD'))", timeout=30_000
                )
                break
            except Lost:
                self.shot(f"templates_{name}_lost_{left}")
                self.page.keyboard.press("Escape")
                if not left:
                    raise
        self.page.wait_for_timeout(500)
        welcome = self.page.get_by_role("button", name="Skip")  # of the first form that is opened
        if welcome.count():
            welcome.first.click()

    def as_api(self) -> dict[str, dict]:
        """What the page would queue: node id -> class_type and inputs."""
        graph = json.loads(self.page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))
        return {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in graph.items()}

    def set_widgets(self, kind: str, values: dict[str, Any]) -> None:
        """Sets widgets of every node of a type, and has them called back as a hand would."""
        self.page.evaluate(
            """([kind, values]) => {
                for (const node of app.graph.nodes.filter((node) => node.type === kind))
                    for (const [name, value] of Object.entries(values)) {
                        const widget = node.widgets.find((widget) => widget.name === name);
                        if (!widget) throw new Error(`${kind} has no widget ${name}`);
                        widget.value = value;
                        widget.callback?.(value);
                    }
                // A hand's edit would be noticed by itself, and be in the draft that a reload brings back.
                const tracker = app.extensionManager.workflow.activeWorkflow?.changeTracker;
                (tracker?.captureCanvasState ?? tracker?.checkState)?.call(tracker);
            }""",
            [kind, values],
        )

    def press_run(self) -> None:
        self.page.get_by_test_id("queue-button").first.click()

    def panel(self, text: str, seconds: float = 240) -> str:
        """The live panel's words, once they hold `text`."""
        self.page.wait_for_function(
            "(text) => document.querySelector('.danceopd')?.innerText.includes(text)", arg=text, timeout=seconds * 1000
        )
        return self.page.locator(".danceopd").first.inner_text()

    def show(self, kind: str) -> None:
        """Brings a node into view at a readable size."""
        self.page.evaluate(
            """(kind) => {
                const node = app.graph.nodes.find((node) => node.type === kind);
                const { ds } = app.canvas;
                ds.scale = 0.85;
                ds.offset[0] = 420 - node.pos[0];
                ds.offset[1] = 150 - node.pos[1];
                app.canvas.setDirty(true, true);
            }""",
            kind,
        )
        self.page.wait_for_timeout(300)

    def shot(self, name: str) -> None:
        self.page.screenshot(path=str(self.pictures / f"{name}.png"))


def browser_path() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        absent(f"there is no browser: none of {', '.join(BROWSERS)} is on the path")
    return found


@contextmanager
def browsing(url: str, scratch: Path) -> Iterator[Page]:
    """A page on the server at `url`. Screenshots go to DANCEOPD_ARTIFACTS, else to `scratch`."""
    if find_spec("playwright") is None:
        absent("playwright is not installed")
    from playwright.sync_api import sync_playwright

    path = browser_path()
    pictures = Path(os.environ.get("DANCEOPD_ARTIFACTS") or scratch / "screenshots")
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            str(scratch / "profile"), executable_path=path, args=FLAGS, viewport={"width": 1600, "height": 1000}
        )
        page = Page(context.pages[0] if context.pages else context.new_page(), url, pictures)
        for key, value in SETTINGS.items():
            page.set(key, value)
        page.open()
        yield page
        context.close()
