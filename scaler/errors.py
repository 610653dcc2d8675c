"""The three families of errors, by who must act."""


class ScalerError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(ScalerError):
    """The operator must act: a setting, a file or trigger metadata is wrong.

    ``faults`` lists every fault found, each naming key, value and allowed range.
    """

    def __init__(self, *faults: str) -> None:
        assert faults, "a ConfigError names at least one fault"
        super().__init__("; ".join(faults))
        self.faults: tuple[str, ...] = faults


class SignalError(ScalerError):
    """The world failed: retried, and turned into ``NoData`` at the edge of the shell."""


class ScenarioError(ScalerError):
    """The author of a simulation must act: a trace or a scenario is wrong."""
