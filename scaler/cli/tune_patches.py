"""The settings that were found, as files that apply as they are."""

from collections.abc import Mapping

import yaml

from scaler.core.config import PolicyConfig
from scaler.core.settings import declared
from scaler.ops import commented_yaml

CONFIG = "patch.yaml"
SCALED_OBJECT = "patch-scaledobject.yaml"


def config_patch(changes: Mapping[str, float], *, profile: str | None) -> str:
    """The daemon's configuration: its defaults for all targets, or a profile for some.

    It is a whole configuration file, and a part to merge into another.
    """
    if not changes:
        return "# Nothing better was confirmed: the settings stay as they are.\n{}\n"
    tree: dict[str, dict[str, float | int]] = {}
    for path, value in changes.items():
        group, _, leaf = path.partition(".")
        tree.setdefault(group, {})[leaf] = _plain(value)
    before = "policy" if profile is None else f"profiles.{profile}.policy"
    was = {item.path: item.default for item in declared(PolicyConfig())}
    comments = {f"{before}.{path}": f"shipped: {was[path]:g}" for path in changes}
    node: commented_yaml.Node = tree
    for key in reversed(before.split(".") if profile is None else ("profiles", profile, "policy")):
        node = {key: node}
    assert isinstance(node, Mapping), "settings are wrapped in at least one key"
    head = (
        "# For all targets: scaler serve --config patch.yaml, or merged into its own file.\n"
        if profile is None
        else f"# For the triggers that say profile: {profile}.\n"
    )
    return head + commented_yaml.dump(node, comments)


def scaled_object_patch(changes: Mapping[str, float]) -> str:
    """A JSON patch (RFC 6902) of the metadata of a ScaledObject's first trigger.

    A merge patch would replace the whole list of triggers.
    """
    keys = {item.path: item.metadata_key for item in declared(PolicyConfig())}
    head = (
        "# kubectl patch scaledobject NAME --type json --patch-file patch-scaledobject.yaml\n"
        "# The trigger of the scaler is the first one here; otherwise change the 0 in each path.\n"
    )
    operations = [
        {
            "op": "add",
            "path": f"/spec/triggers/0/metadata/{keys[path]}",
            "value": str(_plain(value)),
        }
        for path, value in changes.items()
    ]
    return head + yaml.safe_dump(operations, sort_keys=False)


def _plain(value: float) -> float | int:
    """Whole numbers without a point, as people write them; both are read as the same setting."""
    return int(value) if float(value).is_integer() else value
