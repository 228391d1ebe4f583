"""Tags of every trainer are translated; what nobody knows is still named."""

import pytest

from lorascope.io.log_tags import Settings, meaning, read_settings

KNOWN = {  # tag: kind, part, axis
    "loss/current": ("step loss", "", "step"),
    "loss/average": ("mean loss", "", "step"),
    "loss/epoch_average": ("epoch loss", "", "epoch"),
    "loss/epoch": ("epoch loss", "", "epoch"),
    "loss/validation/step_average": ("validation loss", "", "step"),
    "loss/validation/step_divergence": ("validation divergence", "", "step"),
    "loss/validation/epoch_average": ("validation loss", "", "epoch"),
    "loss/validation/epoch_divergence": ("validation divergence", "", "epoch"),
    "lr/unet": ("learning rate", "unet", "step"),
    "lr/textencoder": ("learning rate", "text encoder", "step"),
    "lr/textencoder plus": ("learning rate", "text encoder plus", "step"),
    "lr/unet plus": ("learning rate", "unet plus", "step"),
    "lr/unet_block12": ("learning rate", "unet block 12", "step"),
    "lr/group1": ("learning rate", "group 1", "step"),
    "lr/te1": ("learning rate", "text encoder 1", "step"),
    "lr/d*lr": ("adaptive learning rate", "", "step"),
    "lr/d*lr/unet": ("adaptive learning rate", "unet", "step"),
    "lr/d*lr/textencoder": ("adaptive learning rate", "text encoder", "step"),
    "lr/d*lr/group1": ("adaptive learning rate", "group 1", "step"),
    "max_norm/keys_scaled": ("scaled modules", "", "step"),
    "max_norm/max_key_norm": ("largest norm", "", "step"),
    "max_norm/average_key_norm": ("norm", "", "step"),
    "norm/avg_key_norm": ("norm", "", "step"),
    "norm/avg_grad_norm": ("gradient norm", "", "step"),
    "norm/avg_combined_norm": ("norm", "combined", "step"),
    "loss/train_step": ("step loss", "", "step"),
    "smooth_loss/train_step": ("smoothed loss", "", "step"),
    "loss/validation_step/cats": ("validation loss", "cats", "step"),
    "loss/validation_step/total_average": ("validation loss", "all concepts", "step"),
    "lr/text_encoder_2": ("learning rate", "text encoder 2", "step"),
    "ema_decay": ("other", "ema_decay", "step"),
    "loss": ("step loss", "", "step"),
    "lr_unet": ("learning rate", "unet", "step"),
    "lr_text": ("learning rate", "text encoder", "step"),
    "train_loss": ("step loss", "", "step"),
    "loss/loss": ("step loss", "", "step"),
    "lr": ("learning rate", "", "step"),
    "learning_rate": ("learning rate", "", "step"),
    "val/loss": ("validation loss", "", "step"),
    "grad_norm": ("gradient norm", "", "step"),
    "hyperparameter/lr unet": ("learning rate", "unet", "step"),
    "hyperparameter/lr text encoder": ("learning rate", "text encoder", "step"),
    "loss/log_step": ("mean loss", "", "step"),
    "loss/val": ("validation loss", "", "step"),
    "loss/train": ("step loss", "", "step"),
    "loss/debiased": ("step loss", "debiased", "step"),
    "test/val": ("validation loss", "", "step"),
    "test/test": ("fixed training loss", "", "step"),
    "performance/images per second": ("other", "performance/images per second", "step"),
    "eval/clip_score": ("other", "eval/clip_score", "step"),
    "eval_loss": ("validation loss", "", "step"),
    "lossless": ("other", "lossless", "step"),
    "": ("other", "", "step"),
}


@pytest.mark.parametrize("tag", KNOWN)
def test_every_tag_is_put_into_our_words(tag):
    found = meaning(tag)
    assert (found.kind, found.part, found.axis) == KNOWN[tag]


def test_of_two_losses_of_steps_the_plain_one_comes_first():
    assert meaning("loss/current").rank < meaning("loss/debiased").rank
    assert meaning("loss/train").rank < meaning("loss/debiased").rank


def test_the_steps_of_an_epoch_are_its_batches_gathered():
    known = {"ss_num_batches_per_epoch": "25", "ss_gradient_accumulation_steps": "4"}
    assert read_settings([known]).epoch_steps == 7
    assert read_settings([{"ss_num_batches_per_epoch": "25"}]).epoch_steps == 25


def test_without_batches_they_are_read_off_what_was_saved():
    saved = [{"ss_steps": "100", "ss_epoch": "2"}, {"ss_steps": "150", "ss_epoch": "3"}]
    odd = [{"ss_steps": "77", "ss_epoch": "3"}]  # saved in the middle of an epoch
    assert read_settings([*odd, *saved]).epoch_steps == 50
    assert read_settings(odd).epoch_steps is None


def test_settings_that_the_log_hangs_on_are_read():
    found = read_settings(
        [
            {"ss_min_snr_gamma": "None"},
            {
                "ss_min_snr_gamma": "5.0",
                "ss_debiased_estimation": "True",
                "ss_validation_split": "0.1",
                "ss_validation_seed": "None",
                "ss_num_validation_images": "4",
                "ss_scale_weight_norms": "1.0",
            },
        ]
    )
    assert found == Settings(
        min_snr_gamma=5.0,
        debiased=True,
        validation_split=0.1,
        validation_images=4,
        largest_norm=1.0,
    )


@pytest.mark.parametrize("value", ["None", "", "null", "nan", "inf", "1e300", "many", "0", "-3"])
def test_what_is_unset_or_damaged_says_nothing(value):
    names = ("ss_num_batches_per_epoch", "ss_min_snr_gamma", "ss_steps", "ss_epoch")
    found = read_settings([dict.fromkeys(names, value)])
    assert found.epoch_steps is None
    assert found.validation_seed is None
    assert found.min_snr_gamma is None
    assert read_settings([]) == Settings()
