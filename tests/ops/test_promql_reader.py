"""The reader of PromQL under the lint."""

import pytest

from scaler.ops.lint.promql import (
    Aggregate,
    Binary,
    Call,
    PromqlError,
    Selector,
    Value,
    names,
    parse,
    seconds,
    selectors,
)
from tests.manifests.dashboards import NAMES, panels
from tests.manifests.rules import names_in, rules


def test_a_quantile_with_all_that_belongs_to_it() -> None:
    tree = parse(
        'histogram_quantile(0.95, sum by (le, pod) (rate(a:b_bucket{x=~"y}",z!="1"}[5m]))) > 10'
    )
    assert isinstance(tree, Binary)
    assert (tree.operator, tree.right) == (">", Value(number=10.0))
    assert isinstance(tree.left, Call)
    level, inner = tree.left.arguments
    assert level == Value(number=0.95)
    assert isinstance(inner, Aggregate)
    assert inner.labels == ("le", "pod")
    (selector,) = selectors(tree)
    assert (selector.name, selector.range_s) == ("a:b_bucket", 300.0)
    assert [(one.label, one.operator, one.value) for one in selector.matchers] == [
        ("x", "=~", "y}"), ("z", "!=", "1"),
    ]  # fmt: skip


def test_operators_bind_as_in_prometheus() -> None:
    tree = parse("a + b * c ^ d ^ e > 1 and on (x) f or g unless h")
    assert isinstance(tree, Binary)
    assert tree.operator == "or"
    assert isinstance(tree.left, Binary)
    assert (tree.left.operator, tree.left.on) == ("and", ("x",))
    assert isinstance(tree.right, Binary)
    assert tree.right.operator == "unless"
    compared = tree.left.left
    assert isinstance(compared, Binary)
    assert compared.operator == ">"
    added = compared.left
    assert isinstance(added, Binary)
    assert isinstance(added.right, Binary)
    power = added.right.right
    assert isinstance(power, Binary)
    assert power.operator == "^"
    assert isinstance(power.right, Binary), "a power binds to the right"


def test_the_clause_may_stand_behind() -> None:
    tree = parse("sum(a) without (pod)")
    assert isinstance(tree, Aggregate)
    assert (tree.labels, tree.without) == (("pod",), True)


@pytest.mark.parametrize(
    ("source", "read"),
    [
        ("-3", Value(number=-3.0)),
        ("0x10", Value(number=16.0)),
        ("1e3", Value(number=1000.0)),
        (".5", Value(number=0.5)),
        ("Inf", Value(number=float("inf"))),
        ("5m", Value(number=300.0)),
        ("a offset 5m", Selector(name="a", matchers=())),
        ("a[5m] @ end()", Selector(name="a", matchers=(), range_s=300.0)),
        ("a[5m:30s]", Selector(name="a", matchers=(), range_s=300.0)),
        ("a[$__rate_interval]", Selector(name="a", matchers=(), range_s=300.0)),
        ("sum # all of them\n(a)", Aggregate(operator="sum", arguments=(
            Selector(name="a", matchers=()),), labels=None)),
        ("sum", Selector(name="sum", matchers=())),
    ],
)  # fmt: skip
def test_small_things(source: str, read: object) -> None:
    assert parse(source) == read


def test_names_come_from_the_label_too() -> None:
    assert names(next(selectors(parse('{__name__=~"a|b", x="y"}')))) == ("a", "b")
    assert names(next(selectors(parse('{"a.b", x="y"}')))) == ("a.b",)
    assert names(next(selectors(parse('{x="y"}')))) == ()


@pytest.mark.parametrize(
    "source",
    ["", "sum(", "a{x=1}", "a b", "a{x}", "rate(a[5m)", "((a)", "a ;", "(" * 5000, "-" * 5000,
     "a + " * 5000, "a{"],
)  # fmt: skip
def test_what_is_not_promql_is_said_to_be_so(source: str) -> None:
    with pytest.raises(PromqlError):
        parse(source)


@pytest.mark.parametrize(("text", "expected"), [("1h30m", 5400.0), ("15s", 15.0), ("", 0.0)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_it_reads_all_that_is_shipped_and_finds_the_same_names() -> None:
    expressions = [rule["expr"] for rule in rules("record") + rules("alert")]
    for expression in expressions:
        read = {name for one in selectors(parse(expression)) for name in names(one)}
        assert read == names_in(expression), expression
    boards = [one["expr"] for name in NAMES for panel in panels(name) for one in panel["targets"]]
    assert len(expressions) + len(boards) > 120
    for expression in boards:
        assert list(selectors(parse(expression))), expression
