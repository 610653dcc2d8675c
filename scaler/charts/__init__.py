"""The charts of the live page and of the reports: browser files, one source for both.

The daemon serves them as modules; a report carries them inside its one file.
"""

from importlib import resources

NAMES = (
    "charts.css", "dom.js", "theme.js", "scales.js", "series.js", "canvas.js", "export.js",
    "panels.js", "overview.js", "charts.js",
)  # fmt: skip
"""Every file that the live page loads from here."""


def asset(name: str) -> bytes:
    """One browser file of this package.

    Raises:
        OSError: the package lacks the file.
    """
    return resources.files(__package__).joinpath(name).read_bytes()
