"""Encoders: found on this machine or refused in words; features of length 1."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model

from lorascope.errors import BadInputError, MissingInputError
from lorascope.miniature import datasets
from lorascope.models.encoder_files import Preparation, find_encoder
from lorascope.models.encoder_network import prepared
from lorascope.models.encoders import load_encoder
from tests import pipelines

SIDE = 28
SETTINGS = {
    "size": {"shortest_edge": 32},
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "resample": 3,
}


def write_dinov2(folder, *, seed=0, safe=True, settings=SETTINGS):
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=14,
        initializer_range=0.5,
    )
    model = Dinov2Model(config).eval()
    if safe:
        model.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    if settings is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return model


def write_clip(folder):
    torch.manual_seed(0)
    words = pipelines.tokenizer(folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    text = {
        **shape,
        "num_hidden_layers": 2,
        "vocab_size": len(words),
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = {**shape, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 14}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = CLIPModel(config).eval()
    model.save_pretrained(folder)
    return model


def in_cache(root, name, revision="1" * 40):
    """Give the folder of a model in a hub's cache."""
    place = root / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(revision)
    return place / "snapshots" / revision


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def pictures(rng):
    sizes = ((40, 40), (128, 96), (33, 300), (16, 20), (28, 28))
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


def test_dinov2_gives_its_first_token_for_what_its_settings_say(tmp_path, pictures):
    model = write_dinov2(tmp_path / "dino")
    found = load_encoder(str(tmp_path / "dino")).images(pictures)
    for picture, row in zip(pictures, found, strict=True):
        opened = Image.fromarray(picture)
        factor = 32 / min(opened.size)
        wide, high = (int(side * factor) for side in opened.size)
        opened = opened.resize((wide, high), Image.Resampling.BICUBIC)
        left, top = (wide - SIDE) // 2, (high - SIDE) // 2
        pixels = np.asarray(opened.crop((left, top, left + SIDE, top + SIDE))) / 255
        pixels = (pixels - np.array([0.5, 0.4, 0.3])) / 0.2
        with torch.no_grad():
            seen = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float()
            wanted = model(pixel_values=seen).last_hidden_state[0, 0].numpy()
        assert row @ wanted / np.linalg.norm(wanted) > 0.999


def test_features_are_float32_and_of_length_one_whatever_the_size_of_pictures(tmp_path, pictures):
    write_dinov2(tmp_path / "dino")
    found = load_encoder(str(tmp_path / "dino")).images(pictures)
    assert found.shape == (len(pictures), 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_a_picture_has_the_same_features_in_any_batch(tmp_path, pictures, monkeypatch):
    write_dinov2(tmp_path / "dino")
    encoder = load_encoder(str(tmp_path / "dino"))
    together = encoder.images(pictures)
    monkeypatch.setattr("lorascope.models.encoder_network.BATCH", 2)
    np.testing.assert_allclose(encoder.images(pictures), together, atol=0.02)
    assert encoder.images([]).shape[0] == 0


def test_clip_puts_texts_and_pictures_into_one_space(tmp_path, pictures):
    model = write_clip(tmp_path / "clip")
    encoder = load_encoder(str(tmp_path / "clip"))
    prompts = ["a red cat", "dog", ""]
    texts = encoder.texts(prompts)
    assert texts.shape == (3, 8)
    assert encoder.images(pictures).shape == (len(pictures), 8)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
    words = pipelines.tokenizer(tmp_path / "clip")
    for prompt, row in zip(prompts, texts, strict=True):
        with torch.no_grad():
            ids = words(prompt, return_tensors="pt").input_ids
            wanted = model.get_text_features(input_ids=ids)
        wanted = getattr(wanted, "pooler_output", wanted)[0].numpy()
        assert row @ wanted / np.linalg.norm(wanted) > 0.9999


def test_a_text_beyond_clips_window_is_cut_and_told(tmp_path):
    write_clip(tmp_path / "clip")
    encoder = load_encoder(str(tmp_path / "clip"))
    long = "cat " * 100
    np.testing.assert_allclose(encoder.texts([long]), encoder.texts([long + "dog"]), atol=1e-6)
    assert encoder.too_long(long)
    assert not encoder.too_long("cat")


def test_a_model_is_found_by_name_in_the_hubs_cache(cache, pictures):
    write_dinov2(in_cache(cache, "facebook/dinov2-small"))
    write_clip(in_cache(cache, "openai/clip-vit-base-patch32"))
    write_dinov2(in_cache(cache, "someone/dino"), seed=1)
    assert load_encoder("dinov2").images(pictures).shape == (len(pictures), 16)
    assert load_encoder("clip").texts(["cat"]).shape == (1, 8)
    assert load_encoder("someone/dino").name != load_encoder("dinov2").name


def test_the_name_says_which_weights(tmp_path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_dinov2(tmp_path / folder, seed=seed)
    a, b, c = (find_encoder(str(tmp_path / folder)).name for folder in "abc")
    assert a == b
    assert a != c
    (tmp_path / "b" / "preprocessor_config.json").write_text(json.dumps({"size": 40}))
    assert find_encoder(str(tmp_path / "b")).name != a


def test_a_model_that_is_not_here_is_told_with_the_place_and_the_command(cache):
    for name, hub_name in (("dinov2", "facebook/dinov2-small"), ("a/b", "a/b")):
        with pytest.raises(MissingInputError) as told:
            load_encoder(name)
        assert str(cache) in str(told.value)
        assert f"Fix: hf download {hub_name}, then --features {name}" in str(told.value)


def test_a_name_that_means_nothing_is_refused(tmp_path):
    with pytest.raises(MissingInputError, match="Fix: --features dinov2, clip"):
        load_encoder("dinosaur")
    with pytest.raises(MissingInputError, match="no features"):
        load_encoder(str(tmp_path / "nowhere" / "model"))


def test_a_pickle_is_opened_only_when_it_is_named(tmp_path, pictures):
    write_dinov2(tmp_path / "safe")
    write_dinov2(tmp_path / "bin", safe=False)
    with pytest.raises(BadInputError, match=r"Fix: --features .*pytorch_model\.bin"):
        load_encoder(str(tmp_path / "bin"))
    named = load_encoder(str(tmp_path / "bin" / "pytorch_model.bin"))
    safe = load_encoder(str(tmp_path / "safe"))
    np.testing.assert_allclose(named.images(pictures), safe.images(pictures), atol=1e-5)


def test_what_is_in_a_named_pickle_does_not_run(tmp_path):
    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    write_dinov2(tmp_path / "bin", safe=False)
    torch.save({"embeddings.cls_token": Bad()}, tmp_path / "bin" / "pytorch_model.bin")
    with pytest.raises(BadInputError, match="cannot be opened"):
        load_encoder(str(tmp_path / "bin" / "pytorch_model.bin"))
    assert not (tmp_path / "ran").exists()


def test_other_folders_are_refused_in_words(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInputError, match="holds no model"):
        load_encoder(str(empty))
    (empty / "model_index.json").write_text("{}")
    with pytest.raises(BadInputError, match="is a base model"):
        load_encoder(str(empty))
    (empty / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInputError, match="of type bert"):
        load_encoder(str(empty))
    (empty / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(MissingInputError, match="has no weights"):
        load_encoder(str(empty))
    (empty / "config.json").write_text("{")
    with pytest.raises(BadInputError, match="is damaged"):
        load_encoder(str(empty))


def test_damaged_weights_are_told_in_one_line(tmp_path):
    write_dinov2(tmp_path / "dino")
    (tmp_path / "dino" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="cannot be opened"):
        load_encoder(str(tmp_path / "dino"))


def test_settings_that_cannot_be_understood_are_refused(tmp_path):
    write_dinov2(tmp_path / "dino", settings={"size": {"longest": 3}})
    with pytest.raises(BadInputError, match="cannot be understood"):
        load_encoder(str(tmp_path / "dino"))


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (None, (256, (224, 224))),
        ({"size": 30}, (30, (30, 30))),
        ({"size": 30, "crop_size": 20}, (30, (20, 20))),
        ({"size": {"height": 20, "width": 24}}, (0, (20, 24))),
        ({"size": 16, "crop_size": 20}, (20, (20, 20))),
    ],
)
def test_the_settings_of_pictures_are_read_in_all_their_forms(tmp_path, settings, wanted):
    write_dinov2(tmp_path / "dino", settings=settings)
    found = find_encoder(str(tmp_path / "dino")).preparation
    assert (found.edge, found.size) == wanted


def test_a_picture_is_made_ready_from_its_middle():
    picture = np.zeros((20, 40, 3), dtype=np.uint8)
    picture[:, 15:25] = 255
    how = Preparation(edge=20, size=(10, 10), mean=(0.5,) * 3, std=(0.5,) * 3)
    np.testing.assert_allclose(prepared(picture, how), 1)
    whole = prepared(picture, Preparation(edge=0, size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3))
    assert whole.shape == (3, 8, 8)
    assert whole[0, 0, 0] == 0


class Mean(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))


def test_sscd_is_opened_only_from_a_file_that_was_named(tmp_path, pictures):
    for name in ("sscd", f"sscd:{tmp_path}/nothing.pt"):
        with pytest.raises(MissingInputError, match="runs what is in the file"):
            load_encoder(name)
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"nothing")
    with pytest.raises(BadInputError, match="no TorchScript"):
        load_encoder(f"sscd:{bad}")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of writing the file, in the test
def test_sscd_sees_pictures_skewed_to_a_square(tmp_path, pictures):
    torch.jit.script(Mean()).save(str(tmp_path / "sscd.pt"))
    encoder = load_encoder(f"sscd:{tmp_path / 'sscd.pt'}")
    found = encoder.images(pictures)
    assert found.shape == (len(pictures), 3)
    assert encoder.preparation.size == (320, 320)
    mean = np.array([0.485, 0.456, 0.406])
    wanted = (pictures[2].mean(axis=(0, 1)) / 255 - mean) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found[2], wanted / np.linalg.norm(wanted), atol=0.05)


def test_dreamsim_without_its_package_or_folder_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dreamsim", None)
    with pytest.raises(MissingInputError, match="Fix: pip install dreamsim"):
        load_encoder(f"dreamsim:{tmp_path}")
    monkeypatch.setitem(sys.modules, "dreamsim", types.ModuleType("dreamsim"))
    with pytest.raises(MissingInputError, match="nothing is downloaded"):
        load_encoder("dreamsim")


def test_dreamsim_is_asked_through_its_package_and_never_downloads(tmp_path, monkeypatch, capsys):
    package = types.ModuleType("dreamsim")

    def dreamsim(*, pretrained, device, cache_dir):
        print("Using cached")
        if not (tmp_path / "weights.pth").exists():
            torch.hub.download_url_to_file("https://example.org", cache_dir)
        return types.SimpleNamespace(embed=lambda x: x.mean(dim=(2, 3)).squeeze()), None

    package.dreamsim = dreamsim
    monkeypatch.setitem(sys.modules, "dreamsim", package)
    usual = torch.hub.download_url_to_file
    with pytest.raises(MissingInputError, match="lacks some of"):
        load_encoder(f"dreamsim:{tmp_path}")
    (tmp_path / "weights.pth").write_bytes(b"1")
    encoder = load_encoder(f"dreamsim:{tmp_path}")
    assert torch.hub.download_url_to_file is usual
    assert capsys.readouterr().out == ""
    one = np.full((9, 7, 3), 255, dtype=np.uint8)
    np.testing.assert_allclose(encoder.images([one]), [[3**-0.5] * 3], atol=1e-5)


def test_the_miniatures_drawings_come_through(tmp_path):
    write_dinov2(tmp_path / "dino")
    folder = datasets.write_character(tmp_path, images=2)
    drawn = [np.asarray(Image.open(file).convert("RGB")) for file in sorted(folder.glob("*.png"))]
    found = load_encoder(str(tmp_path / "dino")).images(drawn)
    assert found.shape == (2, 16)
