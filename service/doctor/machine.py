"""Checks what the server needs of its machine and of what is around: disk, ports, certificate, Ray, identity provider, report address."""

import asyncio
import errno
import importlib.util
import shutil
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lorafleet.errors import LorafleetError, Unavailable
from lorafleet.transport.addresses import host_of, split
from service.access.settings import AccessSettings
from service.backends.http import Http
from service.backends.ray_jobs import JoinedRay
from service.doctor.findings import Finding, failed, ok, skipped, warning

if TYPE_CHECKING:
    from cryptography import x509

MIN_FREE_BYTES = 2**30
WARN_FREE_BYTES = 10 * 2**30
WARN_EXPIRY = timedelta(days=14)


async def check_disk(folder: Path) -> Sequence[Finding]:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    message = f"{free / 2**30:.1f} GiB are free in {there}"
    todo = "free space, or choose another --state-dir: the database, logs and local checkpoints lie there"
    if free < MIN_FREE_BYTES:
        return [failed("disk", message, todo)]
    return [warning("disk", message, todo)] if free < WARN_FREE_BYTES else [ok("disk", message)]


async def check_standby(num_workers: int, memory_gib: float) -> Sequence[Finding]:
    """Whether workers would come up to stand by for a first job."""
    if not num_workers:
        return [ok("standby", "no workers stand by: the first job of an idle server waits until its own are up")]
    free_gib = psutil.virtual_memory().available / 2**30
    message = (
        f"{num_workers} standby {'worker' if num_workers == 1 else 'workers'} of up to {memory_gib:g} GiB each; {free_gib:.1f} GiB are free"
    )
    todo = "free memory, or set --standby-workers 0: none comes up while less than that is free"
    return [ok("standby", message) if free_gib >= memory_gib else warning("standby", message, todo)]


async def check_port(option: str, where: str) -> Sequence[Finding]:
    """Whether a server could listen on that HOST:PORT. One that listens already may be ours."""
    try:
        host, port = split(where)
    except ValueError as error:
        return [failed(option, str(error), "write it as 127.0.0.1:7600 or [::1]:7600")]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                todo = "if that is lorafleet serve itself all is well; else stop it, or choose another port"
                return [warning(option, f"another process listens on {where}", todo)]
            return [failed(option, f"{where} cannot be listened on: {error.strerror}", f"give {option} an address of this machine")]
    return [ok(option, f"{where} is free")]


async def check_access(access: AccessSettings, listen: str) -> Sequence[Finding]:
    """What lorafleet serve itself refuses to start with."""
    try:
        access.check(host_of(listen))
    except LorafleetError as error:
        return [failed("access", error.message, "lorafleet serve does not start like this: set what the message names")]
    if not access.has_authenticator:
        return [ok("access", "no authenticator: every user of this machine has every permission; nobody else can call")]
    return [ok("access", "callers are asked who they are")]


async def check_certificate(path: Path | None, reached_as: str) -> Sequence[Finding]:
    """Expiry, and whether the names in it are those by which the server is reached."""
    if path is None:
        return [skipped("TLS", "no --tls-cert: plaintext, on loopback only")]
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificates(await asyncio.to_thread(path.read_bytes))[0]
    except (OSError, ValueError) as error:
        return [failed("TLS", f"{path} is not a certificate: {error}", "give --tls-cert a PEM file, the server's own certificate first")]
    findings = [_expiry(path, certificate.not_valid_before_utc, certificate.not_valid_after_utc)]
    names = _names(certificate)
    return [*findings, *(_named(path, names, host_of(each)) for each in addresses(reached_as))]


def _named(path: Path, names: Sequence[str], host: str) -> Finding:
    if _is_named(host, names):
        return ok("TLS", f"{path} names {host}")
    todo = f"have it made again with {host} among its subject alternative names, or set --report-address to one that it has"
    return failed("TLS", f"{path} names {', '.join(names) or 'no host'}, not {host}", todo)


def _expiry(path: Path, begins: datetime, ends: datetime) -> Finding:
    now = datetime.now(UTC)
    todo = "renew it and put it in place: lorafleet serve reloads it without a restart"
    if ends <= now:
        return failed("TLS", f"{path} expired on {ends:%Y-%m-%d %H:%M} UTC", todo)
    if begins > now:
        return failed("TLS", f"{path} is only good from {begins:%Y-%m-%d %H:%M} UTC", "check this machine's clock, and the certificate")
    message = f"{path} is good until {ends:%Y-%m-%d %H:%M} UTC"
    return warning("TLS", message, todo) if ends - now < WARN_EXPIRY else ok("TLS", message)


def _names(certificate: "x509.Certificate") -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *(str(address) for address in names.get_values_for_type(x509.IPAddress))]


def _is_named(host: str, names: Sequence[str]) -> bool:
    first, _, rest = host.partition(".")
    return host in names or (bool(first) and f"*.{rest}" in names)


async def check_ray(address: str, token: str | None) -> Sequence[Finding]:
    if not address:
        if importlib.util.find_spec("ray") is None:
            todo = "pip install 'lorafleet[trainer]', or set --ray-address to a Ray that is there"
            return [failed("Ray", "no --ray-address, and Ray is not installed here", todo)]
        where = "which is installed here and listens on loopback alone, but for torch's meeting point while a job trains"
        return [ok("Ray", f"no --ray-address: lorafleet serve starts a Ray of its own, {where}")]
    http = Http()
    try:
        await JoinedRay(address, token, http).endpoint()
    except Unavailable as error:
        todo = (
            "check RAY_AUTH_TOKEN" if error.reason == "RAY_TOKEN_REFUSED" else f"check that {address} is the dashboard's address and is up"
        )
        return [failed("Ray", error.message, todo)]
    except (LorafleetError, ValueError) as error:
        return [failed("Ray", f"{address} is not a Ray: {error}", "give --ray-address the http:// address of the Jobs API (port 8265)")]
    finally:
        await http.close()
    return [ok("Ray", f"{address} answers{'' if token else ' without a token'}")]


async def check_keys(where: str) -> Sequence[Finding]:
    """The identity provider's keys, as the authenticator reads them."""
    if not where:
        return [skipped("OIDC", "no --oidc-jwks")]
    from service.access import jwks

    try:
        keys = jwks.parse(await jwks.source(where)())
    except Exception as error:  # file, network, format: whatever it is, no caller could log in
        return [failed("OIDC", f"{where}: {type(error).__name__}: {error}", "check --oidc-jwks; callers cannot be known without it")]
    if not keys:
        return [failed("OIDC", f"{where} has no signing key with an id", "check that it is the provider's jwks_uri")]
    return [ok("OIDC", f"{where} has {len(keys)} keys")]


def addresses(target: str) -> list[str]:
    """Each HOST:PORT of one, or of several as ipv4:10.0.0.1:7600,10.0.0.2:7600."""
    return target.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:").lstrip("/").split(",")


async def check_report_address(target: str) -> Sequence[Finding]:
    """Whether the report address accepts connections, as seen from here."""
    if not target:
        return [skipped("report address", "no --report-address: runs report to where the server listens")]
    return [await _reached(address) for address in addresses(target)]


async def _reached(address: str) -> Finding:
    todo = "start lorafleet serve, or correct --report-address; try the same from a Ray node, which may see another network"
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(*split(address)), 5)
    except (OSError, TimeoutError, ValueError) as error:
        return failed("report address", f"{address} cannot be reached from here ({type(error).__name__})", todo)
    writer.close()
    return ok("report address", f"{address} can be reached from here")
