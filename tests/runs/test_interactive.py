"""The Train node's work without ComfyUI: found again, gone on with, stopped, cancelled, failed."""

import json
import threading
from shutil import copyfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from danceopd_core.errors import InputError
from danceopd_core.recipe import from_graph as recipes
from danceopd_core.recipe import graph as specs
from danceopd_core.recipe import schema as core
from danceopd_core.recipe.io import comments_of
from danceopd_core.runs.files.history import UpdateLines
from danceopd_core.runs.files.identity import run_identity
from danceopd_core.runs.files.run_id import run_of_lora
from danceopd_core.runs.files.run_lock import RunLock
from danceopd_core.runs.files.train_state import load_state
from danceopd_core.runs.front import interactive
from danceopd_core.runs.live import live_status as live
from danceopd_core.runs.stored import records as runs
from danceopd_core.runs.training.best import update_of
from danceopd_core.runs.training.validation import Validation, read_pictures


class Cancelled(BaseException):
    pass


class Host:
    """check raises at the given call; what was shown is kept."""

    cancelled = Cancelled

    def __init__(self, cancel_at=10**9, stop=None, stop_at=10**9):
        self.calls, self.cancel_at, self.shown = 0, cancel_at, []
        self.stop, self.stop_at, self.prepared = stop, stop_at, []

    def check(self):
        self.calls += 1

    def progress(self, value, total):
        if value >= self.stop_at:
            self.stop.set()
        if value >= self.cancel_at:
            raise Cancelled
        self.shown.append(value)

    def preparing(self, done, total):
        self.prepared.append((done, total))

    def memory_mb(self):
        return 1.0


@pytest.fixture
def go(zimage_folder, tmp_path):
    """Trains a little run in tmp_path and returns (status, the run, the host)."""

    def train(
        name="run", steps=4, resume=True, cancel_at=10**9, stop_at=10**9, validation=None, student=None, more="",
        transformer=None, teacher=None, **settings,
    ):  # fmt: skip
        model = specs.ModelSpec(str(zimage_folder), "float32", transformer)
        base = specs.FieldSpec(model, "base", ((core.Teacher(guidance=2.0, lora=teacher), 1.0),))
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
        status = live.LiveStatus("9", "9", name, steps, sent.append)
        job = interactive.Job(recipe, run, validation or Validation(every=2), resume, {"prompt": {}})
        status.run = lambda: interactive.train_job(job, host, status, stop)
        status.sent, status.files, status.host = sent, run, host
        return status

    return train


def metadata_of(file):
    with safe_open(file, "pt") as handle:
        return handle.metadata()


def student_of(status):
    return load_file(status.files.lora)


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_all_that_was_promised(go):
    status = go()
    status.run()
    files = status.files
    assert status.data["state"] == "done"
    assert status.data["update"] == 4
    assert equal(student_of(status), load_file(files.folder.student))
    assert len(files.losses()) == 4
    assert [entry["update"] for entry in files.history()["validation"]] == [0, 2, 4]
    assert [path.name for path in files.pictures()] == ["000004-00.png"]
    assert files.status()["state"] == "done"
    assert json.loads((files.path / "workflow.json").read_text()) == {"prompt": {}}
    history = files.history()
    assert history["updates"] == [1, 2, 3, 4]
    assert all(len(values) == 4 for values in history["losses"].values())
    assert status.data["pictures"][0]["url"] == "/danceopd/runs/run/pictures/000004-00.png"
    assert read_pictures(files.pictures()).shape == (1, 32, 32, 3)
    assert list(files.strip.table().columns) == [0, 2, 4]
    assert files.strip.table().teachers == ("teacher-00.png",)
    assert status.data["best"]["update"] == update_of(files.path / "best.safetensors")
    assert status.data["saved"]["update"] == 4
    assert list(status.data["held_out"].values()) == [0]  # of two
    assert status.data["start"] == files.start() != status.data["validation"]
    assert status.sent[0]["state"] == "opening"
    assert {(0, 2), (1, 2), (2, 2)} <= set(status.host.prepared)
    ((first, few), (second, many)) = status.data["asked"]  # the two states of its path, Beta(5, 2) over them
    assert (first, second) == (1.0, 0.75)
    assert (few, many) == (pytest.approx(0.109, abs=0.01), pytest.approx(0.891, abs=0.01))


def test_the_same_run_is_found_again_and_not_trained(go):
    go().run()
    again = go()
    again.run()
    assert again.data["state"] == "done"
    assert again.data["update"] == 4
    assert again.data["finished_before"]
    assert again.data["saved"]["lora"] == "run.safetensors"
    assert again.data["best"]
    assert again.data["pictures"]
    assert len(again.data["asked"]) == 2
    assert again.host.shown == []


def test_a_finished_run_follows_its_privacy_without_training(go):
    status = go()
    status.run()
    files = (status.files.lora, status.files.folder.student, status.files.path / "best.safetensors")

    def told(file):
        return json.dumps(metadata_of(file)) + (file.with_suffix(".md").read_text() if file is files[0] else "")

    before, notes = student_of(status), comments_of(status.files.path / "recipe.yaml")
    assert all("a red circle" in told(file) for file in files)
    assert "modelspec.thumbnail" in metadata_of(files[0])
    again = go(private=True)
    again.run()
    assert (again.data["state"], again.host.shown) == ("done", [])
    assert not any("a red circle" in told(file) for file in files)
    assert "modelspec.thumbnail" not in metadata_of(files[0])
    assert equal(student_of(again), before)
    assert [update_of(file) for file in files[:2]] == [4, 4]
    assert comments_of(status.files.path / "recipe.yaml") == notes
    go().run()
    assert all("a red circle" in told(file) for file in files)


@pytest.mark.parametrize("step", ["publish_file", "write_card"])
def test_privacy_that_was_interrupted_is_asked_for_again(go, monkeypatch, step):
    status = go()
    status.run()

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs.RunRecord, step, interrupted)
        asked = go(private=True)
        with pytest.raises(KeyboardInterrupt):
            asked.run()
    go(private=True).run()
    assert "a red circle" not in json.dumps(metadata_of(status.files.lora))
    assert "a red circle" not in status.files.lora.with_suffix(".md").read_text()


def test_a_deleted_lora_comes_back_without_training(go):
    status = go()
    status.run()
    status.files.lora.unlink()
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
    other = go(validation=Validation(("two circles", "a star"), every=2))
    other.run()
    assert len(other.data["pictures"]) == 2
    assert equal(student_of(first), student_of(other))
    assert len(other.files.losses()) == 4


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_cancelled_run_goes_on_to_what_it_would_have_been(go, at):
    whole = go(name="whole")
    whole.run()
    status = go(cancel_at=at)
    with pytest.raises(Cancelled):
        status.run()
    assert status.data["state"] == "cancelled"
    assert status.files.status()["state"] == "cancelled"
    assert student_of(status)
    again = go()
    again.run()
    assert again.data["state"] == "done"
    assert equal(student_of(again), student_of(whole))
    assert [entry["update"] for entry in again.files.folder.history()] == [1, 2, 3, 4]
    assert again.data["best"] == whole.data["best"]
    best = (status.files.path / "best.safetensors" for status in (again, whole))
    assert equal(*map(load_file, best))


def test_a_run_cancelled_before_its_first_update_leaves_the_earlier_results(go):
    first = go()
    first.run()
    lora = first.files.lora.read_bytes()
    other = go(seed=1, cancel_at=0)
    with pytest.raises(Cancelled):
        other.run()
    assert other.data["state"] == "cancelled"
    assert first.files.lora.read_bytes() == lora
    assert other.files.path.with_name("run.1").is_dir()
    assert other.data["message"] == "Nothing was trained: run.safetensors in the loras folder is as it was"
    again = go(seed=1)
    again.run()
    earlier = first.files.path.parents[2] / again.data["earlier"]
    assert earlier.read_bytes() == other.files.path.with_name("run.1").joinpath("student.safetensors").read_bytes()
    assert again.files.status()["earlier"] == again.data["earlier"]
    assert not again.files.path.with_name("run.2").exists()  # there was nothing to set aside
    assert min(again.host.shown) == 0


WORKS = ["loading the text_encoder", "encoding the bucket", "loading the transformer", "encoding the validation"]


@pytest.mark.parametrize("work", WORKS)
def test_cancel_is_heard_in_whatever_is_done_before_the_first_update(go, work):
    first = go()
    first.run()
    before, status = first.files.lora.read_bytes(), go(seed=1)

    def check():
        if ((status.data["work"] or {}).get("what") or "").startswith(work):
            raise Cancelled

    status.host.check = check
    with pytest.raises(Cancelled):
        status.run()
    assert status.data["state"] == "cancelled"
    assert status.data["work"] is None
    assert first.files.lora.read_bytes() == before
    assert not first.files.path.with_name("run.1").exists()  # nothing began


@pytest.mark.parametrize("work", ["measuring the validation error", "making the validation pictures"])
def test_cancel_is_heard_while_a_run_is_validated_and_the_run_goes_on(go, work):
    whole = go(name="whole")
    whole.run()
    status = go()

    def check():
        if status.data["update"] and ((status.data["work"] or {}).get("what") or "") == work:  # not that of the start
            raise Cancelled

    status.host.check = check
    with pytest.raises(Cancelled):
        status.run()
    assert status.data["update"] == 2
    again = go()
    again.run()
    assert equal(student_of(again), student_of(whole))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_stopped_run_goes_on_with_what_there_is(go, at):
    status = go(stop_at=at)
    status.run()
    assert status.data["state"] == "stopped"
    assert status.data["update"] == at
    assert status.files.pictures()
    assert student_of(status)


def test_more_steps_go_on_from_the_end(go):
    go(steps=2).run()
    more = go(steps=4)
    more.run()
    whole = go(name="whole", steps=4)
    whole.run()
    assert equal(student_of(more), student_of(whole))
    assert min(more.host.shown) == 2


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

    def look(value, total):
        state = page.files.folder.state
        saved.append((value, load_state(state)["update"] if state.exists() else 0, page.files.lora.exists()))
        progress(value, total)

    page.host.progress = look
    page.run()
    assert sorted(set(saved)) == [(0, 0, False), (1, 0, False), (2, 0, False), (3, 2, True), (4, 2, True), (5, 4, True)]
    assert load_state(page.files.folder.state)["update"] == 5


def test_without_resume_a_stopped_run_begins_anew(go):
    go(stop_at=2).run()
    status = go(resume=False)
    status.run()
    assert min(status.host.shown) == 0
    assert len(status.files.losses()) == 4


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
    status = go()
    status.run()
    with pytest.raises(InputError, match="name"):
        go(student=core.Student(start=str(status.files.lora))).run()
    with pytest.raises(InputError, match="name"):
        go(student=core.Student(base_lora=str(status.files.lora))).run()


def test_another_lora_under_the_student_is_another_run(go, tmp_path):
    first = go(name="first")
    first.run()
    under = tmp_path / "under.safetensors"
    under.write_bytes(first.files.lora.read_bytes())
    status = go(student=core.Student(rank=2, base_lora=str(under)))
    status.run()
    again = go(student=core.Student(rank=2, base_lora=str(under)))
    again.run()
    assert again.host.shown == []
    other = go(name="other", more="optimizer.lr=0.01")
    other.run()
    under.write_bytes(other.files.lora.read_bytes())
    anew = go(student=core.Student(rank=2, base_lora=str(under)))
    anew.run()
    assert anew.files.path.with_name("run.1").exists()


def test_a_transformer_file_is_the_model_and_counts_by_its_contents(go, tmp_path, zimage_folder):
    plain = go(name="plain")
    plain.run()
    weights = load_file(next((zimage_folder / "transformer").glob("*.safetensors")))
    file = tmp_path / "transformer.safetensors"
    save_file(weights, file)
    status = go(transformer=str(file))
    status.run()
    assert equal(student_of(status), student_of(plain))
    weights["layers.0.attention.to_q.weight"] *= 2
    save_file(weights, file)
    other = go(transformer=str(file))
    other.run()
    assert other.files.path.with_name("run.1").exists()
    assert not equal(student_of(other), student_of(plain))


def test_a_lora_of_someone_else_is_not_overwritten(go, tmp_path):
    status = go()
    status.files.lora.parent.mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, status.files.lora)
    with pytest.raises(InputError, match="not trained by this run"):
        status.run()


@pytest.mark.parametrize("written_by", ["another run", "version 0.1.0"])
def test_a_lora_of_another_run_is_not_overwritten(go, tmp_path, written_by):
    """Such as a student of the command line that somebody put there under this name."""
    other = go(name="other")
    other.run()
    status = go()
    if written_by == "another run":
        copyfile(other.files.folder.student, status.files.lora)
    else:
        metadata = {"danceopd": json.dumps({"recipe": {}, "digest": "0", "update": 4})}
        save_file(load_file(other.files.lora), status.files.lora, metadata)
    before = status.files.lora.read_bytes()
    with pytest.raises(InputError, match="not trained by this run"):
        status.run()
    assert status.files.lora.read_bytes() == before
    assert not status.files.path.exists()


def test_a_lora_of_version_0_1_0_is_the_runs_own_if_its_folder_has_the_same_weights(go):
    go(steps=2).run()
    run = go(steps=4).files
    save_file(load_file(run.lora), run.lora, {"danceopd": "{}"})
    go(steps=4).run()
    assert run_of_lora(run.lora) == run.folder.id != ""


def test_a_lora_that_comes_in_mid_run_is_kept_and_the_students_gets_a_further_name(go):
    status = go(save_every=2)
    progress = status.host.progress

    def intrude(value, total):
        if value == 3:
            save_file({"a": torch.zeros(1)}, status.files.lora)
        progress(value, total)

    status.host.progress = intrude
    status.run()
    assert list(load_file(status.files.lora.with_name("run.safetensors"))) == ["a"]
    assert status.files.lora.name == "run.1.safetensors"
    assert equal(student_of(status), load_file(status.files.folder.student))


def test_the_teachers_own_file_is_no_name_for_the_student(go, tmp_path):
    first = go()
    first.run()
    before = first.files.lora.read_bytes()
    link = tmp_path / "teacher.safetensors"
    link.symlink_to(first.files.lora)
    with pytest.raises(InputError, match="trained from"):
        go(teacher=str(link)).run()
    assert first.files.lora.read_bytes() == before


def test_a_run_that_is_cancelled_before_its_first_update_publishes_nothing(go):
    status = go(cancel_at=0)
    with pytest.raises(Cancelled):
        status.run()
    assert not status.files.lora.exists()
    assert not status.files.folder.student.exists()


def test_a_run_in_a_folder_that_another_process_has_is_refused(go):
    status = go()
    with RunLock(status.files.path), pytest.raises(InputError, match="in use by process"):
        status.run()
    go().run()


def test_a_deleted_state_of_a_node_run_is_refused_and_resume_off_begins_anew(go):
    go(stop_at=3).run()
    status = go()
    for state in status.files.path.glob("state*"):
        state.unlink()
    with pytest.raises(InputError, match="is gone"):
        status.run()
    anew = go(resume=False)
    anew.run()
    assert anew.files.path.with_name("run.1").exists()


def test_a_damaged_state_of_a_node_run_is_told_and_what_came_after_is_dropped(go):
    whole = go(name="whole")
    whole.run()
    with pytest.raises(Cancelled):
        go(cancel_at=3, save_every=1, validation=Validation(every=1)).run()
    status = go(validation=Validation(every=1))
    state = status.files.folder.state
    state.write_bytes(state.read_bytes()[:-1])
    status.run()
    assert any("goes on from the state before it, of update 2" in sent["message"] for sent in status.sent)
    assert [entry["update"] for entry in UpdateLines(status.files.path / "validation.jsonl").read()] == [0, 1, 2, 3, 4]
    assert [entry["update"] for entry in status.files.folder.history()] == [1, 2, 3, 4]
    assert equal(student_of(status), student_of(whole))


def test_a_run_that_the_servers_end_cut_off_counts_as_cancelled_and_goes_on(go):
    status = go(cancel_at=2)
    with pytest.raises(Cancelled):
        status.run()
    status.files.write("status.json", {**status.files.status(), "state": "training"})
    assert status.files.status()["state"] == "cancelled"
    again = go()
    again.run()
    assert min(again.host.shown) == 2


def test_when_the_page_hears_of_the_end_all_files_are_there(go):
    status = go()
    whole, send = [], status.publish

    def publish(**changes):
        if changes.get("state") == "done":
            whole.append(status.files.lora.exists() and status.files.status()["state"] == "done")
        send(**changes)

    status.publish = publish
    status.run()
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
    before = run_identity(recipe)
    assert run_identity(recipe) == before
    more.write_text("prompt\na dog\n", encoding="utf-8")
    assert run_identity(recipe) != before
