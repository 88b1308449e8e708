"""How long the properties are looked for: DANCEOPD_HYPOTHESIS=long takes minutes and other examples each time."""

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
settings.register_profile("short", max_examples=40, derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile("long", max_examples=1500, derandomize=False, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("DANCEOPD_HYPOTHESIS", "short"))
