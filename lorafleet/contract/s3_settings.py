"""Says how to reach S3: endpoint, region, addressing style and trusted authorities, configured as for the AWS tools. Knows no credentials.

The SDK and the control plane (boto3) and the trainer (obstore) all read it here, so that what one of them reaches all do.
"""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from lorafleet.errors import InvalidInput

STYLE_ENV = "LORAFLEET_S3_ADDRESSING_STYLE"
REGIONS_ENV = "LORAFLEET_S3_BUCKET_REGIONS"  # BUCKET=REGION,...: of those that are not in the usual region

AddressingStyle = Literal["auto", "path", "virtual"]


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """`endpoint` None is AWS; `ca_bundle` is a PEM file, and None is whom the machine trusts."""

    endpoint: str | None = None
    region: str = "us-east-1"
    addressing_style: AddressingStyle = "auto"
    ca_bundle: str | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The environment's, and for what it does not say the AWS files'. Raises InvalidInput for what cannot be meant."""
        env = os.environ if environ is None else environ
        profile = _AwsProfile.of(env)
        endpoint = env.get("AWS_ENDPOINT_URL_S3") or env.get("AWS_ENDPOINT_URL") or profile.endpoint
        return cls(
            endpoint=endpoint or None,
            region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or profile.values.get("region") or cls.region,
            # Stores other than AWS's own seldom have a DNS name for each bucket.
            addressing_style=_style(env.get(STYLE_ENV) or profile.nested("s3").get("addressing_style") or ("path" if endpoint else "auto")),
            ca_bundle=_readable(env.get("AWS_CA_BUNDLE") or profile.values.get("ca_bundle")),
        )

    def boto3_client(self, session: Any, **config: Any) -> Any:
        """boto3's S3 client; `config` is what botocore's Config takes."""
        from botocore.config import Config

        usual = {
            "retries": {"mode": "standard"},  # exponential back-off with jitter
            "signature_version": "s3v4",  # of presigned URLs too: some stores and all newer regions take no other
            "s3": {"addressing_style": self.addressing_style},
            # Stores other than AWS's own refuse the checksum trailers that botocore adds by default.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
        config = cast(Any, Config)(**(usual | config))
        client = session.client("s3", endpoint_url=self.endpoint, region_name=self.region, verify=self.ca_bundle, config=config)
        client.meta.events.register("before-call.s3.HeadBucket", _ask_once)
        return client


def _ask_once(context: dict[str, Any], **_: Any) -> None:
    """botocore asks HeadBucket where a bucket is, and is sent to another region by its answer, too: without the header that says which,
    it would ask again and again until Python's stack ends."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def region_of(bucket: str, usual: str) -> str:
    """Where the bucket is, as far as this process was told; else the `usual` region."""
    return parse_regions(os.environ.get(REGIONS_ENV, "")).get(bucket, usual)


def learn_regions(regions: Mapping[str, str]) -> None:
    """Where these buckets are, for this process and those that it starts."""
    if regions:
        os.environ[REGIONS_ENV] = shown_regions(parse_regions(os.environ.get(REGIONS_ENV, "")) | dict(regions))


def shown_regions(regions: Mapping[str, str]) -> str:
    """As `parse_regions` takes them."""
    return ",".join(f"{bucket}={region}" for bucket, region in sorted(regions.items()))


def parse_regions(text: str) -> dict[str, str]:
    """Regions by bucket."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {bucket: region for bucket, _, region in pairs}


@dataclass(frozen=True)
class _AwsProfile:
    """What the AWS config file says of the profile in use, with what the credentials file adds."""

    values: Mapping[str, str]
    services: Mapping[str, str]

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        name = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
        config = _read(env.get("AWS_CONFIG_FILE") or "~/.aws/config")
        credentials = _read(env.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")
        section = f"profile {name}" if config.has_section(f"profile {name}") else name
        values = _section(config, section) | _section(credentials, name)
        return cls(values, _section(config, f"services {values.get('services', '')}"))

    @property
    def endpoint(self) -> str | None:
        return _nested(self.services.get("s3", "")).get("endpoint_url") or self.values.get("endpoint_url")

    def nested(self, key: str) -> dict[str, str]:
        return _nested(self.values.get(key, ""))


def _read(path: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(default_section="\0")  # [default] is a profile like any other
    try:
        parser.read_string(Path(path).expanduser().read_text())
    except OSError:  # none is fine, and one that may not be read is as good as none
        pass
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not an AWS file: {type(error).__name__}; correct it, or unset what names it") from None
    return parser


def _section(parser: configparser.RawConfigParser, name: str) -> dict[str, str]:
    return dict(parser[name]) if parser.has_section(name) else {}


def _nested(value: str) -> dict[str, str]:
    """The indented `key = value` lines under a key."""
    pairs = (line.partition("=") for line in value.splitlines() if "=" in line)
    return {key.strip(): inner.strip() for key, _, inner in pairs}


def _style(value: str) -> AddressingStyle:
    if value not in get_args(AddressingStyle):
        raise InvalidInput(f'{STYLE_ENV}: "{value}" is not one of {", ".join(get_args(AddressingStyle))}')
    return cast(AddressingStyle, value)


def _readable(path: str | None) -> str | None:
    if not path:
        return None
    file = Path(path).expanduser()
    try:
        file.open("rb").close()
    except OSError as error:
        raise InvalidInput(f"AWS_CA_BUNDLE: {path} cannot be read: {error.strerror}; name a PEM file") from None
    return str(file)
