"""Probes that kill loading pods, and pods that cut their answers short (mistakes 13, 14)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from scaler.ops.lint.bundle import Bundle, Server
from scaler.ops.lint.model import Finding, Place, Rule, Severity, found
from scaler.ops.lint.nodes import at, items, mapping, number, text

KILLS = Rule(
    id="liveness-kills-loading",
    mistake=13,
    severity=Severity.ERROR,
    says="the port is closed while the model loads, so this probe kills pods that load",
    fix="a startupProbe on /health whose failureThreshold x periodSeconds exceeds any cold start",
)
NO_STARTUP = Rule(
    id="no-startup-probe",
    mistake=13,
    severity=Severity.WARNING,
    says="without a startupProbe a delay is guessed: too short for some, too long for other starts",
    fix="a startupProbe on /health, and no initialDelaySeconds",
)
SHORT_STARTUP = Rule(
    id="startup-probe-too-short",
    mistake=13,
    severity=Severity.WARNING,
    says="a pod that loads for longer is killed",
    fix="failureThreshold x periodSeconds of 900 s and more; 1800 s for large models",
    heuristic=True,
)
NO_READINESS = Rule(
    id="no-readiness-probe",
    mistake=13,
    severity=Severity.ERROR,
    says="requests are sent to a pod whose port is still closed",
    fix="a readinessProbe on /health, every 5 s",
)
NOT_HEALTH = Rule(
    id="probe-not-health",
    mistake=13,
    severity=Severity.WARNING,
    says="the probe does not ask whether the engine lives",
    fix="httpGet /health",
)
SHORT_TIMEOUT = Rule(
    id="probe-timeout",
    mistake=13,
    severity=Severity.WARNING,
    says="one second is short for a busy process: pods leave the Service under load, or are killed",
    fix="timeoutSeconds: 5 for readiness, 10 for liveness",
)
POST_START = Rule(
    id="post-start-request",
    mistake=13,
    severity=Severity.ERROR,
    says="a postStart hook that fails kills the container, and nothing listens yet",
    fix="warm up in a sidecar or in a readiness gate",
)
NO_DRAIN = Rule(
    id="no-shutdown-timeout",
    mistake=14,
    severity=Severity.ERROR,
    says="SIGTERM aborts all requests at once: clients see short answers that look complete",
    fix="--shutdown-timeout=300 (vLLM 0.18 or newer), and a grace period that covers it",
)
SHORT_GRACE = Rule(
    id="grace-too-short",
    mistake=14,
    severity=Severity.ERROR,
    says="the pod is killed before its requests are done",
    fix="terminationGracePeriodSeconds >= preStop + --shutdown-timeout + 15",
)
NO_PRE_STOP = Rule(
    id="no-pre-stop",
    mistake=14,
    severity=Severity.WARNING,
    says="new requests still arrive while the server drains, and it answers them with 500",
    fix="lifecycle.preStop: sleep 15, so that endpoints are removed first",
)
SHELL = Rule(
    id="shell-takes-signal",
    mistake=14,
    severity=Severity.WARNING,
    says="SIGTERM goes to the shell, which does not pass it on",
    fix="exec vllm serve ...",
    heuristic=True,
)
API_SERVERS = Rule(
    id="drain-with-api-servers",
    mistake=14,
    severity=Severity.WARNING,
    says="with several API servers draining loses all requests (vLLM 0.32.0)",
    fix="--api-server-count=1 where graceful draining matters",
)
SERVICE_LINKS = Rule(
    id="service-named-vllm",
    mistake=0,
    severity=Severity.ERROR,
    says="a Service named vllm sets VLLM_PORT=tcp://... in pods, and vLLM reads VLLM_PORT",
    fix="enableServiceLinks: false, or another name",
)
RULES = (
    KILLS, NO_STARTUP, SHORT_STARTUP, NO_READINESS, NOT_HEALTH, SHORT_TIMEOUT, POST_START,
    NO_DRAIN, SHORT_GRACE, NO_PRE_STOP, SHELL, API_SERVERS, SERVICE_LINKS,
)  # fmt: skip
LIVENESS_BUDGET_S = 600.0
STARTUP_BUDGET_S = 300.0
LEAVE_S = 10.0  # the process exits up to 10 s after its last request
GRACE_DEFAULT_S = 30.0


def check(bundle: Bundle) -> Iterator[Finding]:
    """Findings on every server that answers requests."""
    for server in bundle.servers:
        if server.answers:
            yield from _startup(server)
            yield from _readiness(server)
            yield from _timeouts(server)
            yield from _drain(server)
            yield from _grace(server)
            yield from _links(bundle, server)
        yield from _post_start(server)


def _budget_s(probe: Mapping[str, Any]) -> float:
    """How long a container may fail a probe from its start on."""
    period_s, failures = number(probe, "periodSeconds"), number(probe, "failureThreshold")
    delay_s = number(probe, "initialDelaySeconds") or 0.0
    return delay_s + (period_s or 10.0) * (failures or 3.0)


def _startup(server: Server) -> Iterator[Finding]:
    startup = mapping(server.container, "startupProbe")
    liveness = mapping(server.container, "livenessProbe")
    if startup:
        if _budget_s(startup) < STARTUP_BUDGET_S:
            place = server.place.below("startupProbe")
            yield found(SHORT_STARTUP, place, f"gives up after {_budget_s(startup):g} s")
    elif liveness and _budget_s(liveness) < LIVENESS_BUDGET_S:
        evidence = f"no startupProbe, and killed after {_budget_s(liveness):g} s"
        yield found(KILLS, server.place.below("livenessProbe"), evidence)
    else:
        delay_s = number(server.container, "readinessProbe", "initialDelaySeconds") or 0.0
        said = f", readiness is first asked after {delay_s:g} s" if delay_s else ""
        yield found(NO_STARTUP, server.place, f"startupProbe is missing{said}")


def _readiness(server: Server) -> Iterator[Finding]:
    probe = mapping(server.container, "readinessProbe")
    place = server.place.below("readinessProbe")
    path = text(probe, "httpGet", "path")
    if not probe:
        yield found(NO_READINESS, place, "readinessProbe is missing")
    elif "tcpSocket" in probe:
        yield found(NOT_HEALTH, place, "tcpSocket")
    elif path and path.rstrip("/") not in ("/health", "/ping"):
        yield found(NOT_HEALTH, place, path)


def _timeouts(server: Server) -> Iterator[Finding]:
    for key in ("livenessProbe", "readinessProbe"):
        probe = mapping(server.container, key)
        timeout_s = number(probe, "timeoutSeconds")
        if probe and (timeout_s is None or timeout_s <= 1.0):
            said = "missing: 1 s" if timeout_s is None else f"{timeout_s:g} s"
            yield found(SHORT_TIMEOUT, server.place.below(key), f"timeoutSeconds {said}")


def _post_start(server: Server) -> Iterator[Finding]:
    hook = at(server.container, "lifecycle", "postStart")
    words = " ".join(map(str, items(hook, "exec", "command")))
    if "httpGet" in mapping(hook) or re.search(r"curl|wget|requests\.|urlopen|https?://", words):
        place = server.place.below("lifecycle.postStart")
        yield found(POST_START, place, words[:120] or "httpGet")


def _drain(server: Server) -> Iterator[Finding]:
    line, args = server.line, server.place.below("args")
    written = line.value("--shutdown-timeout")
    if written is None or line.number("--shutdown-timeout") == 0.0:
        seen = bool(line.flags or line.positional or server.release)
        evidence = f"--shutdown-timeout is {'missing' if written is None else written}"
        unseen = f"{evidence}, as far as is seen: the image starts vLLM by itself"
        yield found(
            NO_DRAIN,
            args,
            evidence if seen else unseen,
            severity=None if seen else Severity.WARNING,
        )
    elif (line.whole("--api-server-count") or 1) > 1:
        yield found(API_SERVERS, args, f"--api-server-count {line.value('--api-server-count')}")
    if not line.replaces_shell:
        yield found(SHELL, args, line.script[:120])
    if not mapping(server.container, "lifecycle", "preStop"):
        yield found(NO_PRE_STOP, server.place.below("lifecycle"), "preStop is missing")


def _pre_stop_s(server: Server) -> float:
    """Seconds that a preStop hook sleeps, 0 where it does something else."""
    hook = mapping(server.container, "lifecycle", "preStop")
    command = " ".join(str(word) for word in items(hook, "exec", "command"))
    slept = re.search(r"\bsleep\s+(\d+)", command)
    return number(hook, "sleep", "seconds") or (float(slept[1]) if slept else 0.0)


def _grace(server: Server) -> Iterator[Finding]:
    given = number(server.template.body, "spec", "terminationGracePeriodSeconds")
    grace_s = GRACE_DEFAULT_S if given is None else given
    timeout_s = server.line.number("--shutdown-timeout") or 0.0
    needed_s = _pre_stop_s(server) + timeout_s + LEAVE_S
    if grace_s < needed_s:
        place: Place = server.template.place.below("terminationGracePeriodSeconds")
        evidence = (
            f"{grace_s:g} s, while preStop takes {_pre_stop_s(server):g} s, draining up to "
            f"{timeout_s:g} s and leaving {LEAVE_S:g} s"
        )
        yield found(SHORT_GRACE, place, evidence)


def _links(bundle: Bundle, server: Server) -> Iterator[Finding]:
    if at(server.template.body, "spec", "enableServiceLinks") is False:
        return
    for service in bundle.of_kind("Service"):
        if service.name == "vllm" and text(service.body, "spec", "clusterIP") != "None":
            evidence = f"Service/vllm in {service.file}, enableServiceLinks not false"
            yield found(SERVICE_LINKS, server.template.place, evidence)
