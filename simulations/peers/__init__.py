"""The policies that are compared, by name, and the controller of a scenario's policy."""

from collections.abc import Mapping

from scaler.core.config import PolicyConfig
from scaler.errors import ScenarioError
from simulations.controller import Context, Controller, StillController
from simulations.daemon_controller import DaemonController
from simulations.peers import (
    aibrix,
    dynamo,
    hpa_kaito,
    hpa_llmd,
    hpa_phpa,
    hpa_plain,
    hpa_wva,
    inferno,
    knative,
    kubeai,
    sageserve,
    tokens,
    wva_tokens,
)
from simulations.peers.peer import CORRECTED, Build, Group, Peer, Setting
from simulations.scenario import SHIPPED, Behaviour, Policy, policy_named

__all__ = [
    "CORRECTED",
    "PEERS",
    "SHIPPED",
    "Behaviour",
    "Build",
    "Group",
    "Peer",
    "Setting",
    "controller_for",
    "peer_policy",
]

_MODULES = (
    *(hpa_plain, hpa_kaito, knative, aibrix, hpa_wva, hpa_llmd, kubeai, hpa_phpa, sageserve),
    *(tokens, wva_tokens, dynamo, inferno),
)

PEERS: Mapping[str, Peer] = {peer.name: peer for module in _MODULES for peer in module.PEERS}


def peer_policy(
    name: str,
    config: PolicyConfig,
    *,
    variant: str = SHIPPED,
    knob: float | None = None,
    behaviour: Behaviour = Behaviour.OWN,
) -> Policy:
    """The policy ``name``: a peer's in this form, or one of our own or ``fixed:N`` by its name.

    Raises:
        ScenarioError: there is no such policy, or the peer has no such form.
    """
    peer = PEERS.get(name)
    if peer is None:
        return policy_named(name, config)
    if variant not in peer.variants:
        raise ScenarioError(f"variant = {variant}, {name} has {', '.join(peer.variants)}")
    if behaviour not in peer.behaviours:
        raise ScenarioError(f"behaviour = {behaviour}, {name} has {', '.join(peer.behaviours)}")
    return Policy(name=name, config=config, variant=variant, knob=knob, behaviour=behaviour)


def controller_for(policy: Policy, context: Context) -> Controller:
    """A new controller for one run."""
    if policy.controller is not None:
        return policy.controller(context)
    if policy.replicas_fixed is not None:
        return StillController()
    peer = PEERS.get(policy.name)
    if peer is None:
        return DaemonController(context)
    knob = peer.knob_default if policy.knob is None else policy.knob
    setting = Setting(knob=knob, variant=policy.variant, behaviour=policy.behaviour)
    return peer.build(setting, context)
