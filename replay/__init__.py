"""Backtests of training callbacks: policies driven over recorded logs, headless.

`replay`, `sweep` and the frames of their answers are what a notebook needs. They are imported when they are asked
for, so that the command line pays for no more than it uses.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbmon.replay.api import epochs_frame, policies_frame, replay, sweep

__all__ = ["epochs_frame", "policies_frame", "replay", "sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from cbmon.replay import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
