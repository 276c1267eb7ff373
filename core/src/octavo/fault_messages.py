"""What requests are told whose steps fail or hang."""

from __future__ import annotations

__all__ = ["blame_message", "hang_message"]


def blame_message(failure: str, num_blamed: int) -> str:
    """Why requests ended whose steps failed when they ran alone."""
    if num_blamed == 1:
        return (
            "The backend failed in a step of this request, which it ran alone a second time: "
            f"{failure} Other requests are not affected."
        )
    return (
        "The backend failed in the steps of several requests in a row, each run alone, so that the "
        f"device itself seems to be at fault: {failure}"
    )


def hang_message(error: BaseException) -> str:
    """Why an engine has stopped whose step did not come back."""
    return (
        f"A step hangs ({error}; the limit is step_timeout_s) and was left behind, with the device "
        "in an unknown state. Start the process anew; if the step was only slow, as a first step "
        "that compiles may be, raise step_timeout_s."
    )
