"""Every flag and variable of every vLLM server exists in the versions the overlay names."""

import re

import pytest
import yaml

from tests.manifests.built import (
    MANIFESTS,
    of_kind,
    overlay,
    overlays,
    pod_templates,
    serving,
    strings,
    vllm_templates,
)
from tests.manifests.flags import VERSIONS, environment, faults, known, parsed

pytestmark = pytest.mark.external
SERVING = serving()
GUIDES_FLAGS = {  # what the five guides write, and a current vLLM refuses
    "--swap-space": "8",
    "--preemption-mode": "swap",
    "--quantization-param-path": "quant_config.json",
    "--enable-chunked-prefill": "true",
    "--max-concurrent-requests": "100",
    "--scheduler-delay": "0.001",
    "--ray-address": "ray://head:6379",
    "--pipeline-parallel-chunk-size": "32",
}


def test_recorded_parsers_refuse_what_the_guides_write() -> None:
    for version in VERSIONS:
        assert len(known(version)) > 300
        for flag, value in GUIDES_FLAGS.items():
            assert faults({flag: value}, version), (flag, version)
    # Gone by 0.17, and back in 0.33 as the opposite of --enable-log-requests.
    assert faults({"--disable-log-requests": None}, "0.32.0")
    assert not faults({"--disable-log-requests": None}, "0.33.0")


@pytest.mark.parametrize("name", SERVING)
def test_flags_exist(name: str) -> None:
    for where, _, container in vllm_templates(overlay(name)):
        assert container["command"] == ["vllm", "serve"], "the image's entrypoint has changed"
        arguments = container["args"]
        assert arguments[0] == "/models/$(MODEL_REPOSITORY)", "the model is positional"
        for version in VERSIONS:
            assert faults(parsed(arguments), version) == [], where


@pytest.mark.parametrize("name", SERVING)
def test_variables_exist(name: str) -> None:
    for where, _, container in vllm_templates(overlay(name)):
        names = [one["name"] for one in container["env"]]
        assert len(names) == len(set(names))
        assert {one for one in names if one.startswith("VLLM_")} <= environment(), where
        assert "HUGGING_FACE_HUB_TOKEN" not in names
        referenced = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
        assert {one for one in referenced if not one.startswith("LWS_")} <= set(names), where


@pytest.mark.parametrize("name", SERVING)
def test_the_overlay_names_the_versions_it_was_checked_for(name: str) -> None:
    text = (MANIFESTS / "overlays" / name / "kustomization.yaml").read_text(encoding="utf-8")
    head = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert f"Checked for vLLM {' and '.join(VERSIONS)}" in head
    images = {container["image"] for _, _, container in vllm_templates(overlay(name))}
    (tag,) = {image.rpartition(":")[2] for image in images}
    assert tag.removeprefix("v") in VERSIONS


def test_engine_arguments_of_ray_exist() -> None:
    (service,) = of_kind(overlay("llama-3.1-405b-ray"), "RayService")
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    (config,) = application["args"]["llm_configs"]
    given = {
        f"--{key.replace('_', '-')}": str(value) for key, value in config["engine_kwargs"].items()
    }
    for version in VERSIONS:
        assert faults(given, version) == []
    gpus = (
        config["engine_kwargs"]["tensor_parallel_size"]
        * config["engine_kwargs"]["pipeline_parallel_size"]
    )
    (workers,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    held = int(
        workers["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert gpus == held * workers["replicas"]


@pytest.mark.parametrize("name", overlays())
def test_images_are_pinned_and_no_token_is_written_out(name: str) -> None:
    for document in overlay(name):
        for where, template in pod_templates(document):
            spec = template["spec"]
            for container in [*spec["containers"], *spec.get("initContainers", ())]:
                tag = container["image"].rpartition(":")[2]
                assert re.search(r"\d", tag), f"{where}: {container['image']} is not a version"
                assert "latest" not in tag
                for one in container.get("env", ()):
                    secret = re.search(r"TOKEN|_KEY$|PASSWORD|DATABASE_URL", one["name"])
                    assert not (secret and "value" in one), f"{where}: {one['name']} in plain text"
        assert document["kind"] != "Secret", "a Secret does not belong into a repository"
        assert not any(text.startswith(("sk-", "hf_")) for text in strings(document))
