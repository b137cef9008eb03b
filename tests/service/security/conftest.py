"""The API over a real socket, as the API's own tests have it."""

from tests.service.api.conftest import api

__all__ = ["api"]
