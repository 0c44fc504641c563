"""Bytes from outside, any bytes. `make fuzz` looks for new ones, `test_seeds.py` tries those kept."""

from pathlib import Path

SEEDS = Path(__file__).with_name("seeds")
