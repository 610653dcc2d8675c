"""The daemons and the way to them: address, answers, permissions, clocks, certificates."""

from collections.abc import Iterator, Sequence

from scaler.core.model import NoData
from scaler.ops.doctor.evidence import Called, Cluster, Evidence, Peer, Row, Target, Unseen
from scaler.ops.doctor.findings import at, of, rule, unchecked
from scaler.ops.lint.model import Finding, Place, Severity, found
from scaler.service.board import METRIC_NAME

_E, _W, _I = Severity.ERROR, Severity.WARNING, Severity.INFO
NO_PERMISSION = rule(
    "permission-missing", _E, "the daemon cannot read or write what it needs",
    "kubectl apply -k manifests/scaler (component rbac-cluster or rbac-namespaced)",
)  # fmt: skip
CLOCK = rule(
    "clock-skew", _W, "ages are wrong by as much", "synchronise the clocks by NTP (chrony)",
)  # fmt: skip
TLS = rule(
    "certificate", _E, "TLS fails, or will when the certificate ends",
    "renew the certificate, or correct the CA file",
)  # fmt: skip
NO_SERVICE = rule(
    "scaler-address-wrong", _E, "KEDA calls an address behind which no scaler is",
    "scalerAddress: vllm-scaler.vllm-scaler.svc:9090",
)  # fmt: skip
NO_ANSWER = rule(
    "scaler-does-not-answer", _E, "KEDA gets an error and holds the replicas",
    "read the message; kubectl logs of the daemon tells the same",
)  # fmt: skip
WRONG_ANSWER = rule(
    "scaler-answers-wrongly", _E, "the HPA cannot use this answer",
    "check that the address is this scaler's gRPC port and not another service",
)  # fmt: skip
SLOW = rule(
    "scaler-slow", _W, "KEDA sets no deadline: slow answers hold up its workers",
    "give the daemon CPU; a daemon answers within milliseconds",
)  # fmt: skip
DISAGREE = rule(
    "daemons-disagree", _E, "KEDA's next call may get another number",
    "check state.lease_name, state.peer_address and the network between the daemons",
)  # fmt: skip
PEER_DOWN = rule(
    "daemon-unreachable", _E, "this daemon does not answer on its HTTP port", "check --url",
)  # fmt: skip
PEER_UNREADY = rule(
    "daemon-not-ready", _E, "the daemon has no decision to answer from", "read its log",
)  # fmt: skip
LEADERS = rule(
    "leaders", _E, "exactly one daemon must decide",
    "set state.lease_name and state.peer_address of every daemon alike",
)  # fmt: skip
UNKNOWN_TARGET = rule(
    "target-unknown-to-daemon", _E, "the daemon does not collect for this target",
    "set kubernetes.service_names to the host of scalerAddress, check kubernetes.namespaces",
)  # fmt: skip
BAD_STATUS = rule(
    "daemon-sees-nothing", _E, "the count is held: the daemon has nothing to decide from",
    "mend the signals that the evidence names",
)  # fmt: skip
PARTLY_BLIND = rule(
    "daemon-partly-blind", _W, "decided without these signals",
    "mend what the causes name; scaler explain tells what each would have proposed",
)  # fmt: skip
OTHER_VIEW = rule(
    "daemon-sees-otherwise", _E, "here the same collection works: the daemon runs with other "
    "settings or cannot reach what this can",
    "compare scaler serve --print-config in the pod; check its network policy and tokens",
)  # fmt: skip
COUNT_DIFFERS = rule(
    "ready-differs", _W, "the daemon counts other pods than the API has",
    "run again; if it stays, the daemon's watch is stale: check permission-missing",
)  # fmt: skip
_SKEW_WARN_S, _SKEW_BAD_S = 2.0, 30.0
_DAY_S = 86400.0
_NO_FAULT = ("never", "unsupported")  # causes of a daemon that is new, of an engine without it
_HELD = ("unknown", "floored", "held", "faulty")


def check(evidence: Evidence) -> Iterator[Finding]:
    """Findings of permissions, clocks, certificates, addresses and daemons."""
    if isinstance(evidence.cluster, Cluster):
        yield from _access(evidence.cluster, evidence.account)
        yield from _addresses(evidence.cluster)
        yield from _skew(at("cluster", "Kubernetes API"), evidence.cluster.ahead_s)
    for source in evidence.sources:
        if not source.fault and source.namespaces:
            yield from _skew(at("source", f"{source.name} {source.url}"), source.ahead_s)
    yield from _certificates(evidence)
    for target in evidence.targets:
        if target.called is not None:
            yield from _called(target, target.called)
    if isinstance(evidence.peers, Unseen):
        yield unchecked(at("daemon", "HTTP port"), "what the daemons see", evidence.peers)
        return
    yield from _peers(evidence.peers)
    for target in evidence.targets:
        yield from _views(target, evidence.peers)


def _access(cluster: Cluster, account: str) -> Iterator[Finding]:
    who = f"system:serviceaccount:{account}" if account else "whoever runs this"
    for one in cluster.access:
        group = f".{one.group}" if one.group else ""
        named = f"{one.resource}{group}{f' {one.name}' if one.name else ''}"
        where = f" in {one.namespace}" if one.namespace else ""
        place = at("cluster", "RBAC", f"{one.verb} {named}{where}")
        if isinstance(one.allowed, Unseen):
            yield unchecked(place, "permission", one.allowed)
        elif not one.allowed:
            text = f"{who} may not {one.verb} {named}{where}"
            yield found(NO_PERMISSION, place, text, severity=_E if one.needed else _W)


def _addresses(cluster: Cluster) -> Iterator[Finding]:
    for one in cluster.services:
        place = at("cluster", f"scalerAddress {one.address}")
        port = one.address.rpartition(":")[2]
        if one.missing:
            yield found(NO_SERVICE, place, "there is no Service of this name")
        elif isinstance(one.ports, Unseen):
            yield unchecked(place, "the Service", one.ports)
        elif port not in {str(known) for known in one.ports}:
            ports = ", ".join(str(known) for known in one.ports) or "none"
            fix = f"use one of the Service's ports: {ports} (gRPC is 9090)"
            yield found(NO_SERVICE, place, f"port {port}; the Service has {ports}", fix=fix)


def _skew(place: Place, ahead_s: float | Unseen) -> Iterator[Finding]:
    if isinstance(ahead_s, Unseen):
        yield unchecked(place, "the clock", ahead_s)
    elif abs(ahead_s) > _SKEW_WARN_S:
        severity = _E if abs(ahead_s) > _SKEW_BAD_S else _W
        yield found(CLOCK, place, f"{ahead_s:+.1f} s against this machine", severity=severity)


def _certificates(evidence: Evidence) -> Iterator[Finding]:
    for one in evidence.certificates:
        place = at("tls", one.of)
        if one.expires_in_s is None:
            yield found(TLS, place, one.fault, fix=f"check the server and {one.setting}")
        elif one.expires_in_s < 14.0 * _DAY_S:
            severity = _E if one.expires_in_s < 3.0 * _DAY_S else _W
            text = f"ends in {one.expires_in_s / _DAY_S:.1f} days"
            yield found(TLS, place, text, severity=severity)


def _called(target: Target, called: Called) -> Iterator[Finding]:
    """The answers to KEDA's questions, and whether all daemons give the same."""
    place = of(target, f"scalerAddress {called.address}")
    if called.fault:
        yield found(NO_SERVICE, place, called.fault)
        return
    if isinstance(called.answers, Unseen):
        yield unchecked(place, "the answers on gRPC", called.answers)
        return
    for one in called.answers:
        for method, fault in one.faults.items():
            yield found(NO_ANSWER, place, f"{one.peer} {method}: {fault}")
        if one.faults:
            continue
        if one.metric_name != METRIC_NAME or one.target_size != 1.0:
            text = f"{one.peer}: metric {one.metric_name!r} with target {one.target_size:g}"
            yield found(WRONG_ANSWER, place, f"{text}, must be {METRIC_NAME!r} with 1")
        if one.value and not one.active:
            yield found(WRONG_ANSWER, place, f"{one.peer}: value {one.value:g}, not active")
        if one.took_s > 1.0:
            yield found(SLOW, place, f"{one.peer}: {one.took_s:.1f} s")
    values = {one.peer: one.value for one in called.answers if one.value is not None}
    if len(set(values.values())) > 1:
        text = ", ".join(f"{peer} says {value:g}" for peer, value in values.items())
        yield found(DISAGREE, place, text, severity=_W)  # for one tick they may


# Daemons


def _peers(peers: Sequence[Peer]) -> Iterator[Finding]:
    for one in peers:
        place = at("daemon", one.url)
        if one.fault:
            yield found(PEER_DOWN, place, one.fault)
        elif not one.ready:
            yield found(PEER_UNREADY, place, "/readyz does not say 200")
    alive = [one for one in peers if not one.fault]
    if len(alive) > 1:
        leaders = [one.url for one in alive if one.leads]
        if len(leaders) != 1:
            text = f"{len(leaders)} of {len(alive)} lead{': ' if leaders else ''}"
            yield found(LEADERS, at("daemon", "all"), text + ", ".join(leaders))


def _views(target: Target, peers: Sequence[Peer]) -> Iterator[Finding]:
    alive = [one for one in peers if not one.fault]
    for one in alive:
        rows = [row for row in one.rows if _is_of(row, target)]
        if not rows:
            text = f"{one.url} lists {len(one.rows)} targets, this is not among them"
            yield found(UNKNOWN_TARGET, of(target), text)
        for row in rows:
            yield from _row(target, row, one)
    yield from _ticks(target, alive)


def _is_of(row: Row, target: Target) -> bool:
    if not row.name.startswith(f"{target.namespace}/"):
        return False
    scaled = target.scaled_object
    named = scaled is not None and row.name == f"{scaled.namespace}/{scaled.name}"
    return named or row.target.casefold() == target.label.casefold()


def _row(target: Target, row: Row, peer: Peer) -> Iterator[Finding]:
    place = of(target, peer.url)
    blind = "; ".join((*row.faults, *row.blind))
    if row.status in _HELD:
        severity = _W if row.status == "held" else _E
        text = f"status {row.status}, desired {row.desired}: {blind or row.headline}"
        yield found(BAD_STATUS, place, text, severity=severity)
        if not row.faults and _works_here(target):
            yield found(OTHER_VIEW, place, f"daemon: {blind}; here every signal has samples")
    elif lost := [one for one in row.blind if not one.endswith(_NO_FAULT)]:
        yield found(PARTLY_BLIND, place, f"status {row.status}; {'; '.join(lost)}")
    if row.age_s is not None and row.age_s > 3.0 * peer.tick_s:
        text = f"the latest decision is {row.age_s:.0f} s old, a tick is {peer.tick_s:g} s"
        yield found(PEER_UNREADY, place, text)
    pods = target.ref.pods if target.ref is not None else None
    if pods is not None and row.ready is not None:
        ready = sum(pod.ready and pod.leader for pod in pods)
        if ready != row.ready:
            yield found(COUNT_DIFFERS, place, f"daemon: {row.ready} ready, API: {ready}")


def _works_here(target: Target) -> bool:
    """Whether our own collection, by the daemon's code and settings, has every pod."""
    samples = target.samples
    if isinstance(samples, Unseen) or samples.failure is not None or not samples.pods:
        return False
    return not any(isinstance(one, NoData) for one in samples.pods.values())


def _ticks(target: Target, alive: Sequence[Peer]) -> Iterator[Finding]:
    """Decisions of the daemons: at most one tick apart, and of one tick the same."""
    times = {one.url: one.decided_at_s[target.name] for one in alive
             if target.name in one.decided_at_s}  # fmt: skip
    if len(times) < 2:
        return
    apart_s = max(times.values()) - min(times.values())
    tick_s = max(one.tick_s for one in alive)
    if apart_s > 1.5 * tick_s:
        yield found(DISAGREE, of(target), f"decisions {apart_s:.0f} s apart, a tick is {tick_s:g}")
    counts = {one.url: one.desired[target.name] for one in alive if target.name in one.desired}
    if apart_s == 0.0 and len(set(counts.values())) > 1:
        text = ", ".join(f"{url} wants {count:g}" for url, count in counts.items())
        yield found(DISAGREE, of(target), text)
