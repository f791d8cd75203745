"""Models of a Hugging Face hub, ``hf:owner/name``, through its own library. Imports no torch.

Mirrors, tokens, the cache and working offline are the library's: HF_ENDPOINT, HF_TOKEN, HF_HOME,
HF_HUB_OFFLINE.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from alps.engine.base.errors import ModelError
from alps.engine.base.records import one_line
from alps.engine.models.folder import CONFIG, PROCESSORS, WEIGHTS, listed_in, read_document

PREFIX = "hf:"
NAME = re.compile(r"hf:(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<file>[^@]+))?(?:@(?P<revision>.+))?")
CHECKPOINTS = (".pth", ".pt", ".safetensors")


@dataclass(frozen=True)
class HubName:
    """What ``hf:owner/name[/file][@revision]`` says.

    file: a checkpoint in the repository; None: the model that its config.json describes.
    """

    repository: str
    file: str | None
    revision: str | None

    def __str__(self) -> str:
        file = "" if self.file is None else f"/{self.file}"
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{file}{revision}"


def parse_hub_name(text: str) -> HubName:
    """Take a name apart; ModelError where it is none."""
    match = NAME.fullmatch(text)
    if match is None:
        raise ModelError(
            f"{text!r}: no name of a model on a hub; write hf:owner/name, with /FILE for a "
            "checkpoint in it and @REVISION for a branch, tag or commit"
        )
    return HubName(match["repository"], match["file"], match["revision"])


def fetch_from_hub(text: str) -> Path:
    """The checkpoint that a name stands for, fetched into the library's cache unless it is there.

    Returns:
        A file, or a folder as ``alps.engine.models.folder`` describes.

    Raises:
        ModelError: the library is missing, the hub cannot be reached and the cache has no such
            model, the hub refuses it, or it is no model that can be used.
    """
    name = parse_hub_name(text)
    if name.file is not None:
        return _Hub(name).get(name.file)
    hub = _Hub(name)
    config = hub.find(CONFIG)
    if config is None:
        raise hub.unreached or ModelError(
            f"{name}: has no {CONFIG}; name a checkpoint in it{hub.choice()}"
        )
    _refuse_other_kinds(name, config)
    # All files of one commit, whatever is pushed meanwhile.
    hub = _Hub(replace(name, revision=config.parent.name))
    for processor in PROCESSORS:
        hub.find(processor)
    for weights in WEIGHTS:
        found = hub.find(weights)
        if found is None:
            continue
        for shard in listed_in(found) if weights.endswith(".json") else ():
            hub.get(shard)
        return found.parent
    raise hub.unreached or ModelError(f"{name}: has no weights; name a checkpoint in it")


class _Hub:
    """Files of one repository."""

    def __init__(self, name: HubName) -> None:
        try:
            import huggingface_hub
            from huggingface_hub import constants, errors
        except ImportError as error:
            raise ModelError(
                f"{name}: fetching from a hub needs huggingface_hub; "
                "pip install 'alps-engine[hub]', or give a file"
            ) from error
        self.name, self.library = name, huggingface_hub
        self.constants, self.errors = constants, errors
        self.unreached: ModelError | None = None

    def get(self, file: str) -> Path:
        """A file in the cache. Raises ModelError."""
        found = self.find(file)
        if found is None:
            raise self.unreached or ModelError(f"{self.name}: has no file {file}{self.choice()}")
        return found

    def find(self, file: str) -> Path | None:
        """A file in the cache; None where the repository has none, or nobody can be asked.

        Raises ModelError where the hub refuses.
        """
        errors = self.errors
        try:
            path = self.library.hf_hub_download(
                self.name.repository, file, revision=self.name.revision
            )
        except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
            self.unreached = ModelError(
                f"{self.name}: {self._host()} cannot be asked ({self._why_not(error)}) and the "
                "cache has no such model; fetch it where there is a connection, or give a file"
            )
            return None
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            raise self._refusal(error) from error
        return Path(path)

    def choice(self) -> str:
        """What could be named instead, where that can be asked."""
        try:
            api = self.library.HfApi(endpoint=self.constants.ENDPOINT)
            files = api.list_repo_files(self.name.repository, revision=self.name.revision)
        except Exception:  # the error that this completes says enough
            return ""
        found = [file for file in files if file.endswith(CHECKPOINTS)]
        return f": {', '.join(f'{PREFIX}{self.name.repository}/{f}' for f in found[:5])}"

    def _host(self) -> str:
        return str(self.constants.ENDPOINT)

    def _why_not(self, error: Exception) -> str:
        if self.constants.HF_HUB_OFFLINE:
            return "HF_HUB_OFFLINE is set"
        cause = error.__cause__
        return one_line(cause) if isinstance(cause, Exception) else "no connection"

    def _refusal(self, error: Exception) -> ModelError:
        """What a hub answered, and what to do."""
        errors, name = self.errors, self.name
        if isinstance(error, errors.GatedRepoError):
            return ModelError(
                f"{name}: its authors ask for consent first; give it on the model's page at "
                f"{self._host()}, then log in (hf auth login) or set HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelError(
                f"{name}: {self._host()} has no such model, or keeps it from you; check the name, "
                "and set HF_TOKEN where it is private"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelError(f"{name}: has no such revision; name a branch, a tag or a commit")
        return ModelError(
            f"{name}: cannot be fetched from {self._host()} ({one_line(error)}); try again, or "
            "give a file"
        )


def _refuse_other_kinds(name: HubName, config: Path) -> None:
    """Before gigabytes are fetched."""
    from alps.engine.models.layouts import model_types

    kind = read_document(config).get("model_type")
    if kind not in model_types():
        raise ModelError(
            f"{name}: its {CONFIG} says that it is a model of type {kind!r}; these can be used: "
            f"{', '.join(model_types())}"
        )
