"""Networks that describe pictures, and texts: DINOv2, CLIP, DreamSim, SSCD, each by its name.

All of them are found on this machine or not at all: nothing is downloaded.
"""

import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorascope.errors import BadInputError
from lorascope.models.encoder_files import NAMED, EncoderFiles, find_encoder
from lorascope.models.encoder_network import BATCH, DAMAGE, Encoder, Floats, Network, in_one
from lorascope.models.encoders_named import dreamsim, sscd
from lorascope.models.folder import quiet

__all__ = ["Clip", "Encoder", "load_encoder"]


class Clip(Network):
    """CLIP, which describes texts in the same space as pictures.

    Parameters
    ----------
    files : EncoderFiles
    model, tokenizer
        As the transformers library makes them.
    device : torch.device
    """

    def __init__(
        self, files: EncoderFiles, model: Any, tokenizer: Any, device: torch.device
    ) -> None:
        super().__init__(
            files.name,
            lambda pixels: _pooled(model.get_image_features(pixel_values=pixels)),
            files.preparation,
            device,
            lower=True,
        )
        self._model = model
        self._tokenizer = tokenizer
        self.window = int(model.config.text_config.max_position_embeddings)

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Floats:
        """Describe texts: (N, F) float32, every row of length 1.

        What goes beyond the `window` of tokens (77, with start and end) is not read.
        """
        found = []
        for start in range(0, len(prompts), BATCH):
            tokens = self._tokenizer(
                list(prompts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=self.window,
                return_tensors="pt",
            ).to(self.device)
            features = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
            found.append(_pooled(features).float().cpu().numpy())
        return in_one(found)

    def too_long(self, prompt: str) -> bool:
        """Tell whether the end of a text is not read."""
        return len(self._tokenizer(prompt, truncation=False, verbose=False).input_ids) > self.window


def load_encoder(name: str) -> Encoder:
    """Open a network that describes pictures, from this machine only.

    Parameters
    ----------
    name : str
        ``dinov2`` (facebook/dinov2-small), ``clip`` (openai/clip-vit-base-patch32), another hub
        name that is in the hub's cache, or a folder with such a model. ``dreamsim:FOLDER`` takes
        the package of that name and the folder of its weights. ``sscd:FILE`` takes a TorchScript
        file; opening it runs what is in the file, so that it has to be named.

    Returns
    -------
    Encoder
        A CLIP also has ``texts(prompts)``.

    Raises
    ------
    MissingInputError
        It is not on this machine.
    BadInputError
        It is something else or damaged, or a pickle that was not named.

    Notes
    -----
    Sources: Oquab et al., TMLR 2024 (DINOv2); Radford et al., ICML 2021 (CLIP); Fu et al.,
    NeurIPS 2023 (DreamSim); Pizzi et al., CVPR 2022 (SSCD).
    """
    kind, _, place = name.partition(":")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind in NAMED:
        return (dreamsim if kind == "dreamsim" else sscd)(place, device)
    files = find_encoder(name)
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, on their own changes
            return _opened(files, device)
    except pickle.UnpicklingError as error:
        raise BadInputError(
            f"{name} cannot be opened: it holds more than tensors, or is damaged; nothing in it "
            "was run.\nFix: get a version with model.safetensors."
        ) from error
    except DAMAGE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{files.folder} cannot be opened: {first}\n"
            "Fix: its files may be incomplete or damaged; copy or download the model again."
        ) from error


def _opened(files: EncoderFiles, device: torch.device) -> Encoder:
    """Open a model of the transformers library."""
    from transformers import AutoModel, CLIPModel, CLIPTokenizer

    safe = {"use_safetensors": not files.pickled, "local_files_only": True}
    if files.kind == "clip":
        clip = CLIPModel.from_pretrained(files.folder, **safe).to(device).eval()
        words = CLIPTokenizer.from_pretrained(files.folder, local_files_only=True)
        return Clip(files, clip, words, device)
    model = AutoModel.from_pretrained(files.folder, **safe).to(device).eval()

    def first_token(pixels: Tensor) -> Tensor:
        found: Tensor = model(pixel_values=pixels).last_hidden_state[:, 0]
        return found

    return Network(files.name, first_token, files.preparation, device, lower=True)


def _pooled(found: Any) -> Tensor:
    """Take the features, which two versions of the library wrap differently."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return features
