"""Credentials and endpoints: one environment, understood by obstore and by GDAL alike.

Both read it themselves, under names that differ in part. Whatever one of them would miss is told to
it here; a name of its own counts first.
"""

import configparser
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

YES = {"1", "true", "yes", "on"}
AWS_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
AWS_UNSIGNED = ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
AWS_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
GS_UNSIGNED = ("GS_NO_SIGN_REQUEST", "GOOGLE_SKIP_SIGNATURE")
GS_ACCOUNTS = (
    "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH",
)  # fmt: skip
AZ_UNSIGNED = ("AZURE_NO_SIGN_REQUEST", "AZURE_SKIP_SIGNATURE")
AZ_ACCOUNTS = ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME")
AZ_KEYS = (
    "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_MASTER_KEY",
)  # fmt: skip
AZ_SIGNATURES = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
AZ_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"

Variables = Mapping[str, str]


def gdal_options(scheme: str, env: Variables = os.environ) -> dict[str, str]:
    """What GDAL must be told of a kind of store, beside what it reads from ``env`` itself."""
    found: dict[str, str] = {}
    if scheme == "s3":
        endpoint = urlsplit(_first(env, AWS_ENDPOINTS) or "")
        if endpoint.netloc:
            found["AWS_S3_ENDPOINT"] = endpoint.netloc + endpoint.path.rstrip("/")
            found["AWS_HTTPS"] = "NO" if endpoint.scheme == "http" else "YES"
            found["AWS_VIRTUAL_HOSTING"] = "TRUE" if _is_virtual(env) else "FALSE"
        found |= _unsigned(env, AWS_UNSIGNED)
        if region := _first(env, AWS_REGIONS):
            found["AWS_REGION"] = region
    elif scheme == "gs":
        found |= _unsigned(env, GS_UNSIGNED)
        if account := _first(env, GS_ACCOUNTS):
            found["GOOGLE_APPLICATION_CREDENTIALS"] = account
        if base := env.get("GOOGLE_BASE_URL"):
            found["CPL_GS_ENDPOINT"] = base.rstrip("/") + "/"
    elif scheme == "az":
        found |= _unsigned(env, AZ_UNSIGNED)
        for names in (AZ_ACCOUNTS, AZ_KEYS, AZ_SIGNATURES):
            if value := _first(env, names):
                found[names[0]] = value
        if (endpoint_url := env.get("AZURE_STORAGE_ENDPOINT")) and AZ_CONNECTION not in env:
            parts = {"BlobEndpoint": endpoint_url, "AccountName": found.get(AZ_ACCOUNTS[0])}
            parts["AccountKey"] = found.get(AZ_KEYS[0])
            found[AZ_CONNECTION] = ";".join(f"{k}={v}" for k, v in parts.items() if v)
    return {name: value for name, value in found.items() if name not in env}


def obstore_options(scheme: str, env: Variables = os.environ) -> dict[str, str | bool]:
    """What obstore must be told of a kind of store, beside what it reads from ``env`` itself."""
    if scheme == "s3":
        return _aws(env)
    if scheme == "gs":
        base = env.get("CPL_GS_ENDPOINT", "").rstrip("/")
        return {
            **({"skip_signature": True} if _says_yes(env, GS_UNSIGNED) else {}),
            **({"base_url": base} if base and "GOOGLE_BASE_URL" not in env else {}),
        }
    if scheme == "az":
        connection = dict(
            part.split("=", 1) for part in env.get(AZ_CONNECTION, "").split(";") if "=" in part
        )
        given: dict[str, str | None] = {
            "account_name": _first(env, AZ_ACCOUNTS) or connection.get("AccountName"),
            "account_key": _first(env, AZ_KEYS) or connection.get("AccountKey"),
            "sas_key": _first(env, AZ_SIGNATURES) or connection.get("SharedAccessSignature"),
            "endpoint": env.get("AZURE_STORAGE_ENDPOINT") or connection.get("BlobEndpoint"),
        }
        found: dict[str, str | bool] = {name: value for name, value in given.items() if value}
        return found | ({"skip_signature": True} if _says_yes(env, AZ_UNSIGNED) else {})
    return {}


def is_plain_http(scheme: str, env: Variables = os.environ) -> bool:
    """Whether a store is reached without TLS because the environment says so."""
    names = {"s3": "endpoint", "gs": "base_url", "az": "endpoint"}
    url = obstore_options(scheme, env).get(names.get(scheme, ""), "")
    return scheme == "http" or str(url).startswith("http://")


def _aws(env: Variables) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    endpoint = _first(env, AWS_ENDPOINTS)
    if endpoint is None and (host := env.get("AWS_S3_ENDPOINT")):
        plain = env.get("AWS_HTTPS", "YES").lower() not in YES
        endpoint = host if "://" in host else f"http{'' if plain else 's'}://{host}"
    if endpoint:
        found["endpoint"] = endpoint
        found["virtual_hosted_style_request"] = _is_virtual(env)
    if region := _first(env, AWS_REGIONS):
        found["region"] = region
    if _says_yes(env, AWS_UNSIGNED):
        found["skip_signature"] = True
    elif "AWS_ACCESS_KEY_ID" not in env:
        found |= _of_profile(env, has_region="region" in found)
    return found


def _of_profile(env: Variables, *, has_region: bool) -> dict[str, str | bool]:
    """Keys in the files of AWS's own tools, which GDAL reads and obstore does not."""
    home = Path(env.get("HOME", "~")).expanduser() / ".aws"
    profile = env.get("AWS_PROFILE") or env.get("AWS_DEFAULT_PROFILE") or "default"
    secrets = _section(Path(env.get("AWS_SHARED_CREDENTIALS_FILE", home / "credentials")), profile)
    title = profile if profile == "default" else f"profile {profile}"
    config = _section(Path(env.get("AWS_CONFIG_FILE", home / "config")), title)
    keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    names = ("access_key_id", "secret_access_key", "session_token")
    found: dict[str, str | bool] = {
        name: secrets[key] for key, name in zip(keys, names, strict=True) if key in secrets
    }
    if not has_region and (region := config.get("region") or secrets.get("region")):
        found["region"] = region
    return found


def _section(path: Path, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):  # not ours; the store will say no
        return {}
    return dict(parser[name]) if parser.has_section(name) else {}


def _is_virtual(env: Variables) -> bool:
    return _says_yes(env, ("AWS_VIRTUAL_HOSTING", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"))


def _unsigned(env: Variables, names: tuple[str, ...]) -> dict[str, str]:
    return {names[0]: "YES"} if _says_yes(env, names) else {}


def _says_yes(env: Variables, names: tuple[str, ...]) -> bool:
    return (_first(env, names) or "").lower() in YES


def _first(env: Variables, names: tuple[str, ...]) -> str | None:
    return next((env[name] for name in names if env.get(name)), None)
