"""One bucket through obstore: what is asked of it, how often, and what its refusals mean."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from alps.engine.base.errors import SettingsError, StoreError, printable
from alps.engine.stores.address import WEB, Address
from alps.engine.stores.environment import is_plain_http, obstore_options

RETRIES = 5  # of a request that failed for a reason that may pass
LONGEST_RETRYING = timedelta(seconds=120)
CONNECT_TIMEOUT, SILENCE_TIMEOUT, REQUEST_TIMEOUT = "15s", "60s", "900s"
PAGE = 1000  # objects that a store lists at once
# Larger files go up in parts, which a kill leaves behind unseen; whole, up to this many bytes.
PART_BYTES = 64 << 20

REFUSED = "refused"
MISSING = "missing"
CONFLICT = "conflict"  # somebody else wrote an object meanwhile
FAILING = "failing"

# What obstore says where it finds no keys, or only some of them, here or from the machine's role.
LACKING = (
    "redential", "nstance metadata", "/api/token", "AccessKey", "Account must", "169.254.169.254",
)  # fmt: skip
BROKEN = "response body error"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_NO_SIGN_REQUEST=YES for public data)",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS (GS_NO_SIGN_REQUEST=YES for public data)",
    "az": "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_ACCESS_KEY or AZURE_STORAGE_SAS_TOKEN "
    "(AZURE_NO_SIGN_REQUEST=YES for public data)",
}


@dataclass(frozen=True)
class Stored:
    """An object that a store lists."""

    key: str
    bytes: int
    changed_ns: int
    etag: str


class Bucket:
    """The objects of one bucket, or of one web server. All calls raise StoreError."""

    def __init__(self, address: Address) -> None:
        """``address``: of anything in it."""
        self._address = address.at("")
        self._store = _opened(address)

    def shown(self, key: str) -> str:
        """The address of an object."""
        return str(self._address.at(key))

    def objects(self, prefix: str, after: str = "") -> Iterator[Stored]:
        """Objects below a folder of keys, in the order of their keys; a page is held at a time.

        after: a key: only those that come later.
        """
        tries = 0
        while True:
            try:
                for entry in self._objects(prefix, after):
                    after, tries = entry.key, 0
                    yield entry
                return
            except StoreError as error:
                tries += 1
                # obstore tries again what a store refuses, but not a page that broke off.
                if BROKEN not in str(error) or tries > RETRIES:
                    raise
                time.sleep(0.1 * 2**tries)

    def _objects(self, prefix: str, after: str) -> Iterator[Stored]:
        import obstore

        with self._errors(prefix, "list"):
            pages = obstore.list(self._store, prefix or None, offset=after or None, chunk_size=PAGE)
            for page in pages:
                for entry in page:
                    yield _stored(entry)

    def head(self, key: str, verb: str = "look for") -> Stored | None:
        """What is known of an object; None where there is none. verb: for what."""
        import obstore

        with self._errors(key, verb):
            try:
                return _stored(obstore.head(self._store, key))
            except FileNotFoundError:
                return None

    def get(self, key: str, verb: str = "read") -> bytes | None:
        """An object's content; None where there is none. verb: for what."""
        found = self.get_with_etag(key, verb)
        return None if found is None else found[0]

    def get_with_etag(self, key: str, verb: str = "read") -> tuple[bytes, str] | None:
        """An object's content and its tag; None where there is none."""
        import obstore

        with self._errors(key, verb):
            try:
                answer = obstore.get(self._store, key)
                return bytes(answer.bytes()), str(answer.meta["e_tag"] or "")
            except FileNotFoundError:
                return None

    def download(self, entry: Stored, path: Path) -> str:
        """Copy an object into a file; returns its tag.

        What breaks off, or is less than what was listed, is asked for once more.
        """
        try:
            return self._download(entry.key, path, entry)
        except StoreError as error:
            if BROKEN not in str(error):
                raise
        return self._download(entry.key, path, entry)

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object that was not listed into a file; where it breaks off, once more."""
        try:
            self._download(key, path)
        except StoreError as error:
            if BROKEN not in str(error):
                raise
            self._download(key, path)

    def _download(self, key: str, path: Path, listed: Stored | None = None) -> str:
        import obstore

        with self._errors(key, "read"):
            answer = obstore.get(self._store, key)
            with open(path, "wb") as file:
                for piece in answer.stream(min_chunk_size=8 << 20):
                    file.write(piece)
            size, etag = path.stat().st_size, str(answer.meta["e_tag"] or "")
            wanted = int(answer.meta["size"])
            if listed is not None:  # with another tag it is another one by now
                wanted = listed.bytes if etag == listed.etag else size
            if size != wanted:
                raise OSError(f"{BROKEN}: {size} of {wanted} bytes came")
            return etag

    def put(self, key: str, content: Path | bytes) -> str:
        """Write an object, whole or not at all; returns its tag."""
        import obstore

        size = content.stat().st_size if isinstance(content, Path) else len(content)
        with self._errors(key, "write"):
            result = obstore.put(
                self._store, key, content,
                use_multipart=size > PART_BYTES, chunk_size=PART_BYTES, max_concurrency=4,
            )  # fmt: skip
            return str(result["e_tag"] or "")

    def put_over(self, key: str, content: bytes, etag: str | None) -> str:
        """Write an object only where it is still the one with ``etag``; None: where there is none.

        Raises StoreError of kind CONFLICT where it is not.
        """
        import obstore

        mode: Any = "create" if etag is None else {"e_tag": etag}
        with self._errors(key, "write"):
            return str(obstore.put(self._store, key, content, mode=mode)["e_tag"] or "")

    def delete(self, *keys: str) -> None:
        """Delete objects; that one is not there is no error."""
        import obstore

        with self._errors(keys[0] if keys else "", "delete"), suppress(FileNotFoundError):
            obstore.delete(self._store, keys[0] if len(keys) == 1 else list(keys))

    @contextmanager
    def _errors(self, key: str, verb: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # obstore's have no base that all share; OSError of the disk
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise explained(error, self._address.at(key), verb) from error


def explained(error: BaseException, address: Address, verb: str) -> StoreError:
    """What went wrong with an address, and how it is mended, on one line."""
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    said = " ".join(found[1] for found in (status, code) if found)
    number = int(status[1]) if status else 0
    what = f"cannot {verb} {printable(str(address))}: "
    kinds = {type(error).__name__, *(kind.__name__ for kind in type(error).__mro__)}
    if kinds & {"PreconditionError", "AlreadyExistsError"} or number in (409, 412):
        return StoreError(f"{what}somebody else wrote it meanwhile", kind=CONFLICT)
    if kinds & {"PermissionDeniedError", "UnauthenticatedError"} or number in (401, 403):
        keys = _KEYS.get(address.scheme, "the address")
        return StoreError(f"{what}the store refuses it ({said}); check {keys}", kind=REFUSED)
    if "redirect" in text.lower() and (number == 301 or "region" in text.lower()):
        mend = "the bucket lies in another region; set AWS_REGION to it"
        return StoreError(what + mend, kind=FAILING)
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        mend = f"there is no bucket {address.bucket}; check its name and the endpoint"
        return StoreError(what + mend, kind=MISSING)
    if number == 404 or isinstance(error, FileNotFoundError):
        return StoreError(f"{what}it is not there; check the address", kind=MISSING)
    if not number and any(word in text for word in LACKING):
        keys = _KEYS.get(address.scheme, "credentials")
        return StoreError(f"{what}no credentials were found; set {keys}", kind=REFUSED)
    if number:
        return StoreError(
            f"{what}the store answers {said}, tried {RETRIES + 1} times; give the same command "
            "again when it is well",
            kind=FAILING,
        )
    reason = " ".join(text.split("Debug source")[0].split()).rpartition(" - ")[2]
    return StoreError(
        f"{what}{reason[:200].rstrip('.')}; check the endpoint and the network, then give the "
        "same command again",
        kind=FAILING,
    )


def _stored(entry: Any) -> Stored:
    changed = int(entry["last_modified"].timestamp() * 1e9)
    return Stored(str(entry["path"]), int(entry["size"]), changed, str(entry["e_tag"] or ""))


def _opened(address: Address) -> Any:
    """obstore's own object for a bucket."""
    try:
        from obstore import store as stores
    except ImportError:
        raise SettingsError(
            f"{printable(str(address))}: reading and writing stores needs obstore, which is not "
            "installed: pip install 'alps-engine[stores]'"
        ) from None
    client: dict[str, Any] = {
        "allow_http": is_plain_http(address.scheme),
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": SILENCE_TIMEOUT,
        "timeout": REQUEST_TIMEOUT,
    }
    how: dict[str, Any] = {
        "client_options": client,
        "retry_config": {"max_retries": RETRIES, "retry_timeout": LONGEST_RETRYING},
    }
    try:
        if address.scheme in WEB:
            return stores.HTTPStore.from_url(f"{address.scheme}://{address.bucket}", **how)
        kind = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
        how["config"] = obstore_options(address.scheme, os.environ)
        return kind[address.scheme](address.bucket, **how)
    except Exception as error:  # a credentials file that cannot be read, an account that is missing
        raise explained(error, address.at(""), "open") from error
