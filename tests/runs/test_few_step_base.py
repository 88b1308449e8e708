"""A student over a base of few steps learns on the base's own path and keeps its few steps."""

import pytest

from danceopd_core.models.registry import open_backbone
from danceopd_core.shapes import MODEL

from .few_step_world import KEPT, LIT, distance, lit, made_to_two_steps, scored, trained

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not (MODEL / "model_index.json").is_file(), reason="needs the embedded model's weights"),
]


def test_a_student_over_a_base_of_two_steps_learns_and_keeps_them():
    base = made_to_two_steps()
    assert scored(base) > scored(open_backbone(MODEL)) + 0.15  # it is one of few steps
    student, teacher = trained(base), lit(base)
    assert scored(student) > scored(base) - 0.05
    learned, start = distance(student, teacher, LIT), distance(base, teacher, LIT)
    assert learned < 0.8 * start
    assert distance(student, base, KEPT) < learned
