"""The control plane's access to stores: small objects of known size, in bounded time. Knows no job."""
