"""Tells how far two clocks are apart, and whether that matters."""

from service.doctor.findings import Finding, failed, ok, warning

WARN_S = 5.0
FAIL_S = 60.0  # S3 refuses signatures at 15 minutes; tokens and locks suffer long before
_SYNCHRONIZE = "synchronise this machine's clock (NTP, chrony)"


def skew(check: str, apart_s: float, *, precise_s: float = 0.5) -> Finding:
    """`apart_s`: theirs less ours. `precise_s`: how well that is known."""
    message = f"their clock is {abs(apart_s):.1f} s {'ahead of' if apart_s > 0 else 'behind'} ours"
    if abs(apart_s) >= FAIL_S:
        return failed(check, message, _SYNCHRONIZE)
    if abs(apart_s) >= WARN_S:
        return warning(check, message, _SYNCHRONIZE)
    return ok(check, f"within {max(precise_s, abs(apart_s)):.1f} s of ours")
