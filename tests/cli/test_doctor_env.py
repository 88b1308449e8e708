"""What an install of the pack would do to a Python is told from the requirements alone."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from danceopd_core.cli import doctor_env
from danceopd_core.cli.parser import main

NEEDS = [Requirement("transformers>=4.57.1"), Requirement("diffusers>=0.36")]


def told(monkeypatch, capsys, **found):
    monkeypatch.setattr(doctor_env, "own_requirements", lambda: NEEDS)
    monkeypatch.setattr(doctor_env, "findings", lambda needs, all=doctor_env.findings: all(needs, found.get))
    status = main(["doctor-env"])
    return status, capsys.readouterr().out.splitlines()


def test_where_all_floors_are_met_nothing_would_change(monkeypatch, capsys):
    status, lines = told(monkeypatch, capsys, transformers="4.57.1", diffusers="0.37.0.dev0")
    assert status == 0
    assert lines[-1] == "nothing would change"
    assert [line.split() for line in lines[2:-1]] == [
        ["transformers", ">=4.57.1", "4.57.1", "stays"],
        ["diffusers", ">=0.36", "0.37.0.dev0", "stays"],
    ]


def test_what_is_older_or_missing_is_told_with_its_range(monkeypatch, capsys):
    status, lines = told(monkeypatch, capsys, transformers="4.49.0")
    assert status == 1
    assert lines[-1] == "2 would change: transformers, diffusers"
    assert lines[2].endswith("4.49.0     would become >=4.57.1")
    assert lines[3].endswith("-          missing: would be added, >=0.36")


def test_a_distribution_tells_its_requirements_without_those_of_its_extras(monkeypatch):
    monkeypatch.setattr(doctor_env, "requires", lambda name: ["diffusers>=0.36", 'pytest>=8; extra == "test"'])
    assert [need.name for need in doctor_env.own_requirements()] == ["diffusers"]


def test_a_checkout_tells_those_of_its_requirements_file(monkeypatch):
    def nowhere(name):
        raise doctor_env.PackageNotFoundError(name)

    monkeypatch.setattr(doctor_env, "requires", nowhere)
    names = {need.name for need in doctor_env.own_requirements()}
    assert {"diffusers", "transformers", "accelerate"} <= names
    assert "torch" not in names


@pytest.mark.parametrize("heavy", ["torch", "diffusers", "transformers", "numpy"])
def test_it_runs_where_the_packages_do_not_import(heavy):
    code = f"import sys; sys.modules[{heavy!r}] = None\nfrom danceopd_core.cli.parser import main\nmain(['doctor-env'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "diffusers" in done.stdout
