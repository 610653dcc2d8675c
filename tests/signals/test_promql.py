"""Queries are pinned to their namespaces, whatever these are called."""

import re

import pytest

from scaler.signals import promql
from scaler.signals.promql import Scope, literal, matcher, quoted

HOSTILE = ['a"} or vector(1) #', "a|.*", ".*", "x\\", "{}", "new\nline", "nul\x00", "ü"]


def test_one_namespace_is_an_equality_and_several_are_alternatives_in_order() -> None:
    assert matcher("namespace", ["llm"]) == 'namespace="llm"'
    assert matcher("namespace", ["b", "a", "b"]) == 'namespace=~"a|b"'


def test_kubernetes_names_need_no_escaping_so_that_prometheus_can_look_them_up() -> None:
    assert matcher("namespace", ["team-a", "team-b"]) == 'namespace=~"team-a|team-b"'


@pytest.mark.parametrize("name", HOSTILE)
def test_a_literal_matches_itself_and_nothing_else(name: str) -> None:
    pattern = re.compile(literal(name))  # the escapes mean the same to RE2 and to Python
    assert pattern.fullmatch(name)
    for other in (*HOSTILE, "llm", "", "a", "x"):
        assert bool(pattern.fullmatch(other)) == (other == name)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ('say "hi"', '"say \\"hi\\""'),
        ("back\\slash", '"back\\\\slash"'),
        ("a\nb", '"a\\u000ab"'),
        ("\x00", '"\\u0000"'),
        ("\U000e0001", '"\\U000e0001"'),
        ("ü", '"ü"'),
    ],
)
def test_string_literals(text: str, written: str) -> None:
    assert quoted(text) == written


@pytest.mark.parametrize("namespaces", [(), ("",), ("llm", "")])
def test_a_scope_that_would_see_everything_is_refused(namespaces: tuple[str, ...]) -> None:
    with pytest.raises(AssertionError):
        Scope(namespaces=namespaces)


def every_query(scope: Scope) -> list[str]:
    names = ("vllm:a", "vllm:b")
    return [
        promql.latest(names, scope, by=("model_name",)),
        promql.totals(names, scope, by=("model_name",), over=("engine",)),
        promql.sample_times(names, scope),
        promql.histogram(names, scope, window_s=60.0),
        promql.recorded(promql.TTFT_RECORDED, scope),
        promql.recorded_namespaces(scope),
        promql.gpu(("DCGM_A", "DCGM_B"), scope),
        promql.gpu_times(("DCGM_A", "DCGM_B"), scope),
    ]


def selectors(query: str) -> list[str]:
    """The text between the braces of every selector; string literals are skipped over."""
    found, inside, start, quotes = [], False, 0, False
    position = 0
    while position < len(query):
        char = query[position]
        if quotes and char == "\\":
            position += 1
        elif char == '"':
            quotes = not quotes
        elif not quotes and char == "{":
            inside, start = True, position + 1
        elif not quotes and char == "}":
            found.append(query[start:position])
            inside = False
        position += 1
    assert not inside
    assert not quotes
    return found


@pytest.mark.parametrize("name", ["llm", *HOSTILE])
def test_every_selector_of_every_query_has_the_namespace(name: str) -> None:
    scope = Scope(namespaces=(name, "other"))
    alternatives = quoted("|".join(literal(one) for one in sorted((name, "other"))))
    for query in every_query(scope):
        assert selectors(query)
        for braces in selectors(query):
            assert f"namespace=~{alternatives}" in braces


def test_a_pod_that_two_jobs_scrape_counts_once() -> None:
    query = promql.totals(("a",), Scope(namespaces=("n",)), by=("model_name",), over=("engine",))
    assert query == (
        "sum by (__name__, namespace, pod, model_name) "
        '(max by (__name__, namespace, pod, model_name, engine) (a{namespace="n"}))'
    )


def test_other_labels_for_pod_and_namespace() -> None:
    scope = Scope(namespaces=("n",), namespace_label="kubernetes_namespace", pod_label="pod_name")
    assert promql.latest(("a",), scope, by=()) == (
        'max by (__name__, kubernetes_namespace, pod_name) (a{kubernetes_namespace="n"})'
    )
    assert '"workload", "$1", "pod_name"' in promql.histogram(("a",), scope, window_s=30.0)
    assert "[30s]" in promql.histogram(("a",), scope, window_s=30.0)
