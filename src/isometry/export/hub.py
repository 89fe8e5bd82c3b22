"""`isometry push`: an exported folder to a hub, through huggingface_hub."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars
from rich.console import Console

from isometry.errors import UserError, reason
from isometry.export.timm_folder import CARD, CONFIG, FIGURES, WEIGHTS
from isometry.files import sha256_of

FILES = (CARD, CONFIG, WEIGHTS, FIGURES)
"""All that is sent, whatever else lies in the folder: no pickle and no checkpoint goes with them."""


@dataclass
class PushConfig:
    """How a folder of `isometry export --to timm` is sent. The token is HF_TOKEN's or that of `hf auth login`."""

    private: bool = False
    """Make the repository private, if it is made."""
    message: str = "Upload by isometry push"
    """What the commit says."""


def push(name: str, repo: str, options: PushConfig, console: Console) -> CommitInfo:
    """Sends card, config, weights and figures in one commit to a repository that is made if it is not there.

    The hub is that of ``HF_ENDPOINT``, huggingface.co if it is not set.

    Args:
        name: an exported folder, or the run that it was exported from.
        repo: ``USER/NAME``.
        options: see there.
        console: where a person reads.

    Returns:
        The hub's word on the commit.

    Raises:
        UserError: no whole exported folder, no token, no such repository to write to, or a hub that can't be reached.
    """
    folder = _folder(name)
    token = get_token()
    if not token:
        raise UserError("push: no token; set HF_TOKEN to one that may write, or log in with hf auth login")
    if not console.is_terminal:
        disable_progress_bars()
    # The library reads the variable once, when it is imported.
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
        # The library's own errors, those of its transports and of its uploaders share no base class.
        raise UserError(
            f"push {repo}: {_why(error)}, at {api.endpoint}; mend that and give the command again"
        ) from error
    console.print(f"Hub      {address}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"timm     hf-hub:{address.repo_id}", highlight=False, markup=False, soft_wrap=True)
    return commit


def _folder(name: str) -> Path:
    named = Path(name.removeprefix("local-dir:"))
    folder = named if (named / FIGURES).is_file() else named / "timm"
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"push {name}: holds no exported folder (no {missing[0]}); make one with isometry export {name} --to timm"
        )
    try:
        told = json.loads((folder / FIGURES).read_text(encoding="utf-8"))["weights"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"push {name}: {FIGURES} can't be read ({reason(error)}); export it again") from error
    if told != sha256_of(folder / WEIGHTS):
        raise UserError(
            f"push {name}: {WEIGHTS} has another SHA-256 than its model card says; export it again"
        )
    return folder


def _why(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        said = (error.server_message or error.response.reason_phrase).rstrip(".")
        return f"the hub answered {error.response.status_code} {said}".strip()
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
