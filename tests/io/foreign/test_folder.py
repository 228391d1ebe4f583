"""The folder as trainers leave it."""

from lorascope.io.foreign.folder import survey
from tests import foreign_folders as foreign


def test_a_look_through_a_folder_leaves_out_states_links_and_hidden_files(tmp_path):
    model = foreign.kohya(tmp_path)
    (model / ".hidden.safetensors").touch()
    (model / "loop").symlink_to(model, target_is_directory=True)
    (model / "dead.safetensors").symlink_to(tmp_path / "nowhere")
    found = survey(model)
    names = [p.name for p in found.weights]
    assert "model.safetensors" not in names
    assert ".hidden.safetensors" not in names
    assert len(names) == 5
    assert len(found.pictures) == 8
