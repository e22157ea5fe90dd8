"""The README's examples run in a folder where its first line has been typed, with less training."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vaeflow.commands import train

    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["--config", "vae_iaf", "--trainer.max_epochs", "2", "--num_samples", "0"]
        patch.setattr("sys.argv", ["train.py", *arguments])
        train()
    return folder


@pytest.fixture(autouse=True)
def _where_the_readme_is_read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.name == "README.md":
        monkeypatch.chdir(request.getfixturevalue("_trained"))
