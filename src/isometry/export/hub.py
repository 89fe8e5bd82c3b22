"""`isometry push`: uploads an exported folder to a hub through huggingface_hub."""

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars
from rich.console import Console
from typing_extensions import TypedDict

from isometry.errors import UserError, first_line, reason
from isometry.export.timm_folder import CARD, CONFIG, FIGURES, WEIGHTS
from isometry.files import inside, sha256_of
from isometry.parsing import read_json
from isometry.report.terminal import say

FILES = (CARD, CONFIG, WEIGHTS, FIGURES)
"""The only files that are uploaded, whatever else is in the folder."""


class Weights(TypedDict):
    """The key ``weights`` of export.json, as far as it is read."""

    sha256: str


class Figures(TypedDict):
    """export.json, as far as it is read."""

    weights: Weights


@dataclass
class PushConfig:
    """Options of the upload. The token is that of HF_TOKEN or of `hf auth login`."""

    private: bool = False
    """Create the repository as private."""
    message: str = "Upload by isometry push"
    """Commit message."""


def push(name: str, repo: str, options: PushConfig, console: Console) -> CommitInfo:
    """Uploads card, config, weights and figures to ``repo`` in one commit; creates the repository if needed.

    The hub is ``HF_ENDPOINT``, or huggingface.co if that is not set. ``name`` is an exported folder, or the run that
    it was exported from.

    Raises:
        UserError: no complete exported folder, a link in it, no token, no write access, or a hub that can't be reached.
    """
    folder = _folder(name)
    token = get_token()
    if not token:
        raise UserError("push: no token; set HF_TOKEN to one with write access, or log in with hf auth login")
    if not console.is_terminal:
        disable_progress_bars()
    # huggingface_hub reads the variable only at import.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    api = HfApi(endpoint=endpoint, token=token)
    try:
        address = api.create_repo(repo, private=options.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=address.repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            commit_message=options.message,
        )
    except Exception as error:
        # huggingface_hub, its transports and its uploaders share no base class of errors.
        raise UserError(
            f"push {repo}: {_why(error)}, at {api.endpoint}; fix that and run the command again"
        ) from error
    say(console, f"Hub      {address}")
    say(console, f"timm     hf-hub:{address.repo_id}")
    return commit


def _folder(name: str) -> Path:
    named = Path(name.removeprefix("local-dir:"))
    folder = named if (named / FIGURES).is_file() else inside(named, "timm")
    for file in FILES:
        inside(folder, file)
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"push {name}: there is no exported folder (no {missing[0]}); "
            f"create one with isometry export {name} --to timm"
        )
    try:
        expected = read_json(folder / FIGURES, Figures)["weights"]["sha256"]
    except (OSError, ValueError) as error:
        raise UserError(f"push {name}: {FIGURES} can't be read ({reason(error)}); export it again") from error
    if expected != sha256_of(folder / WEIGHTS):
        raise UserError(
            f"push {name}: {WEIGHTS} does not have the SHA-256 in its model card; export it again"
        )
    return folder


def _why(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        message = (error.server_message or error.response.reason_phrase).rstrip(".")
        return f"the hub answered {error.response.status_code} {message}".strip()
    return first_line(error)
