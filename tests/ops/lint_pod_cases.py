"""The cases of rules on pods, storage, command lines and secrets."""

from tests.ops.lint_cases import (
    AFFINITY,
    ARGS,
    MODELS,
    ON_CLAIM,
    PROBE,
    SHARED,
    SHM,
    case,
    claim,
    container,
    deployment,
    keda,
    ours,
    secret,
    server,
    service,
    shell,
    trigger,
)

LINE = "vllm serve /models/a --shutdown-timeout=300"
HUB = ["meta-llama/Llama-3.2-1B", "--shutdown-timeout=300"]
CACHE = {"name": "models", "mountPath": "/root/.cache/huggingface"}
AT_SHM = [{"name": "shm", "mountPath": "/dev/shm"}]


def download(script: str) -> dict[str, object]:
    return {
        "kind": "Job",
        "metadata": {"name": "download"},
        "spec": {
            "template": {
                "spec": {"containers": [{"image": "python:3.11", "command": ["sh", "-c", script]}]}
            }
        },
    }


def shared(share: str) -> list[dict[str, object]]:
    args = ["/models/a", "--shutdown-timeout=300", f"--gpu-memory-utilization={share}"]
    return [deployment(container(args=args, resources=SHARED), name=name) for name in ("a", "b")]


PODS = (
    case("liveness-kills-loading", server(startupProbe=None), "killed after 100 s", server()),
    case(
        "no-startup-probe",
        server(startupProbe=None, livenessProbe=None),
        "startupProbe is missing",
        server(),
    ),
    case(
        "no-startup-probe",
        server(startupProbe=None, livenessProbe={**PROBE, "initialDelaySeconds": 900}),
        "startupProbe is missing",
        server(),
    ),
    case("startup-probe-too-short", server(startupProbe=PROBE), "after 30 s", server()),
    case(
        "no-readiness-probe",
        server(readinessProbe=None),
        "missing",
        server("--headless", readinessProbe=None),
    ),
    case(
        "probe-not-health",
        server(readinessProbe={"tcpSocket": {"port": 8000}}),
        "tcpSocket",
        server(),
    ),
    case(
        "probe-not-health",
        server(readinessProbe={"httpGet": {"path": "/v1/models"}}),
        "/v1/models",
        server(readinessProbe={"httpGet": {"path": "/ping"}}),
    ),
    case(
        "probe-timeout",
        server(readinessProbe={"httpGet": {"path": "/health"}}),
        "missing: 1 s",
        server(),
    ),
    case(
        "post-start-request",
        server(lifecycle={"postStart": {"exec": {"command": ["curl", "localhost:8000"]}}}),
        "curl",
        server(lifecycle={"postStart": {"exec": {"command": ["mkdir", "/cache/a"]}}}),
    ),
    case("no-shutdown-timeout", server(args=["/models/a"]), "missing", server()),
    case(
        "no-shutdown-timeout", server("--shutdown-timeout=0"), "--shutdown-timeout is 0", server()
    ),
    case(
        "grace-too-short",
        [deployment(pod={"terminationGracePeriodSeconds": 60})],
        "60 s, while preStop takes 15 s, draining up to 300 s",
        [deployment()],
    ),
    case(
        "grace-too-short",
        [deployment(container(lifecycle={"preStop": {"sleep": {"seconds": 25}}}))],
        "330 s, while preStop takes 25 s",
        [deployment()],
    ),
    case("no-pre-stop", server(lifecycle=None), "preStop is missing", server()),
    case("shell-takes-signal", shell(LINE), "vllm serve", shell(f"ulimit -n 65536\nexec {LINE}")),
    case(
        "drain-with-api-servers",
        server("--api-server-count=2"),
        "2",
        server("--api-server-count=1"),
    ),
    case(
        "service-named-vllm",
        [deployment(), service("vllm")],
        "Service/vllm",
        [deployment(pod={"enableServiceLinks": False}), service("vllm")],
    ),
)
STORAGE = (
    case(
        "claim-read-only",
        [claim("ReadOnlyMany")],
        "ReadOnlyMany",
        [claim("ReadOnlyMany", volumeName="disk-1")],
    ),
    case(
        "claim-of-one-node",
        [claim("ReadWriteOnce"), deployment(pod=ON_CLAIM, replicas=2)],
        "Deployment/vllm-a may have 2 replicas",
        [claim("ReadWriteMany"), deployment(pod=ON_CLAIM, replicas=2)],
    ),
    case(
        "claim-of-one-node",
        [claim("ReadWriteOnce"), deployment(pod=ON_CLAIM), keda(trigger())],
        "may have 4 replicas",
        [claim("ReadWriteOnce"), deployment(pod={**ON_CLAIM, "affinity": AFFINITY}), keda(ours())],
    ),
    case(
        "each-replica-downloads",
        [deployment(container(args=HUB))],
        "meta-llama/Llama-3.2-1B into",
        [deployment(container(args=HUB, volumeMounts=[CACHE]), pod={"volumes": [MODELS]})],
    ),
    case(
        "each-replica-downloads",
        [
            deployment(
                container(args=HUB, volumeMounts=[CACHE]),
                pod={"volumes": [{"name": "models", "emptyDir": {}}]},
            )
        ],
        "no lasting volume",
        [deployment()],
    ),
    case(
        "huggingface-cli-gone",
        [download("huggingface-cli download a/b")],
        "huggingface-cli",
        [download("hf download a/b --local-dir /models/a")],
    ),
    case(
        "gpu-shares-over-one",
        [deployment(container(), container(resources=None))],
        "0.9 + 0.9 = 1.8",
        [deployment(container(), container())],
    ),
    case("gpu-shares-over-one", shared("0.6"), "1.2 of a GPU", shared("0.4")),
    # 13 billion parameters of 2 bytes are 24 GiB.
    case(
        "memory-below-weights",
        [deployment(container(args=["/models/opt-13b"], resources={"limits": {"memory": "20Gi"}}))],
        "limit 20 GiB, weights about 24 GiB",
        [
            deployment(
                container(args=["/models/opt-13b-AWQ"], resources={"limits": {"memory": "20Gi"}})
            )
        ],
    ),
    case(
        "no-shared-memory",
        server("--tensor-parallel-size=2"),
        "size 2",
        [
            deployment(
                container(args=[*ARGS, "-tp", "2"], volumeMounts=AT_SHM), pod={"volumes": [SHM]}
            )
        ],
    ),
    case(
        "shared-memory-unlimited",
        [deployment(pod={"volumes": [{"name": "shm", "emptyDir": {"medium": "Memory"}}]})],
        "shm: sizeLimit",
        [deployment(pod={"volumes": [SHM]})],
    ),
)
OLD = "vllm/vllm-openai:v0.6.6"
COMMENTED = f"""exec {LINE} \\
  --port 8000 \\ # where it listens
  --max-model-len 8192
"""
FLAGS = (
    case(
        "flag-unknown",
        server("--swap-space=8"),
        "--swap-space: vLLM 0.32.0 has it not",
        server("--kv-offloading-size=8"),
    ),
    case(
        "flag-unknown",
        server("--max_concurrent_requests", "100"),
        "no version has it",
        server("--max_num_seqs", "100"),
    ),
    case(
        "flag-unknown",
        server("--enable-prefix-cache"),
        "--enable-prefix-cache",
        server("--enable-prefix-caching"),
    ),
    case(
        "flag-unknown",
        server(image="vllm/vllm-openai:v0.11.0"),
        "--shutdown-timeout: vLLM 0.11.0",
        server(image="vllm/vllm-openai:v0.18.1"),
    ),
    case(
        "flag-unknown",
        [[{"op": "add", "path": "/spec/containers/0/args/-", "value": "--preemption-mode=swap"}]],
        "--preemption-mode",
        [[{"op": "add", "path": "/spec/containers/0/args/-", "value": "--dtype=auto"}]],
    ),
    case(
        "flag-value",
        server("--enable-chunked-prefill", "true"),
        "true: it takes no value",
        server("--enable-chunked-prefill", "--dtype", "auto"),
    ),
    case("flag-value", server("--dtype=fp7"), "--dtype fp7", server("--dtype=$(DTYPE)")),
    case("flag-value", server("--max-num-seqs"), "without a value", server("--max-num-seqs", "8")),
    case(
        "flag-and-value-in-one-word",
        server("--max-num-seqs 8"),
        "--max-num-seqs 8",
        server("--max-num-seqs=8"),
    ),
    case(
        "comment-cuts-command",
        shell(COMMENTED),
        "where it listens",
        shell(COMMENTED.replace(" # where it listens", "")),
    ),
    case(
        "image-floats",
        server(image="vllm/vllm-openai:latest"),
        "latest",
        server(image="vllm/vllm-openai@sha256:0123"),
    ),
    case(
        "image-floats",
        server(image="localhost:5000/vllm"),
        "localhost:5000/vllm",
        server(image="localhost:5000/vllm:v2"),
    ),
    case("entrypoint-unsaid", server(command=None), "no command", server()),
    case(
        "arguments-of-other-entrypoint",
        server(command=["python3", "-m", "vllm.entrypoints.openai.api_server"]),
        "behind the module",
        [
            deployment(
                container(
                    command=["python3", "-m", "vllm.entrypoints.openai.api_server"],
                    args=["--model", "/models/a"],
                )
            )
        ],
    ),
    case(
        "entrypoint-module",
        [
            deployment(
                container(
                    command=["python3", "-m", "vllm.entrypoints.openai.api_server"],
                    args=["--model", "/models/a"],
                )
            )
        ],
        "python -m",
        server(),
    ),
    case(
        "batched-tokens-too-few",
        server("--max-num-batched-tokens=4096", "--no-enable-chunked-prefill"),
        "4096 below --max-model-len 8192",
        server("--max-num-batched-tokens=4096"),
    ),
    case(
        "batched-tokens-too-few",
        [
            deployment(
                container(
                    image=OLD,
                    args=["/models/a", "--max-model-len=8192", "--max-num-batched-tokens=4096"],
                )
            )
        ],
        "chunked prefill off",
        [
            deployment(
                container(
                    image=OLD,
                    args=[
                        "/models/a",
                        "--max-model-len=8192",
                        "--max-num-batched-tokens=4096",
                        "--enable-chunked-prefill",
                    ],
                )
            )
        ],
    ),
    case(
        "batched-tokens-too-few",
        server("--max-num-batched-tokens=64", "--max-num-seqs=128"),
        "64 below --max-num-seqs 128",
        server("--max-num-batched-tokens=128", "--max-num-seqs=128"),
    ),
    case(
        "parallel-size-not-gpus",
        server("--tensor-parallel-size", "4"),
        "4 x 1 x 1 wanted, 1",
        server("--tensor-parallel-size=4", "--nnodes=4"),
    ),
    case(
        "gpus-unused",
        server(resources={"limits": {"nvidia.com/gpu": 8}}),
        "8 in limits",
        server("-tp=4", "-pp=2", resources={"limits": {"nvidia.com/gpu": 8}}),
    ),
    case(
        "tensor-parallel-heads",
        server("--tensor-parallel-size=8"),
        "8 does not divide the 28 heads",
        server("--tensor-parallel-size=4"),
    ),
)
SECRETS = (
    case(
        "token-in-plain-text",
        server(env=[{"name": "HF_TOKEN", "value": "abcdef0123"}]),
        "HF_TOKEN = abc... (10 characters)",
        server(env=[{"name": "HF_TOKEN", "valueFrom": {}}]),
    ),
    case(
        "token-in-plain-text",
        server(env=[{"name": "AUTH", "value": "hf_abcdef0123"}]),
        "hf_...",
        server(env=[{"name": "AUTH", "value": "$(TOKEN)"}]),
    ),
    case(
        "token-in-plain-text",
        server("--api-key", "sk-abc"),
        "--api-key sk-",
        server("--api-key", "$(API_KEY)"),
    ),
    case(
        "token-in-plain-text",
        [
            {
                "kind": "ConfigMap",
                "metadata": {"name": "c"},
                "data": {"config.yaml": "master_key: sk-0123456789"},
            }
        ],
        "master_key: sk-...",
        [
            {
                "kind": "ConfigMap",
                "metadata": {"name": "c"},
                "data": {"config.yaml": "master_key: os.environ/KEY"},
            }
        ],
    ),
    case(
        "secret-data-not-base64",
        [secret(data={"token": "hf_plain"})],
        "token: hf_",
        [secret(data={"token": ""})],
    ),
    # A text that happens to be of base64's alphabet, as in vLLM's own example.
    case(
        "secret-data-not-base64",
        [secret(data={"token": "REPLACEWITHTOKEN"})],
        "token: REP",
        [secret(data={"token": ""})],
    ),
    case("secret-in-repository", [secret(data={"token": "aGZfYWJj"})], "token: aGZ", [secret()]),
    case(
        "secret-in-repository",
        [secret(stringData={"token": "YOUR_TOKEN"})],
        "a placeholder",
        [secret()],
    ),
    case(
        "session-affinity",
        [service(sessionAffinity="ClientIP")],
        "ClientIP",
        [service(sessionAffinity="None")],
    ),
    case(
        "session-affinity",
        [
            {
                "kind": "Ingress",
                "metadata": {
                    "name": "i",
                    "annotations": {"nginx.ingress.kubernetes.io/affinity": "cookie"},
                },
                "spec": {
                    "defaultBackend": {},
                    "rules": [{"http": {"paths": [{"backend": {"service": {"name": "vllm-a"}}}]}}],
                },
            }
        ],
        "cookie",
        [service()],
    ),
)
