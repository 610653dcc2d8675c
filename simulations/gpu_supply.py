"""The GPUs that a fleet may use: taken, given back, limited, and brought by new nodes."""

from simulations.lifecycle import GpuPool
from simulations.streams import generator


class GpuSupply:
    """Counts the GPUs of one fleet."""

    def __init__(self, pool: GpuPool, *, seed: int) -> None:
        self._pool = pool
        self._seed = seed
        self._total = pool.total
        self._limit: int | None = None
        self._coming = 0
        self._used = 0
        self._nodes = 0

    @property
    def allocatable(self) -> int | None:
        """GPUs that there are, free and used; None without a limit."""
        if self._limit is None:
            return self._total
        return self._limit if self._total is None else min(self._limit, self._total)

    def limit(self, total: int | None) -> None:
        """Allow no more than ``total`` for new replicas; None lifts the limit."""
        self._limit = total

    def fits(self, gpus: int) -> bool:
        """Whether as many are free."""
        there = self.allocatable
        return there is None or self._used + gpus <= there

    def take(self, gpus: int) -> None:
        """Use as many."""
        self._used += gpus

    def give_back(self, gpus: int) -> None:
        """Use as many no longer."""
        self._used -= gpus

    def order_nodes(self, *, short: int, now_s: float) -> tuple[float, ...]:
        """Ask for nodes until what is free or on its way covers ``short``; when each will come."""
        pool = self._pool
        if pool.node_provisioning is None or short <= 0:
            return ()
        assert self._total is not None, "a pool without a limit is never short"
        made = []
        while (
            self._total - self._used + self._coming < short
            and self._total + self._coming + pool.gpus_per_node <= pool.provisioned_max
        ):
            random = generator(self._seed, "node_provisioning", self._nodes)
            self._nodes += 1
            self._coming += pool.gpus_per_node
            made.append(now_s + pool.node_provisioning.draw_s(random))
        return tuple(made)

    def node_came(self) -> None:
        """A node that was ordered is there."""
        assert self._total is not None
        self._coming -= self._pool.gpus_per_node
        self._total += self._pool.gpus_per_node
