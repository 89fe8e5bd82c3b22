"""`isometry push`, against a stand-in of a hub on localhost."""

import hashlib
import json
import shutil

import huggingface_hub
import pytest

from helpers.exported import QUICK, export, vit_folder
from helpers.hub_stand_in import TOKEN, hub_on_localhost
from helpers.messages import mentions
from helpers.runs import run_command
from isometry.cli.main import main

NAMES = ("README.md", "config.json", "export.json", "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported folder with other files, which must not be uploaded."""
    student = vit_folder(tmp_path_factory.mktemp("pushed") / "student")
    assert export(student, "--to", "timm", *QUICK, "--license", "mit") == 0
    for name in ("weights.pt", "notes.txt"):
        (student / "timm" / name).write_bytes(b"mine")
    return student / "timm"


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, for pushes from this process."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with hub_on_localhost() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


def push(*words):
    return main(["push", *map(str, words)])


@pytest.mark.slow
def test_a_push_from_the_command_line(folder):
    with hub_on_localhost() as hub:
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }
        words = ["me/tiny", "--private", "--message", "First"]
        ended = run_command("push", str(folder), *words, environment=environment)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == f"Hub      {hub.url}/me/tiny\ntimm     hf-hub:me/tiny\n"
        assert hub.files == {("me/tiny", name): (folder / name).read_bytes() for name in NAMES}


def test_uploaded_files_are_the_exported_ones(folder, hub):
    assert push(folder, "me/tiny", "--private", "--message", "First") == 0
    assert hub.files == {("me/tiny", name): (folder / name).read_bytes() for name in NAMES}
    assert hub.private == {"me/tiny": True}
    assert hub.commits == {"me/tiny": ["First"]}
    # The weights were uploaded through LFS, once.
    stored = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert [line for line in hub.asked if line.startswith("PUT")] == [f"PUT /store/{stored}"]


def test_an_existing_repository_gets_another_commit(folder, hub, capsys):
    assert push(folder.parent, "tiny") == 0
    assert push(folder, "me/tiny") == 0
    assert hub.commits == {"me/tiny": ["Upload by isometry push"] * 2}
    assert hub.private == {"me/tiny": False}
    assert capsys.readouterr().out.count("hf-hub:me/tiny") == 2


@pytest.mark.parametrize(
    ("repository", "refuse", "said"),
    [
        ("someone/tiny", None, "the hub answered 403 You don't have the rights"),
        ("me/a/tiny", None, "Repo id must be in the form"),
        ("me/tiny", ("/preupload/", 403), "the hub answered 403 not today"),
        ("me/tiny", ("/info/lfs", 403), "the hub answered 403 not today"),
        ("me/tiny", ("/commit/", 413), "the hub answered 413 not today"),
    ],
)
def test_a_refusal_by_the_hub_is_one_line(folder, hub, capsys, repository, refuse, said):
    hub.refuse = refuse
    assert push(folder, repository) == 2
    told = capsys.readouterr().err
    assert f"push {repository}: {said}" in told
    assert told.count("\n") == 1
    assert hub.files == {}


def test_a_wrong_or_missing_token_is_refused(folder, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    assert push(folder, "me/tiny") == 2
    assert "401" in capsys.readouterr().err
    monkeypatch.setattr("isometry.export.hub.get_token", lambda: None)
    asked = len(hub.asked)
    assert push(folder, "me/tiny") == 2
    assert "no token; set HF_TOKEN" in capsys.readouterr().err
    assert len(hub.asked) == asked


def test_an_unreachable_hub_is_named(folder, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert push(folder, "me/tiny") == 2
    told = capsys.readouterr().err
    assert "http://127.0.0.1:9" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("name", [*NAMES, "timm"])
def test_nothing_is_sent_through_a_link(folder, hub, tmp_path, capsys, name):
    shutil.copytree(folder, tmp_path / "run" / "timm")
    link = tmp_path / "run" / "timm" / name if name != "timm" else tmp_path / "run" / "timm"
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    assert push(tmp_path / "run", "me/tiny") == 2
    said = capsys.readouterr().err
    assert f"{link}: is a link" in said
    assert said.count("\n") == 1
    assert hub.asked == []


def test_only_exported_folders_are_uploaded(folder, hub, tmp_path, capsys):
    assert push(vit_folder(tmp_path / "student"), "me/tiny") == 2
    assert mentions(capsys.readouterr().err, f"{tmp_path / 'student'} … isometry export … --to timm")
    assert push(folder) == 2
    assert "expected DIR REPO first" in capsys.readouterr().err
    assert hub.asked == []


def test_weights_that_differ_from_the_card_are_not_uploaded(folder, hub, tmp_path, capsys):
    for name in NAMES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert push(tmp_path, "me/tiny") == 2
    assert mentions(capsys.readouterr().err, "model.safetensors … SHA-256 … card")
    (tmp_path / "export.json").write_text(json.dumps({"weights": []}))
    assert push(tmp_path, "me/tiny") == 2
    assert "export.json" in capsys.readouterr().err
    assert hub.asked == []
