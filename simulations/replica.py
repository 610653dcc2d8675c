"""The model of one vLLM replica: step time, limits, prefix cache, start-up and drain."""

import math
from dataclasses import dataclass, field, fields
from enum import IntEnum, StrEnum

import numpy as np

from scaler.errors import ScenarioError
from simulations.engine_layout import State

SHORTEST_STEP_S = 1e-6
SLOT_LIMIT = 1 << 16  # the kernel packs a slot into 16 bits


def _require(key: str, value: float, *, low: float, high: float) -> None:
    """Raise ScenarioError unless ``low <= value <= high``."""
    if not low <= value <= high:
        raise ScenarioError(f"{key} = {value}, must be in [{low:g}, {high:g}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """How long one engine step takes, in seconds.

    A step of decodes only, S sequences with K tokens of context together::

        overhead_s + decode_base_s + decode_per_seq_s * S + decode_per_kv_token_s * K

    A step with prefill chunks of n_i tokens after c_i tokens that are in the cache already::

        overhead_s + mixed_base_s + mixed_per_seq_s * S + mixed_per_kv_token_s * K
            + prefill_per_token_s * sum(n_i) + prefill_attention_s * sum(n_i * (c_i + n_i / 2))

    Two sets of decode terms, because mixed steps are slower than the sum of their parts.
    ``overhead_s`` is what kernel profiles leave out: scheduler, sampling to host, launches.
    """

    overhead_s: float
    decode_base_s: float
    decode_per_seq_s: float
    decode_per_kv_token_s: float
    mixed_base_s: float
    mixed_per_seq_s: float
    mixed_per_kv_token_s: float
    prefill_per_token_s: float
    prefill_attention_s: float

    def __post_init__(self) -> None:
        """Raise ScenarioError for a term out of its range."""
        for field_ in fields(self):
            _require(f"step.{field_.name}", getattr(self, field_.name), low=0.0, high=100.0)
        for base in ("decode_base_s", "mixed_base_s"):
            if self.overhead_s + getattr(self, base) < SHORTEST_STEP_S:
                raise ScenarioError(
                    f"step.{base} = {getattr(self, base)}, must be at least {SHORTEST_STEP_S}"
                    " together with step.overhead_s"
                )


class DistributionKind(StrEnum):
    """Families a duration may be drawn from."""

    CONSTANT = "constant"
    LOGNORMAL = "lognormal"
    EMPIRICAL = "empirical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A duration in seconds: ``values_s`` is (value), (median, p95) or the sample drawn from."""

    kind: DistributionKind
    values_s: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ScenarioError for what is no duration."""
        if not self.values_s:
            raise ScenarioError("values_s is empty, must hold at least one duration")
        for value in self.values_s:
            _require("duration_s", value, low=0.0, high=86400.0)
        if self.kind == DistributionKind.LOGNORMAL:
            median_s, p95_s = self.values_s
            if not 0.0 < median_s < p95_s:
                raise ScenarioError(
                    f"median_s, p95_s = {median_s}, {p95_s}, must be 0 < median < p95"
                )

    def draw_s(self, random: np.random.Generator) -> float:
        """One duration.  Of a lognormal, sigma = ln(p95 / median) / 1.645."""
        match self.kind:
            case DistributionKind.CONSTANT:
                return self.values_s[0]
            case DistributionKind.LOGNORMAL:
                median_s, p95_s = self.values_s
                sigma = math.log(p95_s / median_s) / 1.6448536269514722
                return float(median_s * math.exp(sigma * random.standard_normal()))
            case DistributionKind.EMPIRICAL:
                return float(self.values_s[random.integers(len(self.values_s))])


def constant(value_s: float) -> Distribution:
    """Always ``value_s``."""
    return Distribution(kind=DistributionKind.CONSTANT, values_s=(value_s,))


def lognormal(median_s: float, p95_s: float) -> Distribution:
    """Lognormal with this median and 95th percentile."""
    return Distribution(kind=DistributionKind.LOGNORMAL, values_s=(median_s, p95_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """From scheduled to ready, by phase; the phases are drawn independently and add up.

    A start fails with ``crash_ratio``; the container is then started again after the kubelet's
    back-off (10 s doubling to 300 s), without pulling the image again.
    """

    scheduling: Distribution = field(default_factory=lambda: constant(2.0))
    image: Distribution = field(default_factory=lambda: constant(0.0))
    weights: Distribution = field(default_factory=lambda: constant(60.0))
    compile: Distribution = field(default_factory=lambda: constant(60.0))
    crash_ratio: float = 0.0

    def __post_init__(self) -> None:
        """Raise ScenarioError for a ratio that would never let a replica start."""
        _require("start_up.crash_ratio", self.crash_ratio, low=0.0, high=0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCache:
    """Share of each prompt found in the prefix cache, in whole blocks and never the last token.

    With ``per_session`` the share holds only where the replica has served the request's session
    before and has not evicted it since, so it falls when replicas are added or sessions are spread.
    """

    hit_ratio: float = 0.0
    per_session: bool = False

    def __post_init__(self) -> None:
        """Raise ScenarioError for a share that is none."""
        _require("prefix_cache.hit_ratio", self.hit_ratio, low=0.0, high=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaModel:
    """One replica of a vLLM deployment, as the simulator runs it.

    ``kv_blocks`` is vLLM's ``num_gpu_blocks``; one of them, the null block, is never used.  Names
    and meaning of the limits are those of vLLM's flags; ``max_num_queued_reqs`` counts running and
    waiting, 0 is no limit. ``scheduler_reserve_full_isl`` admits a prompt only if all of it fits,
    and ``watermark_ratio`` of the blocks stay free at an admission beside other requests, both as
    in ``KVCacheManager.allocate_slots``. ``drain_grace_s`` is the time that running and waiting
    requests have to end after a scale-down.
    """

    name: str
    step: StepTime
    kv_blocks: int
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    max_model_len: int = 131072
    max_num_queued_reqs: int = 0
    scheduler_reserve_full_isl: bool = True
    watermark_ratio: float = 0.0
    prefix_cache: PrefixCache = field(default_factory=PrefixCache)
    gpus_per_replica: int = 1
    start_up: StartUp = field(default_factory=StartUp)
    drain_grace_s: float = 300.0

    def __post_init__(self) -> None:
        """Raise ScenarioError for a limit out of its range."""
        for key, low, high in (
            ("kv_blocks", 2, 1 << 40),
            ("block_size", 1, 1024),
            ("max_num_seqs", 1, SLOT_LIMIT - 1),
            ("max_num_batched_tokens", 1, 1 << 30),
            ("max_model_len", 1, 1 << 30),
            ("max_num_queued_reqs", 0, 1 << 30),
            ("watermark_ratio", 0.0, 0.5),
            ("gpus_per_replica", 1, 1024),
            ("drain_grace_s", 0.0, 86400.0),
        ):
            _require(key, getattr(self, key), low=low, high=high)
        if self.block_size & (self.block_size - 1):
            raise ScenarioError(f"block_size = {self.block_size}, must be a power of two")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ScenarioError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens}, must be at least"
                f" max_num_seqs, {self.max_num_seqs}"
            )
        if self.prefix_cache.per_session and not self.scheduler_reserve_full_isl:
            # A hit that is evicted while its request waits would change what fits.
            raise ScenarioError(
                "prefix_cache.per_session = true, must go with scheduler_reserve_full_isl = true"
            )

    @property
    def kv_capacity_tokens(self) -> int:
        """Tokens of context that fit into the usable blocks."""
        return (self.kv_blocks - 1) * self.block_size


class Routing(IntEnum):
    """How a request finds its replica; the values are the kernel's."""

    RANDOM = 0  # kube-proxy
    ROUND_ROBIN = 1
    LEAST_REQUESTS = 2  # fewest running and waiting
    KV_AWARE = 3  # least KV cache in use, prompts that wait included
    SESSION = 4  # sticky by session, rendezvous hashing


def write_params(model: ReplicaModel, state: State, *, routing: Routing, seed_word: int) -> None:
    """Put the model into the kernel's parameter record."""
    params = state.params[0]
    step = model.step
    params["decode_base_s"] = step.overhead_s + step.decode_base_s
    params["mixed_base_s"] = step.overhead_s + step.mixed_base_s
    for name in (
        "decode_per_seq_s", "decode_per_kv_token_s", "mixed_per_seq_s", "mixed_per_kv_token_s",
        "prefill_per_token_s", "prefill_attention_s",
    ):  # fmt: skip
        params[name] = getattr(step, name)
    params["prefix_hit_ratio"] = model.prefix_cache.hit_ratio
    params["session_cache"] = model.prefix_cache.per_session
    params["session_tokens_kept"] = model.kv_capacity_tokens
    params["max_num_seqs"] = model.max_num_seqs
    params["max_num_batched_tokens"] = model.max_num_batched_tokens
    params["block_shift"] = model.block_size.bit_length() - 1
    params["blocks_total"] = model.kv_blocks - 1
    params["watermark_blocks"] = int(model.watermark_ratio * model.kv_blocks)
    params["reserve_full_prompt"] = model.scheduler_reserve_full_isl
    params["requests_queued_max"] = model.max_num_queued_reqs
    params["request_tokens_max"] = min(model.max_model_len, model.kv_capacity_tokens)
    params["routing"] = int(routing)
    params["seed"] = seed_word
