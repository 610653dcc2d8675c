"""Claims that nobody can fill or share, and memory that does not add up (mistakes 15, 18)."""

import re
from collections.abc import Iterator

from scaler.ops.lint.bundle import ONE_AT_A_TIME, Bundle, PodTemplate, Server, same_namespace
from scaler.ops.lint.model import Finding, Node, Rule, Severity, found
from scaler.ops.lint.nodes import at, items, mapping, number, text, walk
from scaler.ops.lint.reading import Document

READ_ONLY = Rule(
    id="claim-read-only",
    mistake=15,
    severity=Severity.ERROR,
    says="a ReadOnlyMany claim cannot be filled by the pods that mount it",
    fix="ReadWriteMany, filled by a Job, mounted readOnly: true by the servers",
)
ONE_NODE = Rule(
    id="claim-of-one-node",
    mistake=15,
    severity=Severity.WARNING,
    says="a ReadWriteOnce claim holds all replicas to one node",
    fix="ReadWriteMany, a claim for each replica, or a required podAffinity to one node",
    heuristic=True,
)
EACH_DOWNLOADS = Rule(
    id="each-replica-downloads",
    mistake=15,
    severity=Severity.WARNING,
    says="every replica downloads the model at every start",
    fix="a shared volume that a Job fills, and HF_HUB_OFFLINE=1 in the servers",
)
SHARES = Rule(
    id="gpu-shares-over-one",
    mistake=18,
    severity=Severity.ERROR,
    says="servers on one GPU may together not take more memory than it has",
    fix="shares of --gpu-memory-utilization that add up to less than 1",
    heuristic=True,
)
MEMORY = Rule(
    id="memory-below-weights",
    mistake=18,
    severity=Severity.WARNING,
    says="the memory limit is below the weights and /dev/shm, which counts against it",
    fix="a limit of at least weights + sizeLimit of /dev/shm + a few GiB",
    heuristic=True,
)
NO_SHM = Rule(
    id="no-shared-memory",
    mistake=18,
    severity=Severity.ERROR,
    says="tensor parallel workers share memory in /dev/shm, 64 MB by default",
    fix="emptyDir with medium: Memory and a sizeLimit at /dev/shm",
)
SHM_UNLIMITED = Rule(
    id="shared-memory-unlimited",
    mistake=18,
    severity=Severity.WARNING,
    says="without a sizeLimit /dev/shm may grow to the memory of the node, or to the pod's limit",
    fix="a sizeLimit, counted into the memory limit",
)
HF_CLI = Rule(
    id="huggingface-cli-gone",
    mistake=15,
    severity=Severity.ERROR,
    says="current huggingface_hub has no huggingface-cli, and hf has not these options",
    fix="hf download REPOSITORY --local-dir DIR",
)
RULES = (READ_ONLY, ONE_NODE, EACH_DOWNLOADS, SHARES, MEMORY, NO_SHM, SHM_UNLIMITED, HF_CLI)
SHARED_GPU = "nvidia.com/gpu.shared"  # the device plugin's name for time slices
SHARE_DEFAULT = 0.92  # of --gpu-memory-utilization; 0.9 in older versions
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PARAMETERS = re.compile(r"(?<![\w.])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z])", re.IGNORECASE)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Findings on claims, volumes and memory."""
    for claim in bundle.of_kind("PersistentVolumeClaim"):
        yield from _claim(bundle, claim)
    for server in bundle.servers:
        if server.whole:
            yield from _download(server)
            yield from _shared_memory(server)
            yield from _memory(server)
    for template in bundle.templates:
        yield from _one_pod(bundle, template)
        yield from _old_tool(template)
    yield from _time_slices(bundle)


def _claim(bundle: Bundle, claim: Document) -> Iterator[Finding]:
    spec = mapping(claim.body, "spec")
    modes = set(items(spec, "accessModes"))
    filled = any(key in spec for key in ("volumeName", "dataSource", "dataSourceRef"))
    place = claim.place.below("spec.accessModes")
    if modes == {"ReadOnlyMany"} and not filled:
        yield found(READ_ONLY, place, "ReadOnlyMany, from no volume and no source")
    if modes and modes <= {"ReadWriteOnce", "ReadWriteOncePod"}:
        for template in bundle.templates:
            count = _replicas(bundle, template)
            if _mounts(template, claim) and count > 1 and not _held_together(template):
                owner = f"{template.document.kind}/{template.document.name}"
                yield found(ONE_NODE, place, f"{owner} may have {count} replicas")


def _mounts(template: PodTemplate, claim: Document) -> bool:
    names = {
        text(volume, "persistentVolumeClaim", "claimName")
        for volume in items(template.body, "spec", "volumes")
    }
    return claim.name in names and same_namespace(claim, template.document)


def _replicas(bundle: Bundle, template: PodTemplate) -> int:
    """Most pods of a template: by what scales it, else by its own count."""
    document = template.document
    if document.kind in ONE_AT_A_TIME:
        return 1
    scaled = [one.replicas_max for one in bundle.scalers_of(document)]
    return max(scaled, default=int(number(document.body, "spec", "replicas") or 1))


def _held_together(template: PodTemplate) -> bool:
    terms = items(
        template.body,
        *("spec", "affinity", "podAffinity", "requiredDuringSchedulingIgnoredDuringExecution"),
    )
    return any(text(term, "topologyKey") == "kubernetes.io/hostname" for term in terms)


def _download(server: Server) -> Iterator[Finding]:
    model = server.line.model
    environment = {text(one, "name"): text(one, "value") for one in _environment(server)}
    if not _HUB_ID.fullmatch(model) or environment.get("HF_HUB_OFFLINE") == "1":
        return
    cache = (
        server.line.value("--download-dir")
        or environment.get("HF_HUB_CACHE")
        or environment.get("HF_HOME")
        or f"{environment.get('HOME') or '/root'}/.cache/huggingface"
    )
    if not any(_lasts(server, mount, cache) for mount in items(server.container, "volumeMounts")):
        evidence = f"{model} into {cache}, on no lasting volume"
        yield found(EACH_DOWNLOADS, server.place, evidence)


def _lasts(server: Server, mount: Node, cache: str) -> bool:
    """Whether a mount holds the cache, or a part of it, on more than an emptyDir."""
    path = text(mount, "mountPath").rstrip("/")
    over = cache == path or cache.startswith(f"{path}/") or path.startswith(f"{cache}/")
    return bool(path) and over and "emptyDir" not in server.template.volume(text(mount, "name"))


def _environment(server: Server) -> list[object]:
    return list(items(server.container, "env"))


def _shm(server: Server) -> tuple[bool, float | None]:
    """Whether /dev/shm is a volume, and its size in bytes where it has one."""
    for mount in items(server.container, "volumeMounts"):
        if text(mount, "mountPath").rstrip("/") == "/dev/shm":  # noqa: S108  what pods mount
            volume = server.template.volume(text(mount, "name"))
            return True, number(volume, "emptyDir", "sizeLimit")
    return at(server.template.body, "spec", "hostIPC") is True, None


def _shared_memory(server: Server) -> Iterator[Finding]:
    there, _ = _shm(server)
    tensor = server.line.whole("--tensor-parallel-size") or 1
    if tensor > 1 and not there:
        evidence = f"tensor parallel size {tensor}, no volume at /dev/shm"
        yield found(NO_SHM, server.place.below("volumeMounts"), evidence)
    for place, volume in enumerate(items(server.template.body, "spec", "volumes")):
        held = mapping(volume, "emptyDir")
        if text(held, "medium") == "Memory" and number(held, "sizeLimit") is None:
            below = server.template.place.below(f"volumes.{place}.emptyDir")
            yield found(SHM_UNLIMITED, below, f"{text(volume, 'name')}: sizeLimit is missing")


def _memory(server: Server) -> Iterator[Finding]:
    limit = number(server.container, "resources", "limits", "memory")
    weights = _weights_bytes(server)
    if limit is None or not weights:
        return
    shm = _shm(server)[1] or 0.0
    if limit < weights + shm:
        evidence = (
            f"limit {limit / 2**30:.0f} GiB, weights about {weights / 2**30:.0f} GiB, "
            f"shared memory {shm / 2**30:.0f} GiB"
        )
        yield found(MEMORY, server.place.below("resources.limits.memory"), evidence)


def _weights_bytes(server: Server) -> float:
    """Weights on one node, from the count of parameters in the model's name; 0 where it has none.

    Two bytes a parameter, one for eight bits, 0.6 for four bits with their scales.
    """
    line = server.line
    counted = _PARAMETERS.search(line.model.rpartition("/")[2].replace("_", "-"))
    if counted is None:
        return 0.0
    parameters = float(counted[1] or 1) * float(counted[2]) * 1e9
    written = f"{line.model} {line.value('--quantization') or ''}".lower()
    each = 2.0
    if re.search(r"awq|gptq|int4|4bit|w4a", written):
        each = 0.6
    elif re.search(r"fp8|int8|8bit|w8a", written):
        each = 1.0
    tensor = line.whole("--tensor-parallel-size") or 1
    gpus = tensor * (line.whole("--pipeline-parallel-size") or 1)
    nodes = max(1.0, gpus / server.gpus) if server.gpus else 1.0
    return parameters * each / nodes


def _share(server: Server) -> float:
    given = server.line.number("--gpu-memory-utilization", "--device-memory-utilization")
    return SHARE_DEFAULT if given is None else given


def _one_pod(bundle: Bundle, template: PodTemplate) -> Iterator[Finding]:
    """Containers of one pod see one another's GPUs unless each asks for its own."""
    together = [one for one in bundle.servers if one.template is template and one.whole]
    total = sum(_share(one) for one in together)
    if len(together) > 1 and any(not one.gpus for one in together) and total > 1.0:
        evidence = " + ".join(f"{_share(one):g}" for one in together)
        yield found(SHARES, template.place, f"{evidence} = {total:g} in one pod")


def _time_slices(bundle: Bundle) -> Iterator[Finding]:
    sharing = [
        one
        for one in bundle.servers
        if one.whole and any(path.endswith(SHARED_GPU) for path, _ in walk(one.container, ""))
    ]
    total = sum(_share(one) * _replicas(bundle, one.template) for one in sharing)
    if total > 1.0 and sharing:
        names = ", ".join(one.template.document.name for one in sharing)
        evidence = f"{total:g} of a GPU if the slices of {names} meet on one"
        yield found(SHARES, sharing[0].place, evidence)


def _old_tool(template: PodTemplate) -> Iterator[Finding]:
    for place, container in template.containers():
        words = [*items(container, "command"), *items(container, "args")]
        script = " ".join(str(word) for word in words)
        told = re.search(r"huggingface-cli|--local-dir-use-symlinks|--resume-download", script)
        if told and "huggingface_hub<" not in script.replace(" ", ""):
            yield found(HF_CLI, place, told[0])
