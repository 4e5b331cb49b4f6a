"""Why a connection cannot be made, in one line that says what to change in its URL."""

from __future__ import annotations

import re
import ssl

from event_router.core.errors import ConfigurationError, EventRouterError, RedisUnavailable
from event_router.redis_client.address import RedisAddress
from event_router.redis_client.replies import translated

_HINTS = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "name the authority of the server's certificate as ssl_ca_certs in the URL",
    ),
    (
        "CERTIFICATE_REQUIRED",
        "the server asks for a client's certificate: ssl_certfile and ssl_keyfile in the URL",
    ),
    (
        "HANDSHAKE_FAILURE",
        "the server may ask for a client's certificate: ssl_certfile and ssl_keyfile in the URL",
    ),
    ("ALERT_UNKNOWN_CA", "the server does not trust the authority of the client's certificate, ssl_certfile"),
    ("ALERT_BAD_CERTIFICATE", "the server refuses the client's certificate, ssl_certfile"),
    ("WRONG_VERSION_NUMBER", "the port does not speak TLS: write redis:// instead of rediss://"),
)
_CLOSED = ("Connection closed by server", "Connection reset by peer", "Broken pipe", "EOF occurred")
_NO_PRIMARY = "No master found for"
_NO_SENTINEL = re.compile(r"unknown command .?SENTINEL", re.IGNORECASE)
_SILENT = "Timeout connecting"


def connection_problem(error: BaseException, address: RedisAddress) -> RedisUnavailable:
    """Return the error for a connection that could not be made, with what to do where that is known."""
    problem: EventRouterError = translated(error)
    text = " ".join(str(problem).split())
    sentinels = ", ".join(f"{host}:{port}" for host, port in address.sentinels)
    if _NO_PRIMARY in text:
        said = f"none of the Sentinels {sentinels} names a primary {address.service!r} that is up"
        return RedisUnavailable(said + _sentinels_hint(text, address))
    if _NO_SENTINEL.search(text):
        return RedisUnavailable(f"{sentinels}: no Sentinel is there but a server; name the Sentinels' ports")
    if hint := _hint(text):
        return RedisUnavailable(text + hint)
    if any(closed in text for closed in _CLOSED):
        text += _closed_hint(address)
    elif address.tls and _SILENT in text:
        text += "; if the port does not speak TLS, write redis:// instead of rediss://"
    return RedisUnavailable(text)


def _hint(text: str) -> str:
    codes = text.upper().replace(" ", "_")
    return next((f"; {hint}" for code, hint in _HINTS if code in codes), "")


def _sentinels_hint(text: str, address: RedisAddress) -> str:
    """Return what to change where Sentinels refused to be asked; nothing where they are just away."""
    if "WRONGPASS" in text or "NOAUTH" in text:
        return (
            "; at least one refuses the sentinel_username and sentinel_password in the URL, or their absence"
        )
    if hint := _hint(text):
        return hint
    return _closed_hint(address) if any(closed in text for closed in _CLOSED) else ""


def _closed_hint(address: RedisAddress) -> str:
    """Return why a server may close a connection; it may be gone before its TLS alert has arrived."""
    if not address.tls:
        more = "+sentinel" if address.sentinels else ""
        return f"; if the port speaks TLS, write rediss{more}:// instead of redis{more}://"
    if not address.options.get("ssl_certfile"):
        return "; if the server asks for a client's certificate: ssl_certfile and ssl_keyfile in the URL"
    return "; perhaps the server does not trust the authority of the client's certificate, ssl_certfile"


def check_tls_files(address: RedisAddress) -> None:
    """Raise ConfigurationError where a file of certificates that the URL names cannot be used."""
    authorities, folder = address.options.get("ssl_ca_certs"), address.options.get("ssl_ca_path")
    certificate, key = address.options.get("ssl_certfile"), address.options.get("ssl_keyfile")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    option, file = "ssl_ca_certs", authorities or folder
    try:
        if authorities or folder:
            context.load_verify_locations(cafile=authorities, capath=folder)
        option, file = ("ssl_keyfile", key) if key and not certificate else ("ssl_certfile", certificate)
        if key and not certificate:
            raise ConfigurationError(f"{address.redacted}: ssl_keyfile {key} needs an ssl_certfile beside it")
        if certificate:
            context.load_cert_chain(certificate, key, address.options.get("ssl_password") or "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(
            f"{address.redacted}: {option} {file} cannot be used: {' '.join(reason.split())}"
        ) from None
