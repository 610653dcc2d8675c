"""How log lines look: readable on a terminal, JSON elsewhere, always on standard error."""

import logging
import os
import sys

import structlog

from scaler.config import LogConfig, LogFormat


def configure(config: LogConfig) -> None:
    """Set up structlog and route the standard library's loggers through it."""
    level = getattr(logging, config.level.upper())
    as_text = config.format is LogFormat.TEXT or (
        config.format is LogFormat.AUTO and sys.stderr.isatty()
    )
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=colours)
        if as_text
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=renderer, foreign_pre_chain=shared)
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
