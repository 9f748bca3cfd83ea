"""What is passed to chat templates is said with the data, and holds for teachers that have nothing of their own."""

from __future__ import annotations

from pathlib import Path

import yaml

from opd.config.compose import load
from opd.teachers.local import LocalTeacher
from opd.teachers.routed import RoutedTeacher

OFF, ON = {"enable_thinking": False}, {"enable_thinking": True}


def test_a_teacher_is_shown_prompts_as_the_student_is_unless_it_has_settings_of_its_own(config: Path) -> None:
    for given, shown in (([], OFF), (["teacher.template_kwargs={enable_thinking: true}"], ON)):
        composed = load(str(config), ["data.template_kwargs={enable_thinking: false}", *given]).settled()
        assert composed.config.teacher.template_kwargs == shown
        assert composed.config.data.template_kwargs == OFF
        assert yaml.safe_load(composed.yaml)["teacher"]["template_kwargs"] == shown
    assert load(str(config), ["teacher.template_kwargs={}", "data.template_kwargs={a: 1}"]).settled().config.teacher.\
        template_kwargs == {}  # fmt: skip


def test_so_are_teachers_within_a_teacher(config: Path) -> None:
    composed = load(str(config), ["data.template_kwargs={enable_thinking: false}"])
    one = LocalTeacher(model="a")
    routed = RoutedTeacher(
        teachers={"a": one, "b": LocalTeacher(model="b", template_kwargs=ON)}, weights={"a": 1, "b": 1}
    )
    found = composed.with_parts(teacher=routed).settled().config.teacher.teachers
    assert [found[name].template_kwargs for name in "ab"] == [OFF, ON]


def test_a_recipes_teacher_does_not_think_where_its_student_does_not() -> None:
    made = load("recipes/heal/full.yaml").settled().config
    assert made.teacher.template_kwargs == made.data.template_kwargs == OFF
