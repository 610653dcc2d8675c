"""What ``maker`` makes is what the class makes, and as frozen."""

from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from scaler.core.made import changer, gatherer, maker


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    first: float
    second: tuple[int, ...] = (1,)
    third: list[int] = field(default_factory=list)


make_noun = maker(Noun)


def test_made_is_what_the_class_makes() -> None:
    made = make_noun(first=0.5, second=(2, 3), third=[4])
    assert made == Noun(first=0.5, second=(2, 3), third=[4])
    assert type(made) is Noun
    assert repr(made) == "Noun(first=0.5, second=(2, 3), third=[4])"


def test_defaults_are_those_of_the_class() -> None:
    assert make_noun(first=0.5, third=[]) == Noun(first=0.5)


def test_made_is_frozen() -> None:
    made = make_noun(first=0.5, third=[])
    with pytest.raises(FrozenInstanceError):
        made.first = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("given", [{}, {"first": 1.0}, {"first": 1.0, "third": [], "fourth": 2}])
def test_a_field_without_a_default_must_be_given_and_no_other_may(given: dict[str, float]) -> None:
    """``third`` has a factory, which ``maker`` does not call."""
    with pytest.raises(TypeError):
        make_noun(**given)  # type: ignore[arg-type]


def test_what_cannot_be_made_is_refused() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Checked:
        first: float

        def __post_init__(self) -> None:
            assert self.first > 0.0

    with pytest.raises(AssertionError):
        maker(Checked)


def test_changed_is_what_replace_makes_of_a_noun() -> None:
    change = changer(Noun)
    first = make_noun(first=0.5, second=(2, 3), third=[4])
    assert change(first, second=(5,)) == replace(first, second=(5,))
    assert change(first, first=1.5, third=[]) == Noun(first=1.5, second=(2, 3))
    assert change(first) == first
    assert first == Noun(first=0.5, second=(2, 3), third=[4]), "a change makes another noun"
    assert type(change(first)) is Noun
    with pytest.raises(FrozenInstanceError):
        change(first).first = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        change(first, fourth=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    second: tuple[int, ...]
    third: list[int]
    first: float = 9.0  # not taken over


def test_gathered_is_what_the_class_makes_of_parts_and_keywords() -> None:
    gather = gatherer(Noun, ("second",), ("third",))
    one, other = Part(second=(2,), third=[1]), Part(second=(3,), third=[4])
    assert gather(one, other, first=0.5) == Noun(first=0.5, second=(2,), third=[4])
    assert type(gather(one, other, first=0.5)) is Noun
    with pytest.raises(TypeError):
        gather(one, other)  # ``first`` has no default, and is none of the parts'
    with pytest.raises(TypeError):
        gather(one, other, first=0.5, second=(5,))
    with pytest.raises(TypeError):
        gatherer(Noun, ("third",))(one, first=0.5)  # ``second`` is forgotten, and has a default


@pytest.mark.parametrize("parts", [(("second",), ("second",)), (("fourth",),)])
def test_what_is_taken_over_is_one_field_each(parts: tuple[tuple[str, ...], ...]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        gatherer(Noun, *parts)
