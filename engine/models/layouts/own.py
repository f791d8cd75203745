"""Safetensors that ALPS wrote: official names, with dimensions and thresholds as metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from alps.engine.base.errors import ModelError, SettingsError
from alps.engine.base.records import BadRecordError, as_record, parse_record
from alps.engine.models.layouts.base import Contents, Form, Layout, Stored, Written
from alps.engine.models.layouts.dimensions import check_dimensions
from alps.engine.models.layouts.text import some
from alps.engine.sam.config import ModelDefaults, NetworkConfig
from alps.engine.sam2 import config_of
from alps.engine.sam2.empty import empty_network
from alps.engine.settings import check_defaults

CONFIG_KEY = "alps.config"
DEFAULTS_KEY = "alps.defaults"
NAME_KEY = "alps.model"


def _recognises(stored: Stored) -> bool:
    return CONFIG_KEY in stored.metadata


def _read(stored: Stored) -> Contents:
    values = _json_object(stored.metadata[CONFIG_KEY], CONFIG_KEY, stored.path)
    try:
        config = config_of(values)
    except ModelError as error:
        raise ModelError(f"{stored.path}: {error}") from error
    check_dimensions(config, len(stored.tensors), stored.path)
    return Contents(config, stored.tensors, defaults_in(stored))


def defaults_in(stored: Stored) -> ModelDefaults:
    """The thresholds in a file's metadata, SAM's where it has none.

    Raises:
        ModelError: they are unknown to this version, or out of range.
    """
    if DEFAULTS_KEY not in stored.metadata:
        return ModelDefaults()
    values = _json_object(stored.metadata[DEFAULTS_KEY], DEFAULTS_KEY, stored.path)
    return as_defaults(values, DEFAULTS_KEY, stored.path)


def as_defaults(values: Mapping[str, Any], where: str, path: Path) -> ModelDefaults:
    """Thresholds as they were written, checked; ``where`` in the file they stand.

    Raises:
        ModelError: they are unknown to this version, or out of range.
    """
    unknown = sorted(set(values) - {f.name for f in fields(ModelDefaults)})
    if unknown:
        raise ModelError(
            f"{path}: {where} names settings this version does not know: {some(unknown)}; "
            "upgrade alps-engine"
        )
    try:
        defaults = as_record(values, ModelDefaults)
        check_defaults(defaults)
    except (BadRecordError, SettingsError) as error:
        raise ModelError(
            f"{path}: {where} in the file's metadata cannot be used ({error}); the file is "
            "damaged, get it again"
        ) from error
    return defaults


def _json_object(text: str, key: str, path: Path) -> dict[str, Any]:
    try:
        return parse_record(text, dict[str, Any])
    except BadRecordError as error:
        raise ModelError(
            f"{path}: {key} in the file's metadata is not a JSON object ({error}); the file was "
            "not written by alps-engine or is damaged, get it again"
        ) from error


def _write(contents: Contents) -> Written:
    notes = {
        CONFIG_KEY: json.dumps(contents.config.to_dict()),
        DEFAULTS_KEY: json.dumps(asdict(contents.defaults)),
    }
    return Written(contents.tensors, metadata=notes)


def _holds(config: Any) -> bool:
    return isinstance(config, NetworkConfig)


LAYOUT = Layout("ALPS", Form.SAFETENSORS, _recognises, _read, _holds, _write, network=empty_network)
