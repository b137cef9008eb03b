"""Verifies tokens of an OpenID Connect provider (JWT, RFC 7519, read as RFC 8725 advises) here, with no call to anybody."""

import logging
import time
from dataclasses import dataclass
from typing import Any

import jwt

from lorafleet.errors import Unauthenticated
from service.access.api_tokens import PREFIX
from service.access.authenticators import Shown
from service.access.identity import Identity
from service.access.jwks import Keys

# Asymmetric only. With HS256 the provider's public key would be the secret, and `none` is not a signature at all.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
MOST_CHARACTERS = 16_384
MOST_PRINCIPAL = 200
MOST_LIFETIME_S = 10 * 366 * 86_400.0  # a token that is good for longer was made by mistake, if not by somebody else

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TokenRequirements:
    """What a good token says."""

    issuer: str
    audience: str
    principal_claim: str = "sub"
    leeway_s: float = 30.0  # how far the provider's clock may be from ours


class OidcTokens:
    """Knows callers by their provider's tokens."""

    def __init__(self, keys: Keys, required: TokenRequirements) -> None:
        self._keys = keys
        self._required = required

    def takes(self, shown: Shown) -> bool:
        return bool(shown.bearer) and not shown.bearer.startswith(PREFIX)

    async def identity(self, shown: Shown) -> Identity:
        """Raises Unauthenticated, and Unavailable while the provider's keys were never read."""
        if len(shown.bearer) > MOST_CHARACTERS:
            raise _invalid("it is too long")
        try:
            header = jwt.get_unverified_header(shown.bearer)
        except Exception:  # anything may come, and a library may trip over anything: a bad token is all that it is
            raise _invalid("it is no JWT") from None
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ALGORITHMS:
            raise _invalid("its algorithm is not one of those that are taken: " + ", ".join(sorted(ALGORITHMS)))
        if not isinstance(kid, str) or not kid:
            raise _invalid("it does not say which key signed it (kid)")
        key = await self._keys.key(kid)
        if key is None:
            raise _invalid("the identity provider has no key of that id")
        claims = self._claims(shown.bearer, key, algorithm)
        if not 0 < claims["exp"] < time.time() + MOST_LIFETIME_S:
            raise _invalid("its expiry (exp) is no time within ten years")
        return Identity(principal=f"oidc:{_principal(claims, self._required.principal_claim)}")

    def _claims(self, token: str, key: dict[str, Any], algorithm: str) -> dict[str, Any]:
        required = self._required
        if key.get("alg", algorithm) != algorithm:
            raise _invalid("its algorithm is not its key's")
        try:
            return jwt.decode(
                token,
                jwt.PyJWK.from_dict(key, algorithm=algorithm),
                algorithms=[algorithm],
                audience=required.audience,
                issuer=required.issuer,
                leeway=required.leeway_s,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token has expired; get a new one", reason="TOKEN_EXPIRED") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("the token is not valid yet; are the clocks right?", reason="TOKEN_NOT_YET_VALID") from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated(f'the token is for another audience than "{required.audience}"', reason="WRONG_AUDIENCE") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated(f'the token is of another issuer than "{required.issuer}"', reason="WRONG_ISSUER") from None
        except jwt.MissingRequiredClaimError as error:
            raise _invalid(f"it lacks the claim {error.claim}") from None
        except Exception as error:  # likewise
            log.info("a token was refused: %s", type(error).__name__)
            raise _invalid("its signature or its form is not good") from None


def _principal(claims: dict[str, Any], claim: str) -> str:
    name = claims.get(claim)
    if not isinstance(name, str) or not 1 <= len(name) <= MOST_PRINCIPAL or not name.isprintable():
        raise _invalid(f"its claim {claim} names no one: 1 to {MOST_PRINCIPAL} printable characters are needed")
    if claim == "email" and claims.get("email_verified", True) is not True:
        raise _invalid("its e-mail address is not verified")
    return name


def _invalid(problem: str) -> Unauthenticated:
    return Unauthenticated(f"the token is not good: {problem}", reason="TOKEN_INVALID")
