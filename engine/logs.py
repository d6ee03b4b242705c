"""How the engine's log looks: readable on a terminal, JSON lines elsewhere. Workers have no log, they report."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

from engine.settings import LogSettings


def configure(settings: LogSettings) -> None:
    """Write to stderr in this form and from this level on."""
    is_console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    renderer: Any = structlog.dev.ConsoleRenderer() if is_console else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
