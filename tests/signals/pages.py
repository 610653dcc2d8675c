"""Captured and composed metric pages, and small ones made on the spot."""

from pathlib import Path

from scaler.core.model import NoData
from scaler.signals.samples import PodSample
from scaler.signals.vllm import VllmReader

DATA = Path(__file__).parent.parent / "data"
VLLM_PAGES = sorted((DATA / "vllm").glob("*.prom"))
DCGM_PAGES = sorted((DATA / "dcgm").glob("*.prom"))


def vllm_page(name: str) -> str:
    return (DATA / "vllm" / f"{name}.prom").read_text()


def dcgm_page(name: str) -> str:
    return (DATA / "dcgm" / f"{name}.prom").read_text()


def without(page: str, *names: str) -> str:
    """The page without the series of these metrics (whole names)."""
    lines = page.splitlines(keepends=True)
    return "".join(line for line in lines if line.split("{")[0].split(" ")[0] not in names)


def with_value(page: str, name: str, value: str) -> str:
    """The page with this value on every series of a metric."""
    lines = page.splitlines(keepends=True)
    return "".join(
        f"{line.rsplit(' ', 1)[0]} {value}\n" if line.split("{")[0] == name else line
        for line in lines
    )


READER = VllmReader()
SATURATED = vllm_page("0.32.0-saturated")


def read(page: str, *, reader: VllmReader = READER, model_name: str = "") -> PodSample:
    sample = reader.from_page(page, pod="vllm-0", at_s=7.0, model_name=model_name)
    assert isinstance(sample, PodSample), sample
    return sample


def refuse(page: str, *, reader: VllmReader = READER, model_name: str = "") -> NoData:
    sample = reader.from_page(page, pod="vllm-0", at_s=7.0, model_name=model_name)
    assert isinstance(sample, NoData), sample
    assert sample.detail
    assert len(sample.detail) < 500
    return sample
