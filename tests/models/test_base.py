import json
import shutil
import socket

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from lorascope.errors import BadInputError, MissingInputError, ShapeError
from lorascope.io.lora_file import write_lora
from lorascope.models import base as base_module
from lorascope.models import preparing, single_file
from lorascope.models.base import Conditioning, base_digest, load_base, prepared, shared_base
from lorascope.models.devices import device_of
from lorascope.models.lora import module_names
from tests import pipelines

KINDS = {"sd1": "epsilon", "sd2": "v_prediction", "sdxl": "epsilon"}
PROMPT = "a photo, red hat, cat"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines")
    return {kind: getattr(pipelines, kind)(folder / kind) for kind in KINDS}


@pytest.fixture(scope="module")
def bases(made):
    return {kind: pipelines.base_of(pipeline) for kind, pipeline in made.items()}


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    return pipelines.saved(made["sd1"], tmp_path_factory.mktemp("saved") / "sd1")


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_folder_is_opened_as_it_was_saved_without_a_network(made, tmp_path, kind, capfd):
    name = str(pipelines.saved(made[kind], tmp_path / kind))
    capfd.readouterr()
    base = load_base(name, device="cpu")
    assert capfd.readouterr().err == ""
    assert (base.family, base.prediction_type, base.size) == (kind, KINDS[kind], 64)
    assert (base.latent_channels, base.pixels_per_latent) == (4, 8)
    assert base.latent_scale == made[kind].vae.config.scaling_factor
    assert len(base.text_encoders) == len(base.tokenizers) == (2 if kind == "sdxl" else 1)
    for one, other in ((base.unet, made[kind].unet), (base.vae, made[kind].vae)):
        for key, weight in other.state_dict().items():
            assert torch.equal(one.state_dict()[key], weight)
    assert not any(p.requires_grad for p in base.unet.parameters())
    assert not base.unet.training


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_single_file_gives_the_same_model_without_a_network(made, tmp_path, monkeypatch, kind):
    configs = {"sd1": "sd15"}.get(kind, kind)
    pipelines.saved(made[kind], tmp_path / "configs" / configs)
    for weights in (tmp_path / "configs").rglob("*.safetensors"):
        weights.unlink()
    monkeypatch.setattr(single_file, "CONFIGS", tmp_path / "configs")
    pipelines.tokenizer(tmp_path / "tokenizer")
    path = pipelines.save_single_file(made[kind], tmp_path / "model.safetensors")
    base = load_base(str(path), device="cpu")
    assert (base.family, base.prediction_type) == (kind, KINDS[kind])
    parts = [(base.unet, made[kind].unet), (base.vae, made[kind].vae)]
    parts.append((base.text_encoders[0], made[kind].text_encoder))
    if kind == "sdxl":
        parts.append((base.text_encoders[1], made[kind].text_encoder_2))
    for one, other in parts:
        weights = one.state_dict()
        for key, weight in other.state_dict().items():
            torch.testing.assert_close(weights[key], weight, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("extra", "yaml", "expected"),
    [
        ({"v_pred": torch.zeros(1)}, "", "v_prediction"),
        ({}, "", "epsilon"),
        ({"metadata": {"modelspec.prediction_type": "v"}}, "", "v_prediction"),
    ],
)
def test_a_single_file_may_state_its_prediction_type(tmp_path, extra, yaml, expected):
    metadata = extra.pop("metadata", None)
    tensors = {"cond_stage_model.transformer.x": torch.zeros(1)} | extra
    save_file(tensors, tmp_path / "m.safetensors", metadata)
    changes = single_file._schedule(tmp_path / "m.safetensors", "sd15", tensors)
    assert changes.get("prediction_type", "epsilon") == expected


def test_the_yaml_beside_an_sd2_file_states_its_prediction_type(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "m.safetensors")
    beside = tmp_path / "m.yaml"
    assert single_file._schedule(tmp_path / "m.safetensors", "sd2", []) == {}
    beside.write_text('params:\n  parameterization: "v"\n')
    stated = single_file._schedule(tmp_path / "m.safetensors", "sd2", [])
    assert stated == {"prediction_type": "v_prediction"}
    beside.write_text("params:\n  timesteps: 1000\n")
    stated = single_file._schedule(tmp_path / "m.safetensors", "sd2", [])
    assert stated == {"prediction_type": "epsilon"}


@pytest.mark.parametrize(
    ("kind", "part", "parameters"),
    [
        ("sd15", "unet", 859_520_964),
        ("sd2", "unet", 865_910_724),
        ("sdxl", "unet", 2_567_463_684),
        ("sd15", "vae", 83_653_863),
        ("sdxl", "vae", 83_653_863),
        ("sd15", "text_encoder", 123_060_480),
        ("sd2", "text_encoder", 340_387_840),
        ("sdxl", "text_encoder_2", 694_659_840),
    ],
)
def test_shipped_configurations_have_the_published_numbers_of_parameters(kind, part, parameters):
    facts = json.loads((single_file.CONFIGS / kind / part / "config.json").read_text())
    with torch.device("meta"):
        if part == "unet":
            model = UNet2DConditionModel.from_config(facts)
        elif part == "vae":
            model = AutoencoderKL.from_config(facts)
        else:
            two = part.endswith("2")
            model = (CLIPTextModelWithProjection if two else CLIPTextModel)(CLIPTextConfig(**facts))
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_the_tokenizer_of_a_single_file_is_found_beside_it_or_where_it_is_named(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LORASCOPE_TOKENIZER", raising=False)
    model = tmp_path / "models" / "m.safetensors"
    with pytest.raises(MissingInputError, match="holds no tokenizer"):
        single_file.clip_tokenizer(model)
    pipelines.tokenizer(tmp_path / "elsewhere")
    monkeypatch.setenv("LORASCOPE_TOKENIZER", str(tmp_path / "elsewhere"))
    named = single_file.clip_tokenizer(model, "!")
    assert named.pad_token == "!"
    monkeypatch.delenv("LORASCOPE_TOKENIZER")
    pipelines.tokenizer(tmp_path / "cache/hub/models--a--b/snapshots/0/tokenizer")
    assert single_file.clip_tokenizer(model).pad_token == "<|endoftext|>"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_prompts_are_encoded_as_the_diffusers_pipeline_does(made, bases, kind):
    ours = bases[kind].encode_prompts([PROMPT])
    theirs = made[kind].encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    torch.testing.assert_close(ours.hidden, theirs[0], atol=1e-6, rtol=1e-5)
    if kind == "sdxl":
        torch.testing.assert_close(ours.pooled, theirs[2], atol=1e-6, rtol=1e-5)
    else:
        assert ours.pooled is None


def test_clip_skip_counts_layers_from_the_end_and_normalises(made, bases):
    base, encoder = bases["sd1"], made["sd1"].text_encoder
    ids = (
        made["sd1"]
        .tokenizer(PROMPT, padding="max_length", max_length=77, return_tensors="pt")
        .input_ids
    )
    layers = encoder(ids, output_hidden_states=True).hidden_states
    second = base.encode_prompts([PROMPT], clip_skip=2).hidden
    torch.testing.assert_close(second, encoder.final_layer_norm(layers[-2]))
    assert (second - base.encode_prompts([PROMPT]).hidden).abs().max() > 1e-3
    with pytest.raises(BadInputError, match="1 to 2"):
        base.encode_prompts([PROMPT], clip_skip=3)


def test_clip_skip_of_sdxl_starts_at_the_last_but_one_layer(made, bases):
    theirs = made["sdxl"].encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    skipped = bases["sdxl"].encode_prompts([PROMPT], clip_skip=1).hidden
    torch.testing.assert_close(skipped, theirs[0], atol=1e-6, rtol=1e-5)
    with pytest.raises(BadInputError, match="1 to 1"):
        bases["sdxl"].encode_prompts([PROMPT], clip_skip=2)


def test_a_text_model_with_the_older_inner_layer_gives_the_same(bases):
    base = bases["sd1"]
    wanted = base.encode_prompts([PROMPT], clip_skip=2).hidden

    class Older(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.text_model, self.device = inner, torch.device("cpu")

        def forward(self, ids, **options):
            return self.text_model(ids, **options)

    kept = base.text_encoders[0]
    base.text_encoders[0] = Older(kept)
    try:
        assert torch.equal(base.encode_prompts([PROMPT], clip_skip=2).hidden, wanted)
    finally:
        base.text_encoders[0] = kept


def test_long_prompts_are_encoded_in_chunks_and_the_batch_is_padded(bases):
    base = bases["sd1"]
    tags = ["red hat"] * 26  # 26 x 2 + 25 commas = 77 tokens
    cond = base.encode_prompts(["cat", ", ".join(tags)])
    assert cond.hidden.shape == (2, 154, 16)
    first = base.encode_prompts(["cat"])
    torch.testing.assert_close(cond.hidden[0, :77], first.hidden[0])
    torch.testing.assert_close(cond.hidden[0, 77:], base.encode_prompts([""]).hidden[0])
    head = base.encode_prompts([", ".join(tags[:25]) + ","])  # 75 tokens fill one chunk
    assert head.hidden.shape == (1, 77, 16)
    torch.testing.assert_close(cond.hidden[1, :77], head.hidden[0])
    tail = base.encode_prompts(["red hat"])
    torch.testing.assert_close(cond.hidden[1, 77:], tail.hidden[0])


def test_the_pooled_state_of_a_long_prompt_is_that_of_its_first_chunk(bases):
    tags = ["red hat"] * 25
    cond = bases["sdxl"].encode_prompts([", ".join(tags) + ", cat", "cat"])
    assert cond.hidden.shape == (2, 154, 40)
    first = bases["sdxl"].encode_prompts([", ".join(tags) + ",", "cat"])
    torch.testing.assert_close(cond.pooled, first.pooled)


def test_conditions_are_indexed_taken_and_joined(bases):
    cond = bases["sdxl"].encode_prompts(["cat", "dog", "hat"])
    assert (len(cond), len(cond[1]), len(cond[1:])) == (3, 1, 2)
    assert torch.equal(cond[-1].hidden, cond.hidden[2:])
    assert torch.equal(cond.take([2, 0, 2]).pooled, cond.pooled[[2, 0, 2]])
    joined = Conditioning.cat([cond[0], cond[1:]])
    assert torch.equal(joined.hidden, cond.hidden)
    assert torch.equal(joined.pooled, cond.pooled)
    with pytest.raises(ShapeError, match="together"):
        Conditioning.cat([cond, bases["sdxl"].encode_prompts(["cat"], chunks=2)])
    with pytest.raises(IndexError):
        cond[3]


def test_gradients_reach_the_text_encoder_where_they_are_enabled(bases):
    base = bases["sd1"]
    weight = base.text_encoders[0].encoder.layers[0].mlp.fc1.weight
    weight.requires_grad_(True)
    try:
        base.encode_prompts([PROMPT]).hidden.sum().backward()
        assert weight.grad.abs().max() > 0
        with torch.no_grad():
            assert not base.encode_prompts([PROMPT]).hidden.requires_grad
    finally:
        weight.requires_grad_(False)
        weight.grad = None


def test_images_become_the_scaled_mean_of_the_posterior_and_come_back(made, bases):
    base, vae = bases["sd1"], made["sd1"].vae
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    latents = base.encode_images(images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    wanted = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    torch.testing.assert_close(latents, wanted)
    assert latents.shape == (2, 4, 8, 12)
    assert torch.equal(latents, base.encode_images(images))
    decoded = base.decode(latents)
    plain = vae.decode(wanted / vae.config.scaling_factor).sample
    theirs = made["sd1"].image_processor.postprocess(plain, output_type="np")
    assert decoded.dtype == np.uint8
    assert np.abs(decoded / 255.0 - theirs).max() < 0.6 / 255
    assert not base.decode(latents * float("nan")).any()
    with pytest.raises(ShapeError, match="multiples of 8"):
        base.encode_images(images[:, :, :90])


def test_a_vae_of_eight_channels_needs_no_change(tmp_path):
    base = pipelines.base_of(pipelines.sd1(tmp_path, channels=8))
    latents = base.encode_images(np.zeros((1, 64, 64, 3), np.uint8))
    assert latents.shape == (1, 8, 8, 8)
    assert base.latent_channels == 8
    with torch.no_grad():
        output = base.predict(latents, torch.tensor([1]), base.encode_prompts(["cat"]))
    assert output.shape == latents.shape


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_targets_follow_the_prediction_type(bases, kind):
    base = bases[kind]
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timesteps = torch.tensor([10, 900])
    a = base.noise.alphas_cumprod[timesteps].sqrt().view(2, 1, 1, 1)
    s = (1 - base.noise.alphas_cumprod[timesteps]).sqrt().view(2, 1, 1, 1)
    torch.testing.assert_close(base.add_noise(latents, noise, timesteps), a * latents + s * noise)
    wanted = noise if kind == "sd1" else a * noise - s * latents
    torch.testing.assert_close(base.target(latents, noise, timesteps), wanted)


def test_sdxl_is_told_the_size_of_the_picture(bases):
    base = bases["sdxl"]
    latents = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    cond, timesteps = base.encode_prompts(["cat"]), torch.tensor([500])
    seen = {}
    hook = base.unet.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.update(kwargs["added_cond_kwargs"]), with_kwargs=True
    )
    with torch.no_grad():
        base.predict(latents, timesteps, cond)
        assert seen["time_ids"].tolist() == [[64, 96, 0, 0, 64, 96]]
        base.predict(latents, timesteps, cond, size=(512, 768))
        assert seen["time_ids"].tolist() == [[768, 512, 0, 0, 768, 512]]
    hook.remove()


def test_lower_precision_stays_near_and_every_forward_is_counted(bases):
    base = bases["sd1"]
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cond, timesteps = base.encode_prompts([PROMPT] * 3), torch.tensor([10, 500, 900])
    before = base.forwards
    with torch.no_grad():
        full = base.predict(latents, timesteps, cond)
        base.compute_dtype = torch.bfloat16
        half = base.predict(latents, timesteps, cond)
        base.compute_dtype = torch.float32
    assert base.forwards - before == 6
    assert half.dtype == full.dtype == torch.float32
    assert not torch.equal(half, full)
    assert (half - full).pow(2).mean() < 0.01 * full.pow(2).mean()


def test_the_digest_is_of_the_weights_alone(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert base_digest(str(copy)) == base_digest(str(folder))
    (copy / "README.md").write_text("hello")
    assert base_digest(str(copy)) == base_digest(str(folder))
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert base_digest(str(copy)) != base_digest(str(folder))


def test_the_miniature_is_found_where_the_variable_says(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("LORASCOPE_MINIATURE", str(folder))
    assert load_base("miniature", dtype="fp32", device="cpu").name == "miniature"
    assert base_digest("miniature") == base_digest(str(folder))
    monkeypatch.setenv("LORASCOPE_MINIATURE", str(tmp_path))
    with pytest.raises(MissingInputError, match="LORASCOPE_MINIATURE"):
        load_base("miniature")


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ["nothing", "./no/such/folder", "/no/such.safetensors", "a/b/c"])
def test_what_is_nowhere_is_named(name):
    with pytest.raises(MissingInputError, match=f"no base model {name}"):
        load_base(name)


def test_a_hub_name_that_cannot_be_had_is_explained_in_one_message(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked = []

    def refuse(name, **options):
        asked.append(options.get("local_files_only", False))
        raise LocalEntryNotFoundError("no connection\nlong explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(MissingInputError, match=r"somebody/model .* no connection"):
        load_base("somebody/model")
    assert asked == [True, False]


def test_what_is_no_base_model_is_refused_by_what_it_is(folder, bases, tmp_path):
    lora = tmp_path / "lora.safetensors"
    names = ["lora_unet_conv_in"]
    write_lora(lora, pipelines.random_modules(bases["sd1"], names), {})
    (tmp_path / "model.ckpt").write_bytes(b"PK\x03\x04")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "one.png").write_bytes(b"")
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    save_file({"conv_in.weight": torch.zeros(1)}, tmp_path / "part.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(lora.read_bytes()[:100])
    for name, words in [
        (lora, "is a LoRA, not a base model"),
        (tmp_path / "model.ckpt", "is a pickle"),
        (tmp_path / "pictures", r"no model_index\.json \(it holds one\.png\)"),
        (folder / "unet", "parent folder may be meant"),
        (tmp_path / "flux", "is a FluxPipeline"),
        (tmp_path / "part.safetensors", "no whole Stable Diffusion model"),
        (tmp_path / "torn.safetensors", "damaged"),
    ]:
        with pytest.raises(BadInputError, match=words):
            load_base(str(name))


def test_damaged_weights_and_missing_parts_are_refused(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInputError, match="cannot be opened as a base model"):
        load_base(str(copy))
    shutil.rmtree(copy / "unet")
    with pytest.raises(BadInputError, match="has no unet"):
        load_base(str(copy))


def test_an_inpainting_model_and_a_refiner_are_refused(made):
    unet = made["sd1"].unet
    for changed, words in [({"in_channels": 9}, "inpainting"), ({}, "refiner")]:
        parts = dict(made["sd1"].components)
        if changed:
            parts["unet"] = UNet2DConditionModel.from_config(dict(unet.config) | changed)
        else:
            parts["text_encoder"] = None
        with pytest.raises(BadInputError, match=words):
            pipelines.assemble("x", parts, device=torch.device("cpu"), compute_dtype=torch.float32)


@pytest.mark.parametrize("options", [{"dtype": "fp64"}, {"device": "abacus"}])
def test_unknown_formats_and_devices_are_refused(folder, options):
    with pytest.raises(BadInputError, match=next(iter(options.values()))):
        load_base(str(folder), **options)


def test_the_last_base_model_opened_is_kept_and_no_other(folder, tmp_path, monkeypatch):
    opened = []

    def watch(name):
        opened.append(name)
        return load_base(name, device="cpu")

    monkeypatch.setattr(base_module, "load_base", watch)
    monkeypatch.setattr(base_module, "_SHARED", {})
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    first = shared_base(str(copy))
    assert shared_base(str(copy)) is first
    assert opened == [str(copy)]
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes())  # another state, be its bytes the same
    second = shared_base(str(copy))
    assert second is not first
    shared_base(str(folder))
    assert shared_base(str(copy)) is not second
    assert opened == [str(copy), str(copy), str(folder), str(copy)]
    with pytest.raises(MissingInputError):
        shared_base(str(tmp_path / "nothing"))


def test_of_several_cards_a_process_of_torchrun_takes_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert device_of("auto") == torch.device("cuda")
    for rank, card in (("0", 0), ("1", 1), ("3", 1)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert device_of("auto") == torch.device("cuda", card)
    assert device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == torch.device("cpu")


def test_a_compiled_unet_keeps_its_names_and_can_be_had_back(tmp_path, monkeypatch):
    base = pipelines.base_of(pipelines.sd1(tmp_path))
    names, calls = list(module_names(base)), []

    def fake_compile(call, **_options):
        def compiled(*args, **options):
            calls.append(1)
            return call(*args, **options)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    monkeypatch.setattr(preparing.shutil, "which", lambda _name: "/usr/bin/c++")
    latents, cond = torch.zeros(1, 4, 8, 8), base.encode_prompts(["cat"])
    plain = base.predict(latents, torch.tensor([5]), cond)
    assert prepared(base, compiled=True) is base
    prepared(base, compiled=True)
    assert torch.equal(base.predict(latents, torch.tensor([5]), cond), plain)
    assert list(module_names(base)) == names
    assert len(calls) == 1
    prepared(base)
    base.predict(latents, torch.tensor([5]), cond)
    assert len(calls) == 1
    monkeypatch.setattr(preparing.shutil, "which", lambda _name: None)
    with pytest.raises(BadInputError, match="no C\\+\\+ compiler"):
        prepared(base, compiled=True)


def test_a_picture_is_decoded_the_same_whatever_is_decoded_beside_it(bases):
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    together = bases["sd1"].decode(latents)
    assert together.shape == (5, 64, 64, 3)
    for place in range(5):
        assert (bases["sd1"].decode(latents[place : place + 1])[0] == together[place]).all()
