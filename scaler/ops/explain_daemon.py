"""What a running daemon says of a target, over its HTTP API."""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import msgspec

from scaler.core.config import PolicyConfig
from scaler.core.explain_counterfactual import Basis
from scaler.core.memory import PolicyState
from scaler.core.model import Decision
from scaler.errors import ConfigError, SignalError
from scaler.ops.explain import Moment
from scaler.service.codec import decode

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 << 20


def fetched(url: str, path: str) -> Any:
    """The JSON that the daemon at ``url`` answers to ``path``.

    Raises:
        ConfigError: ``url`` is none of HTTP, or the daemon knows no such target.
        SignalError: it does not answer, or not with JSON.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"--url = {url}, must be http://HOST:PORT of the daemon")
    address = url.rstrip("/") + path
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:  # noqa: S310 - checked
            return json.loads(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        said = error.read(1000).decode(errors="replace").strip()
        if error.code == 404:
            raise ConfigError(f"{address}: {said}") from error
        raise SignalError(f"{address} answered {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SignalError(f"{address} does not answer: {reason}") from error


def target_detail(url: str, target: str, trigger: str | None = None) -> dict[str, Any]:
    """All that the daemon tells of ``target``, with what its latest decision was made from.

    Raises:
        ConfigError: there is no such target.
        SignalError: the daemon does not answer, or not as ours does.
    """
    query = urllib.parse.urlencode({"basis": "1", **({"trigger": trigger} if trigger else {})})
    found = fetched(url, f"{_path(target)}?{query}")
    if not isinstance(found, dict) or "decision" not in found:
        raise SignalError(f"{url} answers, but not as the daemon does")
    return found


def _path(target: str) -> str:
    namespace, _, name = target.partition("/")
    if not namespace or not name:
        raise ConfigError(f"target = {target!r}, must be NAMESPACE/NAME")
    parts = "/".join(urllib.parse.quote(part, safe="") for part in (namespace, name))
    return f"/api/targets/{parts}"


def remembered(url: str, target: str, at_s: float, trigger: str | None = None) -> dict[str, Any]:
    """What the daemon remembers of the decision that stood at ``at_s``: its arithmetic.

    Raises:
        ConfigError: it remembers nothing of that time; the message says where it is to be had.
        SignalError: the daemon does not answer.
    """
    query = urllib.parse.urlencode({"at": repr(at_s), **({"trigger": trigger} if trigger else {})})
    found = fetched(url, f"{_path(target)}?{query}")
    if not isinstance(found, dict) or "explanation" not in found:
        raise SignalError(f"{url} answers, but not as the daemon does")
    return found


def latest(detail: dict[str, Any]) -> Moment:
    """The latest decision; its basis is None of a daemon that does not tell it.

    Raises:
        SignalError: nothing was decided yet, or it cannot be read.
    """
    if detail["decision"] is None:
        raise SignalError("the daemon has not decided on this target yet")
    decision = decode(Decision, msgspec.json.encode(detail["decision"]))
    told = detail.get("basis")
    if told is None:
        return Moment(decision=decision, basis=None)
    basis = Basis(
        observation=decision.observation,
        state=decode(PolicyState, msgspec.json.encode(told["state"])),
        config=decode(PolicyConfig, msgspec.json.encode(told["policy"])),
        now_s=decision.at_s,
    )
    return Moment(decision=decision, basis=basis)
