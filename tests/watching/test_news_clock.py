"""Ages of news when the clock of the machine that trains is right, ahead or behind."""

from collections.abc import Callable
from typing import Any

import pytest

from g2sd_deploy.watching.news_clock import NewsClock

At = Callable[[float], str]


@pytest.fixture
def news(clock: Any) -> NewsClock:
    return NewsClock(clock.now, clock.tick)


def test_news_that_was_there_at_the_first_look_is_as_old_as_it_says(news: NewsClock, clock: Any, at: At) -> None:
    clock.now_s = 720
    row = {"time": at(0)}
    news.hear(row)
    assert news.age_of_row_s(row) == pytest.approx(720)
    clock.wait(5)
    news.hear(row)
    assert news.age_of_row_s(row) == pytest.approx(725)


@pytest.mark.parametrize("ahead_s", [-3600, 0, 3600])
def test_news_that_appears_while_one_looks_on_is_new_whatever_its_clock_says(ahead_s: float, news: NewsClock, clock: Any, at: At) -> None:
    news.hear({"time": at(ahead_s)})
    clock.wait(10)
    row = {"time": at(ahead_s + 10)}
    news.hear(row)
    assert news.age_of_row_s(row) == pytest.approx(0)
    clock.wait(4)
    assert news.age_of_row_s(row) == pytest.approx(4)
    assert news.age_s(None) is None


def test_no_age_is_negative(news: NewsClock, clock: Any, at: At) -> None:
    row = {"time": at(500)}  # from the future
    news.hear(row)
    assert news.age_of_row_s(row) == 0
    assert news.age_of_file_s(clock.now().timestamp() + 99) == 0
    assert news.remark == "the clock of the machine that trains is 500 s ahead of this one's"


def test_a_clock_that_is_behind_is_known_once_news_comes_and_corrects_other_ages(news: NewsClock, clock: Any, at: At) -> None:
    clock.now_s = 3600  # the other machine's clock says 0
    news.hear({"time": at(0)})
    assert news.remark == "", "the news may as well be an hour old"
    clock.wait(2)
    news.hear({"time": at(2)})
    assert news.remark == "the clock of the machine that trains is 60 min 0 s behind this one's"
    begun = clock.now().replace(minute=0, second=0, hour=12)  # 2 s ago by that machine's clock
    assert news.age_s(begun) == pytest.approx(2)


def test_rows_without_a_time_have_no_age(news: NewsClock, at: At) -> None:
    news.hear(None)
    news.hear({"step": 3})
    assert news.age_of_row_s({"step": 3}) is None
    news.hear({"time": "yesterday"})
    assert news.age_of_row_s({"time": "yesterday"}) is None
    news.hear({"time": at(0)})
    assert news.age_of_row_s({"time": at(-10)}) is None, "not the newest"
