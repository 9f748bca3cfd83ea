"""No teacher: nothing is promised and nothing is said."""

from __future__ import annotations

from opd.needs import Needs, Provides
from opd.teachers.none import NoTeacher
from opd.teaching import Pupil, Teacher
from tests.tiny import char_tokenizer, rollouts


def test_it_provides_nothing_and_says_nothing_of_any_token() -> None:
    teacher = NoTeacher()
    assert isinstance(teacher, Teacher)
    assert teacher.provides == Provides()
    assert teacher.checkpoint() is None
    items = rollouts([(2, 3), (1, 0)])
    scorer = teacher.start(Pupil(char_tokenizer(), 45))
    judged = scorer.score(items, Needs())
    assert [len(j.logprobs) for j in judged] == [3, 0]
    assert all(j.logprobs.isnan().all() and j.state is None for j in judged)
    assert scorer.read([r.prompt for r in items]) == [r.prompt.tokens for r in items]
    assert scorer.notes([r.prompt for r in items]) == []
    scorer.close()
