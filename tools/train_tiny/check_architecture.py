"""Check model.py against a golden checkpoint: image embeddings and the last hidden row of a query, in fp32.

    python check_architecture.py GOLDEN_FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer

from model import Moondream, load_config, stitch_pool_matrix, tiling


def crops_of(picture, c):
    """Global crop and local tiles of a picture as uint8 [n, 3, crop, crop], and the tiling."""
    down, across = tiling(picture.height, picture.width, c)
    crop, margin = c["crop_size"], c["overlap_margin"] * c["enc_patch_size"]
    window = crop - 2 * margin
    whole = np.asarray(picture.resize((crop, crop), Image.LANCZOS))
    large = np.asarray(picture.resize((across * window + 2 * margin, down * window + 2 * margin), Image.LANCZOS))
    tiles = [large[i * window:i * window + crop, j * window:j * window + crop]
             for i in range(down) for j in range(across)]
    return torch.from_numpy(np.stack([whole, *tiles]).copy()).permute(0, 3, 1, 2), (down, across)


def image_embeddings(model, picture):
    c = model.config["vision"]
    crops, (down, across) = crops_of(picture, c)
    features = model.vision.encode((crops.float() / 255 - 0.5) / 0.5)
    pool = stitch_pool_matrix(down, across, model.vision.grid, c["overlap_margin"])
    return model.project(features[:1], (pool @ features[1:].reshape(-1, features.shape[-1]))[None])


def main():
    folder = Path(sys.argv[1])
    config = load_config(folder / "config.json")
    model = Moondream(config)
    weights = {name.removeprefix("model."): tensor.float() for name, tensor in
               load_file(folder / "model.safetensors").items()}
    model.load_state_dict(weights)
    golden = load_file(folder / "activations.safetensors")
    cases = json.loads((folder / "cases.json").read_text())
    cases = cases if isinstance(cases, list) else cases["cases"]
    worst = 0.0
    with torch.no_grad():
        for name in sorted({key.rsplit(".", 1)[0] for key in golden if key.endswith(".image_embeds")}):
            path = folder / name if (folder / name).exists() else folder / f"{name}.png"
            image = image_embeddings(model, Image.open(path).convert("RGB"))
            expected = golden[f"{name}.image_embeds"]
            error = ((image[0] - expected).abs().max() / expected.abs().max()).item()
            prompt = torch.tensor(query_prompt(config, folder))
            causal = torch.ones(len(prompt), model.prefix + len(prompt)).tril(model.prefix).bool()
            hidden = model.run(image, model.text.wte[prompt][None], model.prefix + torch.arange(len(prompt)), causal)
            expected = golden[f"{name}.query_hidden"]
            last = ((hidden[0, -1] - expected).abs().max() / expected.abs().max()).item()
            expected = golden[f"{name}.query_logits"]
            head = ((model.logits(hidden)[0, -1] - expected).abs().max() / expected.abs().max()).item()
            print(f"{name}: image {error:.1e}, hidden {last:.1e}, logits {head:.1e}", flush=True)
            worst = max(worst, error, last, head)
    print("agrees" if worst < 1e-4 else "DIFFERS", f"{worst:.1e}")
    return worst >= 1e-4


def query_prompt(config, folder):
    words = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("how many red circle are there").ids
    template = config["tokenizer"]["templates"]["query"]
    return template["prefix"] + words + 2 * template["suffix"]


if __name__ == "__main__":
    sys.exit(main())
