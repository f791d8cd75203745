"""Addresses, the environment that leads to their stores, and what refusals mean."""

import pytest

from alps.engine.base.errors import SettingsError
from alps.engine.stores.address import Address, is_address, shown_path
from alps.engine.stores.client import CONFLICT, FAILING, MISSING, REFUSED, explained
from alps.engine.stores.environment import gdal_options, is_plain_http, obstore_options


@pytest.mark.parametrize(
    ("text", "gdal"),
    [
        ("s3://bucket/a/b.tif", "/vsis3/bucket/a/b.tif"),
        ("gs://bucket/a b.tif", "/vsigs/bucket/a b.tif"),
        ("az://container/a.tif", "/vsiaz/container/a.tif"),
        ("https://host:8080/a.tif?sig=x//y", "/vsicurl/https://host:8080/a.tif?sig=x//y"),
    ],
)
def test_addresses_and_gdals_names_are_one_another(text, gdal):
    address = Address.parse(text)
    assert (str(address), address.gdal) == (text, gdal)
    assert Address.of_gdal(gdal) == address and shown_path(gdal) == text


def test_a_prefix_has_no_slash_at_its_end_and_a_bucket_no_key():
    assert Address.parse("s3://bucket/a/").key == "a"
    assert str(Address.parse("s3://bucket/")) == "s3://bucket"
    assert Address.parse("https://host/x/a.tif?size=1/2").name == "a.tif"


def test_what_lies_below():
    place = Address.parse("s3://bucket/a")
    assert place.holds(place) and place.holds(place.at("a/b")) and not place.holds(place.at("ab"))
    assert place.at("").holds(place) and not place.holds(Address.parse("gs://bucket/a"))


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:///a", "s3://b/../a", "s3://b/a//b", "ftp://h/a.tif", "https://u:secret@h/a.tif"],
)
def test_what_can_be_no_address(text):
    with pytest.raises(SettingsError) as error:
        Address.parse(text)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_paths_are_none(tmp_path):
    assert not is_address("a/b.tif") and not is_address(tmp_path) and is_address("s3://a")
    assert Address.of_gdal("/vsizip/a.zip/b.tif") is None and shown_path(tmp_path) == str(tmp_path)


KEYS = {"AWS_ACCESS_KEY_ID": "a"}


@pytest.mark.parametrize(
    ("scheme", "env", "gdal", "obstore"),
    [
        (
            "s3",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000/", "AWS_DEFAULT_REGION": "eu-1", **KEYS},
            {"AWS_S3_ENDPOINT": "127.0.0.1:9000", "AWS_HTTPS": "NO",
             "AWS_VIRTUAL_HOSTING": "FALSE", "AWS_REGION": "eu-1"},
            {"endpoint": "http://127.0.0.1:9000/", "virtual_hosted_style_request": False,
             "region": "eu-1"},
        ),
        (
            "s3",
            {"AWS_S3_ENDPOINT": "host:1", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "TRUE", **KEYS},
            {},
            {"endpoint": "http://host:1", "virtual_hosted_style_request": True},
        ),
        ("s3", {"AWS_SKIP_SIGNATURE": "true"}, {"AWS_NO_SIGN_REQUEST": "YES"},
         {"skip_signature": True}),
        ("s3", {"AWS_NO_SIGN_REQUEST": "YES"}, {}, {"skip_signature": True}),
        ("s3", KEYS, {}, {}),
        ("gs", {"GOOGLE_SERVICE_ACCOUNT": "f", "GOOGLE_SKIP_SIGNATURE": "1"},
         {"GOOGLE_APPLICATION_CREDENTIALS": "f", "GS_NO_SIGN_REQUEST": "YES"},
         {"skip_signature": True}),
        ("az", {"AZURE_STORAGE_ACCOUNT_NAME": "n", "AZURE_STORAGE_ACCOUNT_KEY": "k",
                "AZURE_STORAGE_SAS_KEY": "s"},
         {"AZURE_STORAGE_ACCOUNT": "n", "AZURE_STORAGE_ACCESS_KEY": "k",
          "AZURE_STORAGE_SAS_TOKEN": "s"},
         {"account_name": "n", "account_key": "k", "sas_key": "s"}),
        ("az", {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=n;AccountKey=k=;BlobEndpoint=h:x"},
         {}, {"account_name": "n", "account_key": "k=", "endpoint": "h:x"}),
        ("https", {}, {}, {}),
    ],
)  # fmt: skip
def test_what_one_of_the_two_would_not_know(scheme, env, gdal, obstore, tmp_path):
    env = {"HOME": str(tmp_path), **env}
    assert gdal_options(scheme, env) == gdal
    assert obstore_options(scheme, env) == obstore


def test_only_an_endpoint_without_tls_is_asked_without():
    assert is_plain_http("s3", {"AWS_ENDPOINT_URL": "http://h", **KEYS}) and is_plain_http("http")
    assert not is_plain_http("s3", {"AWS_ENDPOINT_URL": "https://h", **KEYS})
    assert not is_plain_http("s3", KEYS) and not is_plain_http("https", {})


def test_keys_in_the_files_of_awss_tools(tmp_path):
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = a\naws_secret_access_key = b\n[other]\n"
        "aws_access_key_id = c\naws_secret_access_key = d%(x)\naws_session_token = e\n"
    )
    (tmp_path / ".aws" / "config").write_text("[profile other]\nregion = eu-2\n")
    env = {"HOME": str(tmp_path)}
    found = {"access_key_id": "a", "secret_access_key": "b"}
    assert obstore_options("s3", env) == found
    other = {"access_key_id": "c", "secret_access_key": "d%(x)", "session_token": "e"}
    assert obstore_options("s3", env | {"AWS_PROFILE": "other"}) == other | {"region": "eu-2"}
    assert obstore_options("s3", env | {"AWS_PROFILE": "none"}) == {}
    (tmp_path / ".aws" / "credentials").write_bytes(b"no\xff section")
    assert obstore_options("s3", env) == {}


class PermissionDeniedError(Exception):
    """As obstore's."""


class PreconditionError(Exception):
    """As obstore's."""


@pytest.mark.parametrize(
    ("error", "kind", "mend"),
    [
        (PermissionDeniedError("status code: 403 Forbidden: <Code>SlowDown</Code>"), REFUSED,
         "403 SlowDown"),
        (PreconditionError("x"), CONFLICT, "meanwhile"),
        (OSError("Server returned non-2xx status code: 404: <Code>NoSuchBucket</Code>"), MISSING,
         "no bucket b"),
        (FileNotFoundError("gone"), MISSING, "not there"),
        (OSError("status code: 503 <Code>SlowDown</Code>"), FAILING, "answers 503 SlowDown"),
        (OSError("Received redirect without LOCATION, this normally indicates an incorrectly "
                 "configured region"), FAILING, "AWS_REGION"),
        (OSError("Error getting credentials from instance metadata"), REFUSED, "AWS_ACCESS_KEY_ID"),
        (OSError("Generic S3 error: in 3s - HTTP error: error sending request\n\nDebug source:\nX"),
         FAILING, ": HTTP error: error sending request;"),
    ],
)  # fmt: skip
def test_refusals_in_words(error, kind, mend):
    found = explained(error, Address.parse("s3://b/k"), "read")
    assert found.kind == kind and mend in str(found) and "s3://b/k" in str(found)
    assert "\n" not in str(found) and "Debug" not in str(found)
