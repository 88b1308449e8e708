"""The Train node's work without ComfyUI: found again, gone on with, stopped, cancelled, failed."""

import json
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.recipe import from_graph as recipes
from danceopd_core.recipe import graph as specs
from danceopd_core.recipe import schema as core
from danceopd_core.runs import live_status as live
from danceopd_core.runs import node_run as training
from danceopd_core.runs import records as runs
from danceopd_core.runs.train_state import load_state


class Cancelled(BaseException):
    pass


class Host:
    """check raises at the given call; what was shown is kept."""

    cancelled = Cancelled

    def __init__(self, cancel_at=10**9, stop=None, stop_at=10**9):
        self.calls, self.cancel_at, self.shown = 0, cancel_at, []
        self.stop, self.stop_at = stop, stop_at

    def check(self):
        self.calls += 1

    def progress(self, value, total, picture=None):
        if value >= self.stop_at:
            self.stop.set()
        if value >= self.cancel_at:
            raise Cancelled
        self.shown.append((value, picture))

    def memory_mb(self):
        return 1.0


@pytest.fixture
def go(zimage_folder, tmp_path):
    """Trains a little run in tmp_path and returns (page, the run, the host)."""

    def train(
        name="run", steps=4, resume=True, cancel_at=10**9, stop_at=10**9, watch=None, student=None, more="",
        transformer=None, **settings,
    ):  # fmt: skip
        model = specs.ModelSpec(str(zimage_folder), "float32", transformer)
        base = specs.FieldSpec(model, "base", ((core.Teacher(guidance=2.0), 1.0),))
        prompts = specs.PromptSpec(core.Bucket(prompts=("a red circle", "a blue square")), "prompts")
        run = runs.RunRecord(tmp_path, name)
        settings = {"width": 32, "height": 32, "rollout_steps": 2, "accumulate": 1, "device": "cpu", **settings}
        recipe = recipes.recipe_of(
            specs.RoutesSpec((specs.RouteSpec(base, prompts),)),
            student or core.Student(rank=2),
            {"steps": steps, "out": str(run.path), **settings},
            more,
        )
        stop, sent = threading.Event(), []
        host = Host(cancel_at, stop, stop_at)
        page = live.LiveStatus("9", "9", name, steps, sent.append)
        job = training.Job(recipe, run, watch or training.Validation(every=2), resume, {"prompt": {}})
        page.run = lambda: training.train(job, host, page, stop)
        page.sent, page.files, page.host = sent, run, host
        return page

    return train


def student_of(page):
    return load_file(page.files.lora)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_all_that_was_promised(go):
    page = go()
    page.run()
    files = page.files
    assert page.data["state"] == "done"
    assert page.data["update"] == 4
    assert equal(student_of(page), load_file(files.folder.student))
    assert len(files.losses()) == 4
    assert [entry["update"] for entry in files.validations()] == [2, 4]
    assert [path.name for path in files.pictures()] == ["000004-00.png"]
    assert files.status()["state"] == "done"
    assert json.loads((files.path / "workflow.json").read_text()) == {"prompt": {}}
    history = files.history()
    assert history["updates"] == [1, 2, 3, 4]
    assert all(len(values) == 4 for values in history["losses"].values())
    assert page.data["pictures"][0]["url"] == "/danceopd/runs/run/pictures/000004-00.png"
    previews = [picture for _, picture in page.host.shown if picture is not None]
    assert [picture.mode for picture in previews] == ["RGB", "RGB"]
    assert training.read_pictures(files.pictures()).shape == (1, 32, 32, 3)
    assert page.sent[0]["state"] == "opening"
    ((first, few), (second, many)) = page.data["asked"]  # the two states of its path, Beta(5, 2) over them
    assert (first, second) == (1.0, 0.75)
    assert (few, many) == (pytest.approx(0.109, abs=0.01), pytest.approx(0.891, abs=0.01))


def test_the_same_run_is_found_again_and_not_trained(go):
    go().run()
    again = go()
    again.run()
    assert again.data["state"] == "done"
    assert again.data["update"] == 4
    assert again.data["pictures"]
    assert len(again.data["asked"]) == 2
    assert again.host.shown == []


def test_a_deleted_lora_comes_back_without_training(go):
    page = go()
    page.run()
    page.files.lora.unlink()
    again = go()
    again.run()
    assert again.files.lora.exists()
    assert again.host.shown == []


def test_anything_that_matters_trains_again_and_sets_the_old_run_aside(go, tmp_path):
    go().run()
    other = go(seed=1)
    other.run()
    assert other.host.shown
    assert other.files.path.with_name("run.1").is_dir()
    aside = runs.RunRecord(tmp_path, "run.1").status()
    assert aside["run"] == "run.1"
    assert aside["pictures"][0]["url"] == "/danceopd/runs/run.1/pictures/000004-00.png"


def test_other_validation_prompts_only_validate_again(go):
    first = go()
    first.run()
    other = go(watch=training.Validation(("two circles", "a star"), every=2))
    other.run()
    assert len(other.data["pictures"]) == 2
    assert equal(student_of(first), student_of(other))
    assert len(other.files.losses()) == 4


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cancelled_run_goes_on_to_what_it_would_have_been(go, at):
    whole = go(name="whole")
    whole.run()
    page = go(cancel_at=at)
    with pytest.raises(Cancelled):
        page.run()
    assert page.data["state"] == "cancelled"
    assert page.files.status()["state"] == "cancelled"
    assert student_of(page)
    again = go()
    again.run()
    assert again.data["state"] == "done"
    assert equal(student_of(again), student_of(whole))
    assert [entry["update"] for entry in again.files.folder.history()] == [1, 2, 3, 4]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_run_goes_on_with_what_there_is(go, at):
    page = go(stop_at=at)
    page.run()
    assert page.data["state"] == "stopped"
    assert page.data["update"] == at
    assert page.files.pictures()
    assert student_of(page)


def test_more_steps_go_on_from_the_end(go):
    go(steps=2).run()
    more = go(steps=4)
    more.run()
    whole = go(name="whole", steps=4)
    whole.run()
    assert equal(student_of(more), student_of(whole))
    assert min(value for value, _ in more.host.shown) == 2


@pytest.mark.parametrize(("first", "second", "schedule"), [(2, 4, "cosine"), (4, 2, "constant")])
def test_a_run_whose_updates_would_differ_begins_anew(go, first, second, schedule):
    """More steps with a schedule that depends on their number, and fewer steps than there are updates."""
    settings = {"optimizer": {"schedule": schedule}}
    go(steps=first, **settings).run()
    anew, fresh = go(steps=second, **settings), go(name="fresh", steps=second, **settings)
    anew.run()
    fresh.run()
    assert anew.files.path.with_name("run.1").exists()
    assert len(anew.files.losses()) == second
    assert equal(student_of(anew), student_of(fresh))


def test_a_killed_process_leaves_the_last_periodic_save(go):
    page = go(save_every=2, steps=5)
    saved, progress = [], page.host.progress

    def look(value, total, picture=None):
        state = page.files.folder.state
        saved.append((value, load_state(state)["update"] if state.exists() else 0, page.files.lora.exists()))
        progress(value, total, picture)

    page.host.progress = look
    page.run()
    assert sorted(set(saved)) == [(0, 0, False), (1, 0, False), (2, 0, False), (3, 2, True), (4, 2, True), (5, 4, True)]
    assert load_state(page.files.folder.state)["update"] == 5


def test_without_resume_a_stopped_run_begins_anew(go):
    go(stop_at=2).run()
    page = go(resume=False)
    page.run()
    assert min(value for value, _ in page.host.shown) == 0
    assert len(page.files.losses()) == 4


def test_a_bad_run_touches_nothing(go, tmp_path):
    go().run()
    bad = go(width=33)
    with pytest.raises(InputError):
        bad.run()
    assert bad.data["state"] == "failed"
    assert bad.data["message"]
    assert not bad.files.path.with_name("run.1").exists()
    again = go()
    again.run()
    assert again.host.shown == []


def test_the_student_does_not_start_from_the_file_that_it_writes(go):
    page = go()
    page.run()
    with pytest.raises(InputError, match="name"):
        go(student=core.Student(start=str(page.files.lora))).run()
    with pytest.raises(InputError, match="name"):
        go(student=core.Student(over=str(page.files.lora))).run()


def test_another_lora_under_the_student_is_another_run(go, tmp_path):
    first = go(name="first")
    first.run()
    under = tmp_path / "under.safetensors"
    under.write_bytes(first.files.lora.read_bytes())
    page = go(student=core.Student(rank=2, over=str(under)))
    page.run()
    again = go(student=core.Student(rank=2, over=str(under)))
    again.run()
    assert again.host.shown == []
    other = go(name="other", more="optimizer.lr=0.01")
    other.run()
    under.write_bytes(other.files.lora.read_bytes())
    anew = go(student=core.Student(rank=2, over=str(under)))
    anew.run()
    assert anew.files.path.with_name("run.1").exists()


def test_a_transformer_file_is_the_model_and_counts_by_its_contents(go, tmp_path, zimage_folder):
    plain = go(name="plain")
    plain.run()
    weights = load_file(next((zimage_folder / "transformer").glob("*.safetensors")))
    file = tmp_path / "transformer.safetensors"
    save_file(weights, file)
    page = go(transformer=str(file))
    page.run()
    assert equal(student_of(page), student_of(plain))
    weights["layers.0.attention.to_q.weight"] *= 2
    save_file(weights, file)
    other = go(transformer=str(file))
    other.run()
    assert other.files.path.with_name("run.1").exists()
    assert not equal(student_of(other), student_of(plain))


def test_a_lora_of_someone_else_is_not_overwritten(go, tmp_path):
    page = go()
    page.files.lora.parent.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, page.files.lora)
    with pytest.raises(InputError, match="not made here"):
        page.run()


def test_a_run_that_the_servers_end_cut_off_counts_as_cancelled_and_goes_on(go):
    page = go(cancel_at=2)
    with pytest.raises(Cancelled):
        page.run()
    page.files.write("status.json", {**page.files.status(), "state": "training"})
    assert page.files.status()["state"] == "cancelled"
    again = go()
    again.run()
    assert min(value for value, _ in again.host.shown) == 2


def test_when_the_page_hears_of_the_end_all_files_are_there(go):
    page = go()
    whole, send = [], page.tell

    def tell(**news):
        if news.get("state") == "done":
            whole.append(page.files.lora.exists() and page.files.status()["state"] == "done")
        send(**news)

    page.tell = tell
    page.run()
    assert whole == [True]


def test_a_diverged_run_keeps_the_last_good_student(go):
    """Update 1 makes the weights about 1e30, so that update 2 has no finite loss."""
    wild = {"more": "optimizer.clip=1e30", "optimizer": {"lr": 1e30}, "save_every": 100}
    diverged = go(**wild)
    with pytest.raises(Exception, match="learning rate"):
        diverged.run()
    assert diverged.data["state"] == diverged.files.status()["state"] == "failed"
    assert "learning rate" in diverged.data["message"]
    good = go(name="good", steps=1, **wild)
    good.run()
    assert equal(student_of(diverged), student_of(good))
    assert equal(load_file(diverged.files.folder.student), student_of(good))
    kept = load_state(diverged.files.folder.state)
    assert (kept["update"], kept["taken"]) == (1, [1])
    assert all(tensor.isfinite().all() for tensor in kept["student"].values())


def test_other_prompts_without_a_route_make_another_run(zimage_folder, tmp_path):
    more = tmp_path / "more.csv"
    recipe = core.Recipe(
        str(zimage_folder),
        tuple(core.Route(name, "base", core.Bucket(prompts=(name,))) for name in ("one", "two")),
        {"base": core.Teacher()},
        learned_router=core.LearnedRouter(core.Bucket(csv=str(more))),
    )
    more.write_text("prompt\na cat\n", encoding="utf-8")
    before = runs.run_identity(recipe)
    assert runs.run_identity(recipe) == before
    more.write_text("prompt\na dog\n", encoding="utf-8")
    assert runs.run_identity(recipe) != before
