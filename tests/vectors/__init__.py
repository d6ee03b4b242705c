"""Published test vectors: the JSON files beside this one, hex strings left as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent


def load(name: str) -> Any:
    """The content of one file, named with or without its `.json`."""
    return json.loads((_FOLDER / name).with_suffix(".json").read_text(encoding="utf-8"))
