"""Addresses in object stores, as people write them and as GDAL wants them."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Self
from urllib.parse import urlsplit

from alps.engine.base.errors import SettingsError

# Of GDAL: the handler of each kind of store.
HANDLERS = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
WEB = ("http", "https")
HANDLER_OF_WEB = "/vsicurl/"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


@dataclass(frozen=True)
class Address:
    """A place in a store: an object, or a prefix that objects begin with.

    Of a web server ``bucket`` is the host, with its port where one is given.
    """

    scheme: str
    bucket: str
    key: str  # '/'-separated; no '/' at either end

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take an address apart. Raises SettingsError for one that can be none."""
        found = _SCHEME.match(text)
        scheme = found[1] if found else ""
        if scheme not in (*HANDLERS, *WEB):
            known = ", ".join(f"{name}://" for name in (*HANDLERS, "https"))
            raise SettingsError(f"{text}: no address that is known here; give {known} or a path")
        if scheme in WEB:
            parts = urlsplit(text)
            if "@" in parts.netloc:
                raise SettingsError(
                    f"{scheme}://…@{parts.hostname}: an address with a password would be written "
                    "into the run folder; give it without"
                )
            bucket, key = parts.netloc, text.partition("://")[2][len(parts.netloc) :]
        else:
            bucket, _, key = text.removeprefix(f"{scheme}://").partition("/")
        key = key.strip("/")
        plain = key.partition("?")[0] if scheme in WEB else key
        if not bucket or (plain and not {"..", ".", ""}.isdisjoint(plain.split("/"))):
            raise SettingsError(
                f"{text}: an address is {scheme}://BUCKET/KEY, without . or .. or empty names in it"
            )
        return cls(scheme, bucket, key)

    @classmethod
    def of_gdal(cls, path: str) -> Self | None:
        """The address that a path of GDAL's stands for; None where that is none of a store."""
        for scheme, handler in HANDLERS.items():
            if path.startswith(handler):
                bucket, _, key = path.removeprefix(handler).partition("/")
                return cls(scheme, bucket, key)
        if path.startswith(HANDLER_OF_WEB) and is_address(path.removeprefix(HANDLER_OF_WEB)):
            return cls.parse(path.removeprefix(HANDLER_OF_WEB))
        return None

    @property
    def gdal(self) -> str:
        """What GDAL opens."""
        if self.scheme in WEB:
            return f"{HANDLER_OF_WEB}{self}"
        return f"{HANDLERS[self.scheme]}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The last part of the key, without what a web server is asked beside it."""
        return self.plain_key.rpartition("/")[2]

    @property
    def plain_key(self) -> str:
        """The key, without what a web server is asked beside it."""
        return self.key.partition("?")[0] if self.scheme in WEB else self.key

    def at(self, key: str) -> Self:
        """Another key of the same bucket."""
        return type(self)(self.scheme, self.bucket, key)

    def holds(self, other: "Address") -> bool:
        """Whether another address is this one, or lies below it."""
        same = (self.scheme, self.bucket) == (other.scheme, other.bucket)
        return same and (not self.key or f"{other.key}/".startswith(f"{self.key}/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")


def is_address(text: object) -> bool:
    """Whether a text, or a path, is an address and no path of this machine."""
    return not isinstance(text, PurePath) and bool(_SCHEME.match(str(text)))


def shown_path(path: object) -> str:
    """How people know what is opened: an address where GDAL has a name of its own for it."""
    address = Address.of_gdal(str(path))
    return str(path) if address is None else str(address)
