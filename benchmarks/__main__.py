"""``make bench``: every benchmark in turn, each in a process of its own, its output as it comes."""

import subprocess
import sys
import time

RUNS = (
    ("decide() per target", "decide", ()),
    ("gRPC server, KEDA's call rate, 1,000 triggers", "bench_grpc", ("--duration-s", "20")),
    ("collection from Prometheus, 1,000 targets of 10 pods", "collect", ("--tuned",)),
    ("Kubernetes view, 1,000 targets of 10 pods", "kubernetes_view", ()),
    ("whole daemon, 10 targets", "daemon", ("--targets", "10", "--duration-s", "20")),
    ("whole daemon, 1,000 targets of 10 pods", "daemon", ("--duration-s", "60")),
    ("simulator, engine alone", "bench_engine", ()),
    ("simulator, whole loop", "bench_simulate", ()),
    ("replica model against real runs", "fidelity", ()),
    ("capacity learned against the truth", "capacity", ()),
    ("forecasts against persistence", "forecasts", ()),
    ("scoreboard of the development traces, 12 hours of each", "scoreboard", ("--quick",)),
    ("held-out days against peers tuned elsewhere", "held_out", ("--no-oracle",)),
    ("what the future is worth: the load to come handed over", "foresight", ()),
    ("flapping: constant load, and reversals", "flapping", ()),
    ("robustness, one factor at a time", "robustness", ()),
)


def main() -> int:
    """Run all; the exit status is the number of those that failed."""
    failed = 0
    for title, module, arguments in RUNS:
        print(f"\n== {title}: python -m benchmarks.{module} {' '.join(arguments)}", flush=True)
        began_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{module}", *arguments], check=False
        )
        failed += done.returncode != 0
        print(f"-- exit {done.returncode} after {time.perf_counter() - began_s:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
