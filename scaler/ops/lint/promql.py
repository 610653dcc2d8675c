"""A reader of PromQL: enough of the grammar to see what an expression does to which series.

Grammar: prometheus/promql/parser (2.42 to 3.x).  Variables of Grafana are taken as any value.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

AGGREGATIONS = frozenset({
    "sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "topk", "bottomk",
    "count_values", "quantile", "limitk", "limit_ratio",
})  # fmt: skip
COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})
SET_OPERATORS = frozenset({"and", "or", "unless"})
_PRECEDENCE = {
    "or": 1, "and": 2, "unless": 2, "==": 3, "!=": 3, ">": 3, "<": 3, ">=": 3, "<=": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "%": 5, "atan2": 5, "^": 6,
}  # fmt: skip
_SIGN = 6  # a sign binds more loosely than ^ alone
DEPTH_MAX = 50
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 3.15e7}
_TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*' | `[^`]*`)
    | (?P<duration>(?:\d+(?:ms|[smhdwy]))+\b)
    | (?P<number>0[xX][0-9a-fA-F]+ | (?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<name>[a-zA-Z_:][\w:]*)
    | (?P<operator>==|!=|>=|<=|=~|!~|[-+*/%^=<>(){}\[\],@:])""",
    re.VERBOSE,
)
_GRAFANA = re.compile(r"\$\{\w+(?::\w+)?\}|\$\w+|\[\[\w+\]\]")


class PromqlError(Exception):
    """The text is not PromQL as this module knows it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """``label operator "value"``."""

    label: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Series by name and labels; ``range_s`` is 0 for an instant."""

    name: str
    matchers: tuple[Matcher, ...]
    range_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A number, or a text where a function takes one."""

    number: float | None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function applied to expressions."""

    function: str
    arguments: "tuple[Expression, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """An aggregation; ``by`` is None without a clause, and ``without`` inverts it."""

    operator: str
    arguments: "tuple[Expression, ...]"
    labels: tuple[str, ...] | None
    without: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    """Two expressions joined; ``on`` holds the labels of ``on`` or ``ignoring``, if any."""

    operator: str
    left: "Expression"
    right: "Expression"
    on: tuple[str, ...] = ()


Expression: TypeAlias = Selector | Value | Call | Aggregate | Binary


def parse(source: str) -> Expression:
    """The tree of an expression.

    Raises:
        PromqlError: the text is not understood, with the place where reading stopped.
    """
    parser = _Parser(_tokens(_without_variables(source)))
    tree = parser.expression(1)
    parser.end()
    return tree


def children(node: Expression) -> tuple[Expression, ...]:
    """The expressions directly inside."""
    if isinstance(node, Binary):
        return (node.left, node.right)
    if isinstance(node, Call | Aggregate):
        return node.arguments
    return ()


def walk(node: Expression) -> Iterator[Expression]:
    """The expression and all inside it, the outermost first."""
    yield node
    for child in children(node):
        yield from walk(child)


def selectors(node: Expression) -> Iterator[Selector]:
    """Every selector of an expression."""
    return (one for one in walk(node) if isinstance(one, Selector))


def names(selector: Selector) -> tuple[str, ...]:
    """The names it may match: several where ``__name__`` is matched by alternatives."""
    if selector.name:
        return (selector.name,)
    for matcher in selector.matchers:
        if matcher.label == "__name__" and matcher.operator in ("=", "=~"):
            return tuple(matcher.value.split("|"))
    return ()


def seconds(text: str) -> float:
    """Seconds of a duration such as ``1h30m``; 0 where it is none."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    return sum(float(count) * _UNITS_S[unit] for count, unit in parts)


def _without_variables(source: str) -> str:
    """Grafana's variables replaced: as durations in brackets, as names elsewhere."""
    source = re.sub(r"\[\s*(?:\$\{?\w+\}?)", "[5m", source)
    source = re.sub(r"(?<=:)\s*\$\{?\w+\}?\s*(?=\])", "1m", source)
    source = re.sub(r"\boffset\s+\$\{?\w+\}?", "offset 5m", source)
    return _GRAFANA.sub("grafana_variable", source)


def _tokens(source: str) -> list[tuple[str, str]]:
    found, place = [], 0
    while place < len(source):
        matched = _TOKEN.match(source, place)
        if matched is None:
            raise PromqlError(f"unexpected {source[place : place + 20]!r}")
        place = matched.end()
        if matched.lastgroup:
            found.append((matched.lastgroup, matched[matched.lastgroup]))
    return found


class _Parser:
    """Precedence climbing over a list of tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    def expression(self, level: int) -> Expression:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise PromqlError(f"it is nested more than {DEPTH_MAX} deep")
        left = self._unary()
        while (strength := _PRECEDENCE.get(self._peek().lower(), 0)) >= level:
            operator = self._next().lower()
            on = self._matching()
            right = self.expression(strength if operator == "^" else strength + 1)
            left = Binary(operator=operator, left=left, right=right, on=on)
        self._depth -= 1
        return left

    def end(self) -> None:
        if self._place < len(self._tokens):
            raise self._unexpected()

    def _unexpected(self) -> PromqlError:
        return PromqlError(f"unexpected {self._peek()!r}" if self._kind() else "it ends too early")

    def _peek(self) -> str:
        return self._tokens[self._place][1] if self._place < len(self._tokens) else ""

    def _kind(self) -> str:
        return self._tokens[self._place][0] if self._place < len(self._tokens) else ""

    def _next(self) -> str:
        if self._place >= len(self._tokens):
            raise PromqlError("it ends too early")
        self._place += 1
        return self._tokens[self._place - 1][1]

    def _take(self, wanted: str) -> bool:
        if self._peek().lower() != wanted or self._kind() == "string":
            return False
        self._place += 1
        return True

    def _expect(self, wanted: str) -> None:
        if not self._take(wanted):
            raise PromqlError(f"{wanted!r} is missing before {self._peek()!r}")

    def _matching(self) -> tuple[str, ...]:
        self._take("bool")
        on: tuple[str, ...] = ()
        if self._take("on") or self._take("ignoring"):
            on = self._labels()
        if (self._take("group_left") or self._take("group_right")) and self._peek() == "(":
            self._labels()
        return on

    def _labels(self) -> tuple[str, ...]:
        self._expect("(")
        found = []
        while not self._take(")"):
            found.append(self._next().strip("\"'`"))
            self._take(",")
        return tuple(found)

    def _unary(self) -> Expression:
        if self._peek() in ("-", "+") and self._kind() == "operator":
            sign = -1.0 if self._next() == "-" else 1.0
            inner = self.expression(_SIGN)
            if isinstance(inner, Value) and inner.number is not None:
                return Value(number=sign * inner.number)
            return inner
        return self._modified(self._primary())

    def _primary(self) -> Expression:
        kind, word = self._kind(), self._next()
        if kind == "number":
            return Value(number=float(int(word, 16) if word[:2].lower() == "0x" else word))
        if kind == "string":
            return Value(number=None, text=word[1:-1])
        if kind == "duration":
            return Value(number=seconds(word))
        if word == "(":
            inner = self.expression(1)
            self._expect(")")
            return inner
        if word == "{":
            return Selector(name="", matchers=self._matchers())
        if kind != "name":
            raise PromqlError(f"unexpected {word!r}")
        return self._named(word)

    def _named(self, name: str) -> Expression:
        low = name.lower()
        if low in AGGREGATIONS and self._peek().lower() in ("(", "by", "without"):
            return self._aggregate(low)
        if self._peek() == "(":
            return Call(function=low, arguments=self._arguments())
        if low in ("inf", "nan"):
            return Value(number=float(low))
        matchers = self._matchers() if self._take("{") else ()
        return Selector(name=name, matchers=matchers)

    def _aggregate(self, operator: str) -> Aggregate:
        labels: tuple[str, ...] | None = None
        without = False
        if self._peek().lower() in ("by", "without"):
            without = self._next().lower() == "without"
            labels = self._labels()
        arguments = self._arguments()
        if self._peek().lower() in ("by", "without"):
            without = self._next().lower() == "without"
            labels = self._labels()
        return Aggregate(operator=operator, arguments=arguments, labels=labels, without=without)

    def _arguments(self) -> tuple[Expression, ...]:
        self._expect("(")
        found = []
        while not self._take(")"):
            found.append(self.expression(1))
            if not self._take(",") and self._peek() != ")":
                raise self._unexpected()
        return tuple(found)

    def _matchers(self) -> tuple[Matcher, ...]:
        found = []
        while not self._take("}"):
            quoted = self._kind() == "string"
            label = self._next()
            if quoted and self._peek() in (",", "}"):  # {"metric.name", ...} of Prometheus 3
                found.append(Matcher(label="__name__", operator="=", value=label[1:-1]))
            else:
                operator = self._next()
                if operator not in ("=", "!=", "=~", "!~") or self._kind() != "string":
                    raise PromqlError(f"{label} needs an operator and a text")
                value = self._next()[1:-1]
                found.append(Matcher(label=label.strip("\"'"), operator=operator, value=value))
            self._take(",")
        return tuple(found)

    def _modified(self, node: Expression) -> Expression:
        """Ranges, subqueries, ``offset`` and ``@`` behind an expression."""
        while True:
            if self._take("["):
                range_s = seconds(self._next())
                while not self._take("]"):
                    self._next()
                if isinstance(node, Selector):
                    node = Selector(name=node.name, matchers=node.matchers, range_s=range_s)
            elif self._take("offset") or self._take("@"):
                self._take("-")
                if self._next() in ("start", "end"):
                    self._arguments()
            else:
                return node
