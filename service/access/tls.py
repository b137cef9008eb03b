"""Serves TLS with certificates from files, reloaded when they change."""

import logging
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from lorafleet.errors import InvalidInput

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class CertificateFiles:
    """The certificate of a listener; with `client_ca`, every client must present one."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises OSError, and ssl.SSLError for a certificate and a key that do not belong together."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        roots = None
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            roots = self.client_ca.read_bytes()
        return grpc.ssl_server_certificate_configuration([(self.key.read_bytes(), self.cert.read_bytes())], roots)

    def stamp(self) -> _Stamp:
        """Another one after every change. A link that is set elsewhere, as Kubernetes renews secrets, is a change too."""
        found = [path.stat() for path in (self.cert, self.key, self.client_ca) if path is not None]
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in found)


class Reloading:
    """Asked at each handshake, from gRPC's threads: a look at three files, and a new configuration when they changed."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._stamp: _Stamp | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises InvalidInput for files that cannot serve."""
        try:
            self._stamp = self._files.stamp()
            first = self._files.read()
        except (OSError, ssl.SSLError) as error:
            message = f"the certificate {self._files.cert} with the key {self._files.key} cannot be used: {error}"
            raise InvalidInput(message, reason="BAD_CERTIFICATE") from None
        newer: Any = self.newer  # may answer None, of which gRPC's stubs do not know
        return grpc.dynamic_ssl_server_credentials(first, newer, require_client_authentication=self._files.client_ca is not None)

    def newer(self) -> grpc.ServerCertificateConfiguration | None:
        """None: go on with what there is. So it is too while files are half renewed: the next handshake looks again."""
        with self._lock:
            try:
                stamp = self._files.stamp()
                if stamp == self._stamp:
                    return None
                configuration = self._files.read()
            except (OSError, ssl.SSLError) as error:
                log.warning("the certificate %s was changed and cannot be used yet: %s", self._files.cert, error)
                return None
            self._stamp = stamp
            log.info("the certificate %s was reloaded", self._files.cert)
            return configuration
