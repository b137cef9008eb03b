"""No message holds a password, whatever it quotes."""

import pytest

from lorafleet.errors import InvalidInput, Unavailable, Violation
from lorafleet.redacting import without_passwords

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://lorafleet:{SECRET}@db:5432/lorafleet is away",
        f"connection to postgresql://lorafleet:p@ss/{SECRET}@db/lorafleet failed",
        f"proxy http://:{SECRET}@proxy:3128, then https://lorafleet:{SECRET}@store:9000/bucket",
        f"ConnectError('https://lorafleet:{SECRET}@store/')",
        f"HTTPSConnectionPool(host='x'): https://a:{SECRET}:more@store/b?c=d",
        f"postgresql://db/lorafleet?user=a&password={SECRET}&sslmode=require",
        f"conninfo: host=db user=a password='{SECRET} more' dbname=x",
        f"host=db PASSWORD={SECRET} dbname=x",
        f"https://b/k?X-Amz-Credential=a&X-Amz-Signature={SECRET}",
        f"aws_secret_access_key={SECRET}",
    ],
)
def test_a_password_is_blanked_out(text: str):
    for message in (without_passwords(text), str(Unavailable(text)), Unavailable(text).message, str(Violation(field="x", message=text))):
        assert SECRET not in message
        assert "***" in message


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://lorafleet@db:5432/lorafleet is away",
        "s3://bucket/a@b and http://127.0.0.1:8265/api/jobs",
        "ipv4:10.0.0.1:7600,10.0.0.2:7600 by ada@example.org",
        "password: must not be empty",
        "adapter.rank: 0 is not positive",
    ],
)
def test_what_is_no_password_stays(text: str):
    assert without_passwords(text) == text


def test_the_list_of_what_is_wrong_holds_none_either():
    violation = Violation(field="dataset.uri", message=f"https://a:{SECRET}@b is not granted")
    error = InvalidInput(str(violation), violations=[violation])
    assert SECRET not in f"{error}{error.violations}"
