"""Laws of the public names: all load, are listed and documented, cost nothing before their use, and work as shown."""

import doctest
import inspect
import subprocess
import sys

import pytest

import danceopd_core

NAMES = danceopd_core.__all__


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_loads_and_is_documented(name):
    value = getattr(danceopd_core, name)
    if inspect.isclass(value) or inspect.isfunction(value):
        assert value.__name__ == name
        assert value.__module__.startswith("danceopd_core.")
        # A dataclass without a docstring gets its signature for one.
        assert value.__doc__
        assert not value.__doc__.startswith(f"{name}(")


def test_every_public_name_comes_from_the_module_that_defines_it():
    for name, module in danceopd_core._MODULES.items():
        value = getattr(danceopd_core, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__ == f"danceopd_core.{module}"


def test_the_public_names_are_listed_once():
    assert set(NAMES) <= set(dir(danceopd_core))
    assert len(NAMES) == len(set(NAMES)) == sum(map(len, danceopd_core._EXPORTS.values()))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Trainers'"):
        danceopd_core.Trainers  # noqa: B018


def test_importing_the_package_imports_no_torch():
    code = "import sys, danceopd_core; dir(danceopd_core); print({'torch', 'numpy', 'diffusers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_example_of_the_docstring_runs():
    results = doctest.testmod(danceopd_core)
    assert results.attempted > 5
    assert results.failed == 0
