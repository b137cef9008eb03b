"""An open connection to the API server, with its credentials. The one place that knows kubernetes_asyncio, whose own types are partial:
what is used of it is said here. It is imported with the first call and in a thread: it takes seconds, and the control plane
answers before.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TypedDict

from lorafleet.errors import Unavailable

if TYPE_CHECKING:
    import aiohttp
    from kubernetes_asyncio.client import ApiClient

_Credential = TypedDict("_Credential", {"in": str, "key": str, "value": str | None})


class _Configuration(Protocol):
    """kubernetes_asyncio's Configuration."""

    @property
    def host(self) -> str | None: ...

    async def auth_settings(self) -> Mapping[str, _Credential]:
        """By scheme."""
        ...


class _Loaders(Protocol):
    """kubernetes_asyncio.config."""

    def load_incluster_config(self, client_configuration: _Configuration) -> None:
        """Raises ConfigException."""
        ...

    async def load_kube_config(self, config_file: str | None, *, client_configuration: _Configuration) -> object:
        """Raises ConfigException."""
        ...


class _Pool(Protocol):
    """kubernetes_asyncio's RESTClientObject."""

    @property
    def pool_manager(self) -> "aiohttp.ClientSession": ...
    @property
    def server_hostname(self) -> str | None: ...
    @property
    def proxy(self) -> str | None: ...


class Connection:
    """To one API server."""

    def __init__(self, settings: _Configuration, client: "ApiClient") -> None:
        self._settings = settings
        self._client = client
        self._pool: _Pool = client.rest_client

    @property
    def host(self) -> str:
        """Its URL."""
        return self._settings.host or ""

    async def authorization(self) -> dict[str, str]:
        """The credentials as they are now, as headers: service accounts' tokens and those of plugins are renewed."""
        found = await self._settings.auth_settings()
        return {each["key"]: each["value"] for each in found.values() if each["in"] == "header" and each["value"]}

    def request(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        data: str | None,
        within: "aiohttp.ClientTimeout",
    ) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
        """The answer while it comes. Raises what aiohttp raises."""
        return self._pool.pool_manager.request(
            verb,
            f"{self.host.rstrip('/')}{path}",
            params=dict(query),
            headers=headers,
            data=data,
            timeout=within,
            server_hostname=self._pool.server_hostname or None,
            proxy=self._pool.proxy or None,
        )

    async def close(self) -> None:
        await self._client.close()


async def connect(kubeconfig: str | None) -> Connection:
    """`kubeconfig`: None takes KUBECONFIG or, in a pod, the pod's service account. Raises Unavailable (KUBERNETES_NOT_CONFIGURED)."""
    await asyncio.to_thread(__import__, "kubernetes_asyncio.client")
    from kubernetes_asyncio import config
    from kubernetes_asyncio.client import ApiClient, Configuration

    settings = Configuration()
    settings.connection_pool_maxsize = 0  # no bound: each namespace holds three open for its watches, and calls need some beside
    try:
        await _load(config, settings, kubeconfig)
        return Connection(settings, ApiClient(settings))
    except (config.ConfigException, OSError, ValueError) as error:
        told = f"no Kubernetes API server is known: {error}; run in a pod with a service account, or set KUBECONFIG"
        raise Unavailable(told, reason="KUBERNETES_NOT_CONFIGURED") from None


async def _load(loaders: _Loaders, into: _Configuration, kubeconfig: str | None) -> None:
    in_pod = os.environ.get("KUBERNETES_SERVICE_HOST") and not (kubeconfig or os.environ.get("KUBECONFIG"))
    if in_pod:
        loaders.load_incluster_config(into)
    else:
        await loaders.load_kube_config(kubeconfig, client_configuration=into)
