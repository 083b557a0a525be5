"""What runs inside the training process: records a run without ever hurting it.

Importing this package loads the standard library and msgspec, no Keras and nothing of the screen.
"""

from cbmon.callbacks.monitor import Monitor

__all__ = ["Monitor"]
