"""cbmon watches Keras training from a terminal and backtests training callbacks on recorded logs.

Importing this package loads nothing else: training scripts take `from cbmon.callbacks import Monitor`,
scripts that read logs take what they need from the modules below it.
"""

__version__ = "0.1.0"
"""The version of this release; tests/test_layout.py holds it equal to the one in pyproject.toml."""
