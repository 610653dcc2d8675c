"""Decision -> one line for people.  Reasons are enums and numbers; prose is made here only."""

from scaler.core.model import Decision, NoData, Stage, Step, Verdict

_PROSE: dict[Stage, str] = {
    Stage.WORK: "arriving work {load:.2f} replicas' worth ({requests_per_s:.2f} requests/s of "
    "{request_cost_s:.3f} s), {sigmas:.1f} sigmas to spare",
    Stage.FORECAST: "work expected in {lead_s:.0f} s is {load_upper:.2f} replicas' worth "
    "(mean {load_mean:.2f}, skill {skill:+.2f}); {sigmas:.1f} sigmas to spare, because a miss "
    "costs {miss_price_factor:.2g} requests with {budget_spent_ratio:.0%} of the budget spent",
    Stage.QUEUE: "{requests_waiting:.0f} requests wait, {backlog_s:.1f} s of replica time "
    "(spare {spare_replicas:+.1f} replicas)",
    Stage.KV_CACHE: "KV cache at {usage_mean_ratio:.0%} of {usage_target_ratio:.0%}",
    Stage.TTFT: "TTFT within {objective_s:g} s for {attainment_likely_ratio:.1%} "
    "({attainment_low_ratio:.1%} to {attainment_high_ratio:.1%}), "
    "asked {attainment_target_ratio:.1%}",
    Stage.ITL: "inter-token latency within {objective_s:g} s for {attainment_likely_ratio:.1%} "
    "({attainment_low_ratio:.1%} to {attainment_high_ratio:.1%}), "
    "asked {attainment_target_ratio:.1%}",
    Stage.GPU: "GPUs at {utilisation_mean_ratio:.0%} of {target_ratio:.0%}",
    Stage.IDLE: "nothing was asked for",
    Stage.WAKE: "requests wait in front of a target without a ready replica",
    Stage.HOLD_DOWN: "held: the count rose {since_s:.0f} s ago, {span_s:.0f} s are waited",
    Stage.KEEP: "fewer would not carry a load of {load:.2f} (level {level:.2f}) with "
    "{margin_ratio:.0%}, {sigmas:.1f} sigmas (forecast {forecast_margin:.2f}, cost "
    "{cost_sigma:.1%}) and a dead band of {band:.2f} to spare",
    Stage.VETO: "not fewer than now: GPU busy, or latency near its objective",
    Stage.NO_API: "not fewer than before: the Kubernetes API is down",
    Stage.BLIND: "not fewer than before: data is missing",
    Stage.FLOOR: "data has been missing for too long: current count or the floor",
    Stage.BOUNDS: "limited to {replicas_min:.0f} to {replicas_max:.0f}",
    Stage.UNREACHABLE_STEP: "the HPA's tolerance would swallow the step from {status_replicas:.0f}",
    Stage.FROZEN: "advisory or frozen: the current count is published",
}


def step_line(step: Step) -> str:
    """One step in words: ``7  work: arriving work 5.12 replicas' worth ...``."""
    return f"{step.replicas:>3}  {_reason(step)}"


def _reason(step: Step) -> str:
    try:
        prose = _PROSE[step.stage].format(**dict(step.terms))
    except KeyError:  # a record of another policy version may have other terms
        prose = " ".join(f"{name}={value:.4g}" for name, value in step.terms)
    return f"{step.stage}: {prose}"


def headline(decision: Decision) -> str:
    """The decision in one line: count, what decided, and what could not be seen."""
    replicas = decision.observation.replicas
    now = (
        "unknown" if isinstance(replicas, NoData) else f"{replicas.wanted} ({replicas.ready} ready)"
    )
    noun = "replica" if decision.would_be == 1 else "replicas"
    parts = [f"{decision.would_be} {noun} wanted, now {now}"]
    parts.append(_reason(decision.steps[-1]))
    if decision.verdict is not Verdict.FRESH:
        parts.append(f"answer is {decision.verdict}")
    if decision.blind:
        parts.append(
            "blind: " + ", ".join(f"{item.signal} ({item.cause})" for item in decision.blind)
        )
    return "; ".join(parts)


def narrative(decision: Decision) -> tuple[str, ...]:
    """The arithmetic of a decision, one line a step, then each signal's own proposal."""
    lines = [headline(decision)]
    lines += [f"  {step_line(step)}" for step in decision.steps]
    for proposal in decision.proposals:
        numbers = " ".join(f"{name}={value:.4g}" for name, value in proposal.terms)
        lines.append(f"  {proposal.signal:>8} alone would ask for {proposal.replicas}: {numbers}")
    lines += [f"  {item.signal:>8} not seen: {item.cause} {item.detail}" for item in decision.blind]
    return tuple(lines)
