"""Whose call it is: names, sizes, secrets, and the memory of parsed calls."""

from collections.abc import Mapping

import pytest

from scaler.config import ProfileConfig, ScalerConfig
from scaler.errors import ConfigError
from scaler.service import identity
from scaler.service.board import TriggerKey
from scaler.service.identity import KeyCache, key_parser, name_faults, size_faults, without_secrets

LONGEST_LABEL = "a" * 63


@pytest.mark.parametrize(
    ("namespace", "name"),
    [("llm", "chat"), (LONGEST_LABEL, "a" * 253), ("a-1", "a.b-c.d"), ("0", "0")],
)
def test_names_that_kubernetes_takes_are_taken(namespace: str, name: str) -> None:
    assert name_faults(namespace, name) == []


@pytest.mark.parametrize(
    "namespace", ["", "A", "a.b", "-a", "a-", f"{LONGEST_LABEL}a", 'x"}', "a\n", "é", "a/b"]
)
def test_other_namespaces_are_refused_by_value(namespace: str) -> None:
    (fault,) = name_faults(namespace, "chat")
    assert fault.startswith("namespace = '")


@pytest.mark.parametrize("name", ["", "a..b", ".a", "a.", "a" * 254, "a\n", "A", "a_b", 'a",b="'])
def test_other_names_are_refused_by_value(name: str) -> None:
    (fault,) = name_faults("llm", name)
    assert fault.startswith("name = '")
    assert len(fault) < 200


def test_sizes_are_bounded() -> None:
    assert size_faults({"k" * 253: "v"}) == []
    assert "253" in size_faults({"k" * 254: "v"})[0]
    assert "at most 128" in size_faults({str(number): "" for number in range(129)})[0]
    assert "at most 16384" in size_faults({"k": "v" * 16384})[0]  # 1 + 16384 characters


def test_values_from_the_environment_are_hidden_and_others_kept() -> None:
    metadata = {"aFromEnv": "s3cret", "b": "open", "cFromEnv": "7"}
    fault = without_secrets("a = 's3cret', c = '7', 17 must be open; s3cret", metadata)
    assert fault == (
        "a = <value of aFromEnv>, c = <value of cFromEnv>, 17 must be open; <value of aFromEnv>"
    )


class Parser:
    """Names a key after the call and counts; refuses what is called bad."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, namespace: str, name: str, metadata: Mapping[str, str]) -> TriggerKey:
        self.calls += 1
        if name == "bad":
            raise ConfigError("one", "two")
        return TriggerKey(namespace=namespace, name=name, metadata=tuple(sorted(metadata.items())))


def test_a_call_is_parsed_once_in_any_order_of_its_metadata() -> None:
    parser = Parser()
    cache = KeyCache(parser)
    first = cache.key("llm", "a", {"x": "1", "y": "2"})
    assert cache.key("llm", "a", {"y": "2", "x": "1"}) is first
    assert cache.key("llm", "a", {"x": "2", "y": "1"}) != first
    assert parser.calls == 2
    cache.clear()
    assert cache.key("llm", "a", {"x": "1", "y": "2"}) == first
    assert parser.calls == 3


def test_faults_are_remembered_too() -> None:
    parser = Parser()
    cache = KeyCache(parser)
    for _call in range(3):
        with pytest.raises(ConfigError) as caught:
            cache.key("llm", "bad", {})
        assert caught.value.faults == ("one", "two")
    assert parser.calls == 1


def test_the_memory_is_bounded_and_keeps_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "CACHED_CALLS_MAX", 2)
    parser = Parser()
    cache = KeyCache(parser)
    for name in ("a", "b", "a", "c", "a"):  # b is the one not used lately when c comes
        cache.key("llm", name, {})
    assert parser.calls == 3
    cache.key("llm", "b", {})
    assert parser.calls == 4


def test_large_calls_are_not_remembered() -> None:
    parser = Parser()
    cache = KeyCache(parser)
    large = {"k": "v" * identity.CACHED_CHARS_MAX}
    cache.key("llm", "a", large)
    cache.key("llm", "a", large)
    assert parser.calls == 2


def test_faults_that_are_large_together_are_not_remembered() -> None:
    # A hundred unknown keys bring a hundred faults of a kilobyte or more: 8192 such calls would
    # take a gigabyte.
    parse = key_parser(ScalerConfig)
    calls: list[int] = []

    def counted(namespace: str, name: str, metadata: Mapping[str, str]) -> TriggerKey:
        calls.append(1)
        return parse(namespace, name, metadata)

    cache = KeyCache(counted)
    for _call in range(2):
        with pytest.raises(ConfigError):
            cache.key("llm", "a", {f"unknown{number}": "v" for number in range(100)})
    assert len(calls) == 2
    for _call in range(2):
        with pytest.raises(ConfigError):
            cache.key("llm", "a", {"unknown": "v"})
    assert len(calls) == 3  # one fault of an honest mistake is remembered


def test_the_daemons_parser_reads_the_configuration_at_each_call() -> None:
    configs = [ScalerConfig()]
    parse = key_parser(lambda: configs[-1])
    with pytest.raises(ConfigError, match="profile = 'chat'"):
        parse("llm", "a", {"profile": "chat"})
    configs.append(ScalerConfig(profiles={"chat": ProfileConfig()}))
    assert parse("llm", "a", {"profile": "chat"}).metadata == (("profile", "chat"),)
