"""Captured and composed metric pages, and small ones made on the spot."""

from pathlib import Path

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
