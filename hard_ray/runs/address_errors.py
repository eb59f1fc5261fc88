"""What an error of MLflow's client means, in a sentence that says what to do."""

from __future__ import annotations

import re

from hard_ray.redaction import masked
from hard_ray.runs.local_database import REMEDY, TrackingError, UnreachableError
from hard_ray.runs.mlflow_client import status_of

LOGIN_CODES = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")


def explained(error: Exception, uri: str, shown: str) -> TrackingError:
    """The error as a sentence: UnreachableError if the address may answer later, else TrackingError."""
    text = masked(str(error).replace(uri, shown))
    status = status_of(error)
    if status in (401, 403) or getattr(error, "error_code", "") in LOGIN_CODES:
        return _refused(text, shown)
    if re.search("certificate.verify.failed", text, re.IGNORECASE):
        return TrackingError(
            f"MLflow at {shown} has a certificate that this machine does not trust; name its authority in "
            "MLFLOW_TRACKING_SERVER_CERT_PATH, or set MLFLOW_TRACKING_INSECURE_TLS=true"
        )
    if re.search("wrong.version.number|record layer failure", text, re.IGNORECASE):
        return TrackingError(f"MLflow at {shown} speaks no TLS; write http:// instead of https://")
    if status is not None or "valid JSON format" in text or "INTERNAL_ERROR: Response" in text:
        return _other_answer(status, shown)
    return _no_answer(text, uri, shown)


def _other_answer(status: int | None, shown: str) -> TrackingError:
    if status is not None and (status >= 500 or status in (408, 429)):
        return UnreachableError(f"MLflow at {shown} answers with an error ({status}); see the log of that server")
    answer = f"status {status}" if status is not None else "an answer that is not MLflow's"
    return TrackingError(
        f"{shown} is a web server, but not MLflow's ({answer}); give the address that `mlflow server` prints, as "
        "tracking.uri or MLFLOW_TRACKING_URI"
    )


def _no_answer(text: str, uri: str, shown: str) -> TrackingError:
    reason = _reason(text)
    if uri.startswith("http") and "failed with" in text:
        return UnreachableError(f"MLflow at {shown} does not answer ({reason}); start it, or correct the address")
    is_down = re.search(r"refused|timed out|timeout|could not translate|unreachable|resolve", text, re.IGNORECASE)
    kind = UnreachableError if is_down else TrackingError
    return kind(f"MLflow at {shown} cannot be used ({reason}); correct what it names; or {REMEDY}")


def _refused(text: str, shown: str) -> TrackingError:
    if "host" in text.lower() and "invalid" in text.lower():
        return TrackingError(
            f"MLflow at {shown} refuses this host name; start that server with it and its port in --allowed-hosts"
        )
    return TrackingError(
        f"MLflow at {shown} refuses the login, or this user may not write there; give MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in the environment"
    )


def _reason(text: str) -> str:
    """The part of a client's long message that names the cause."""
    known = (
        (
            r"Name or service not known|Failed to resolve|nodename nor servname|Temporary failure in name",
            "no such host",
        ),
        (r"Connection refused", "connection refused"),
        (r"timed out|timeout", "no answer in time"),
        (r"No module named '(\w+)'", "the Python package of its driver is not installed: "),
    )
    for pattern, said in known:
        found = re.search(pattern, text)
        if found:
            return f"{said}{found[1]}" if found.groups() else said
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason given"
