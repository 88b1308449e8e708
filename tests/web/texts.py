"""The script .ci/texts.py and its schema reader, as modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent / ".ci"))

import node_schemas
import texts

__all__ = ["node_schemas", "texts"]
