"""The soak, in short: a few attacks of each kind, and what it does with those that end badly."""

import pytest

from danceopd_core.cli import main
from danceopd_core.research.soak import disk
from danceopd_core.research.soak.command import PARTS
from danceopd_core.research.soak.outcomes import BAD, DIFFERENT, FREEZE, OK, REFUSED, TRACEBACK, Counts
from danceopd_core.research.soak.parsers import ATTACKS
from danceopd_core.research.soak.trainings import WARM, growth
from danceopd_core.research.soak.worker import Case, Worker, attack

EACH = 12


@pytest.fixture(scope="module")
def worker():
    with Worker(20) as started:
        yield started


@pytest.mark.parametrize("kind", ATTACKS)
def test_hostile_files_are_taken_or_refused(kind, worker):
    found = [worker.run(Case(kind, 7, number)) for number in range(EACH)]
    assert not [(number, told) for number, (outcome, told) in enumerate(found) if outcome in BAD]


def test_an_attack_depends_on_its_numbers_alone():
    assert attack(Case("recipe", 7, 3)) == attack(Case("recipe", 7, 3))


def test_a_frozen_attack_is_ended_and_the_next_one_runs():
    with Worker(0) as impatient:
        assert impatient.run(Case("rows", 7, 0)) == (FREEZE, "more than 0 s")
        impatient.seconds = 60
        assert impatient.run(Case("rows", 7, 0)) == attack(Case("rows", 7, 0))


def test_the_table_counts_and_the_bad_ones_are_told():
    counts = Counts()
    for outcome in (OK, REFUSED, TRACEBACK, FREEZE, DIFFERENT, OK):
        counts.add("a", outcome, f"seen {outcome}")
    counts.merge("kills", {"ok": 4, "different": 1, "seed": 3})
    assert counts.bad == 4
    assert counts.table().splitlines()[2:] == [
        "| a | 2 | 1 | 1 | 1 | 1 |", "| kills | 4 | 0 | 0 | 0 | 1 |", "| all | 6 | 1 | 1 | 1 | 2 |",
    ]  # fmt: skip
    assert [told.split(": ")[2] for told in counts.told] == [
        "seen traceback", "seen freeze", "seen different", "1 of them",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("held", "grown"), [([1.0] * WARM, None), ([9.0] * WARM + [1.0] * 60, 0), ([1.0] * 40 + [1.1] * 160, 0.1)]
)
def test_memory_is_held_against_that_of_a_warm_server(held, grown):
    assert growth(held) == (grown if grown is None else pytest.approx(grown))


def test_the_command_says_what_was_bad(capsys):
    assert main(["soak", "parsers", "--kind", "rows", "--count", "2"]) == 0
    assert "| rows | " in capsys.readouterr().out
    assert main(["soak", "parsers", "--kind", "rows", "--count", "1", "--freeze", "0"]) == 1
    told = capsys.readouterr()
    assert "| rows | 0 | 0 | 0 | 1 | 0 |" in told.out
    assert "--kind 'rows' --seed 0 --first 0 --count 1" in told.err


@pytest.mark.parametrize(
    ("arguments", "told"), [(["nonsense"], ", ".join(PARTS)), (["prompts"], "--comfyui"), (["--kind", "x"], "recipe")]
)
def test_arguments_that_cannot_be_are_told(arguments, told, capsys):
    assert main(["soak", *arguments]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    "faults", [pytest.param(["removed"], marks=pytest.mark.slow), pytest.param([*disk.FAULTS], marks=pytest.mark.long)]
)
def test_runs_whose_disk_failed_are_gone_on_with(tmp_path, monkeypatch, faults):
    monkeypatch.setattr(disk, "FAULTS", {name: disk.FAULTS[name] for name in faults})
    counts = Counts()
    disk.soak_disk(counts, 0, 1, 300, tmp_path, lambda text: None)
    assert not counts.told
    assert counts.table().count("| disk: ") == len(faults)
