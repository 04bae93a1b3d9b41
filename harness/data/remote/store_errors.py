"""Sentences for what goes wrong between this machine and a store: each package raises classes of its own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from harness.core.cache.cache_dir import cache_error, cache_root
from harness.core.errors import UserError, cause_chain, did_you_mean

PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp",
    "hf": "huggingface_hub", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip
LOGINS = {
    "s3": "run `aws configure`, or set AWS_PROFILE", "gs": "run `gcloud auth application-default login`",
    "gcs": "run `gcloud auth application-default login`", "hf": "run `hf auth login`, or set HF_TOKEN",
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (401, 403)
_DENIED_NAMES = ("Credential", "Auth", "Gated", "TokenRetrieval", "RefreshError", "Forbidden")
_NETWORK_NAMES = ("Connect", "Timeout", "Disconnected", "Payload", "HTTPClientError", "gaierror", "SSLError")


class UnreachableStore(UserError):
    """A store that cannot be asked now: without network, without the right to read, or without a package."""


@contextmanager
def store_errors(where: str, url: str) -> Iterator[None]:
    """Convert what a store's package raises to UserError. `where` begins the message: key and value."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise _sentence(where, url, error) from error


def is_network_error(error: BaseException) -> bool:
    """Return whether the network failed, so that another try may succeed."""
    return any(
        isinstance(cause, ConnectionError | TimeoutError)
        or any(word in type(cause).__name__ for word in _NETWORK_NAMES)
        for cause in cause_chain(error)
    )


def _sentence(where: str, url: str, error: Exception) -> UserError:
    if isinstance(error, OSError) and str(error.filename).startswith(str(cache_root())):
        return _disk_sentence(where, error)
    protocol = url.partition(":")[0].lower()
    causes = list(cause_chain(error))
    if any(isinstance(cause, ImportError) for cause in causes):
        names = [cause.name for cause in causes if isinstance(cause, ImportError) and cause.name]
        package = PACKAGES.get(protocol) or (names[0] if names else protocol)
        return UnreachableStore(f"{where}: {protocol} needs another package. Run `pip install {package}`.")
    if "Protocol not known" in str(error):
        return UserError(f"{where}: there is no protocol {protocol}; {did_you_mean(protocol, PACKAGES)}")
    if any(map(_is_denied, causes)):
        login = LOGINS.get(protocol, "give this machine credentials that may read it")
        return UnreachableStore(f"{where} may not be read with your credentials, or needs some: {login}.")
    if is_network_error(error):
        reason = f"{type(causes[-1]).__name__}: {causes[-1]}"
        return UnreachableStore(
            f"{where} cannot be reached ({' '.join(reason.split())}). Check the network, or copy it here."
        )
    if any(isinstance(cause, FileNotFoundError) or _status(cause) == 404 for cause in causes):
        return UserError(f"{where} does not exist. Check the host, bucket or repository, and the name.")
    if isinstance(error, OSError) and error.errno in _FULL:  # of a write, which names no file
        return _disk_sentence(where, error)
    reason = f"{type(error).__name__}: {error}"
    return UserError(f"{where} cannot be read ({' '.join(reason.split())}). Check it, or copy it here.")


def _disk_sentence(where: str, error: OSError) -> UserError:
    if error.errno not in _FULL:
        return cache_error(cache_root(), error)
    return UserError(
        f"{where}: the disk of the cache is full. Free some space, or set AB_HARNESS_CACHE=FOLDER; what "
        "arrived is kept."
    )


def _is_denied(cause: BaseException) -> bool:
    name = type(cause).__name__
    is_named = isinstance(cause, PermissionError) or any(word in name for word in _DENIED_NAMES)
    return is_named or _status(cause) in _DENIED


def _status(cause: BaseException) -> int | None:
    """Return the HTTP status of an exception of aiohttp, httpx, requests or gcsfs."""
    for holder in (cause, getattr(cause, "response", None)):
        for name in ("status", "status_code", "code"):
            if isinstance(status := getattr(holder, name, None), int):
                return status
    return None
