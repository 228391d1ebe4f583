"""What is known of a training, as a config of our own."""

from lorascope.io.foreign.metadata import from_metadata
from lorascope.io.foreign.settings import as_toml, merged
from tests import foreign_folders as foreign
from trainer.config import read_config


def test_recovered_settings_are_a_config_that_our_trainer_reads(tmp_path):
    told = from_metadata({**foreign.kohya_metadata(4), "ss_training_comment": "a\nb\x1b[31m"})
    file = tmp_path / "config.toml"
    file.write_text(as_toml(merged([told]), missing={"base": "?", "dataset": "unknown"}))
    config = read_config(file)
    assert (config.rank, config.alpha, config.seed, config.clip_skip) == (4, 2.0, 42, 2)
    assert (config.base, config.held_out) == ("anylora.safetensors", 0.0)
    assert config.scheduler == "cosine"  # ours; theirs is in a remark
    assert 'ss_lr_scheduler = "cosine_with_restarts"' in file.read_text()
