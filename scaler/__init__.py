"""A KEDA external scaler for vLLM that looks one start-up time ahead."""

__version__ = "0.1.0"
