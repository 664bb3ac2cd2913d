"""The whole stack on your own machine."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
