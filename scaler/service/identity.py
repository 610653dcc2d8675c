"""Whose call it is: the ScaledObjectRef of a request, checked and turned into a TriggerKey."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping

from scaler.config import ScalerConfig
from scaler.errors import ConfigError
from scaler.service.board import TriggerKey
from scaler.trigger import FROM_ENV, parse, relevant

Parse = Callable[[str, str, Mapping[str, str]], TriggerKey]
"""Namespace, name and metadata of a trigger to its key; raises ConfigError with every fault."""

CACHED_CALLS_MAX = 8192
CACHED_CHARS_MAX = 4096  # of one call, and of its faults; with the line above some 64 MiB at most
ENTRIES_MAX = 128  # of metadata; ours are a few dozen
METADATA_CHARS_MAX = 16_384
KEY_CHARS_MAX = 253
SHOWN_CHARS_MAX = 80  # of a value in a fault
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class KeyCache:
    """Keys of the calls seen last, faults included: parsing costs a hundred times a look-up.

    KEDA sends the same metadata with every call, in changing order.
    """

    def __init__(self, parse: Parse) -> None:
        self._parse = parse
        self._found: OrderedDict[object, TriggerKey | tuple[str, ...]] = OrderedDict()

    def key(self, namespace: str, name: str, metadata: Mapping[str, str]) -> TriggerKey:
        """The key of a call.

        Raises:
            ConfigError: with every fault of its names and metadata.
        """
        chars = len(namespace) + len(name) + sum(len(key) + len(metadata[key]) for key in metadata)
        if chars > CACHED_CHARS_MAX:
            return self._parse(namespace, name, metadata)
        call = (namespace, name, frozenset(metadata.items()))
        found = self._found.get(call)
        if found is None:
            found = self._parsed(namespace, name, metadata)
            self._keep(call, found)
        else:
            self._found.move_to_end(call)
        if isinstance(found, TriggerKey):
            return found
        raise ConfigError(*found)

    def _keep(self, call: object, found: TriggerKey | tuple[str, ...]) -> None:
        """Remember, unless a hundred faults make it larger than any honest call."""
        if isinstance(found, tuple) and sum(map(len, found)) > CACHED_CHARS_MAX:
            return
        self._found[call] = found
        if len(self._found) > CACHED_CALLS_MAX:
            self._found.popitem(last=False)

    def clear(self) -> None:
        """Forget everything: what a call means may have changed."""
        self._found.clear()

    def _parsed(
        self, namespace: str, name: str, metadata: Mapping[str, str]
    ) -> TriggerKey | tuple[str, ...]:
        try:
            return self._parse(namespace, name, metadata)
        except ConfigError as error:
            return error.faults


def key_parser(config: Callable[[], ScalerConfig]) -> Parse:
    """The parser of the daemon under the configuration that ``config`` returns at each call."""

    def parsed(namespace: str, name: str, metadata: Mapping[str, str]) -> TriggerKey:
        faults = [*name_faults(namespace, name), *size_faults(metadata)]
        if faults:  # what is too large is not looked into
            raise ConfigError(*faults)
        try:
            parse(metadata, config())
        except ConfigError as error:
            raise ConfigError(
                *(without_secrets(fault, metadata) for fault in error.faults)
            ) from None
        return TriggerKey(namespace=namespace, name=name, metadata=relevant(metadata))

    return parsed


def name_faults(namespace: str, name: str) -> list[str]:
    """What Kubernetes would refuse in a ScaledObject's namespace and name (RFC 1123)."""
    faults = []
    if len(namespace) > 63 or not _NAMESPACE.fullmatch(namespace):
        faults.append(f"namespace = {_shown(namespace)}, must be a DNS label of 1 to 63 characters")
    if len(name) > 253 or not _NAME.fullmatch(name):
        faults.append(f"name = {_shown(name)}, must be a DNS subdomain of 1 to 253 characters")
    return faults


def size_faults(metadata: Mapping[str, str]) -> list[str]:
    """Metadata larger than any honest trigger's."""
    faults = []
    if len(metadata) > ENTRIES_MAX:
        faults.append(f"scalerMetadata has {len(metadata)} entries, must be at most {ENTRIES_MAX}")
    size = sum(len(key) + len(value) for key, value in metadata.items())
    if size > METADATA_CHARS_MAX:
        faults.append(f"scalerMetadata has {size} characters, must be at most {METADATA_CHARS_MAX}")
    faults.extend(
        f"key {_shown(key)} is longer than {KEY_CHARS_MAX} characters"
        for key in metadata
        if len(key) > KEY_CHARS_MAX
    )
    return faults


def without_secrets(fault: str, metadata: Mapping[str, str]) -> str:
    """``fault`` without the values that KEDA took from a container's environment.

    Messages end up in Kubernetes events; a variable named by mistake may hold a password.
    """
    for key, value in metadata.items():
        if key.endswith(FROM_ENV) and value:
            hidden = f"<value of {key}>"
            fault = fault.replace(repr(value), hidden)
            if len(value) >= 4:  # shorter ones occur in ordinary words and numbers
                fault = fault.replace(value, hidden)
    return fault


def _shown(text: str) -> str:
    """``text`` as a literal, cut to a length fit for a message."""
    return repr(text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}...")
