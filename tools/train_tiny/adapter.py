"""Train a LoRA adapter (specification 2.8: the MLPs of the text model) on top of the finished model.

    python adapter.py --style terse --out models/tiny/terse.safetensors

`terse` makes normal captions a bare list of things.  It uses only words that the model already says, so a minute of one
GPU is enough; `french` needs words that the model has never said, which an adapter of this kind does not learn.
"""

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from evaluate_gpu import decode
from language import Prompts
from model import Moondream, load_config
from scenes import Atlas, Painter
from train import make_speaker, slot_mask, token_loss


@torch.no_grad()
def draw(model, atlas, config, speak, room, scenes, batch, device):
    """Image embeddings (bf16), token rows, lengths of prompt and of prompt with answer, of newly drawn scenes."""
    painter = Painter(atlas, config["vision"], {(1, 1): batch})
    images, prompts = [], []
    for _ in range(-(-scenes // batch)):
        made = painter.paint()
        with torch.autocast(device, torch.bfloat16):
            features = model.vision.encode((made.crops.to(torch.bfloat16) / 255 - 0.5) / 0.5)
            images.append(model.project(features, features).to(torch.bfloat16))
        prompts.append(speak(made.truth, room))
    return torch.cat(images), *(torch.cat([getattr(p, name) for p in prompts]) for name in ("tokens", "prompt", "length"))


@torch.no_grad()
def exact(model, deltas, images, prompts, room, device):
    """Share of the captions that are right to the last token."""
    with torch.autocast(device, torch.bfloat16):
        said, _, _ = decode(model, model.cache(images, deltas), prompts, room, "caption", deltas)
    same = (said == prompts.tokens) | (torch.arange(room + 1, device=said.device) >= prompts.length[:, None])
    return same.all(1).float().mean().item(), said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--atlas", default=".train/atlas")
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--style", choices=["terse", "french"], default="terse")
    parser.add_argument("--out", required=True)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--scenes", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--check", type=int, default=512, help="held-out scenes to look at in the end")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(options.seed)
    folder = Path(options.model)
    config = load_config(folder / "config.json")
    model = Moondream(config).to(device)
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in load_file(folder / "model.safetensors").items()})
    model.requires_grad_(False)
    words = (Path(options.atlas) / "words.txt").read_text().split()
    atlas = Atlas(options.atlas, device, words)
    speaker = make_speaker(folder, atlas.names, device)
    room = 72 if options.style == "terse" else 96
    speak = speaker.terse_captions if options.style == "terse" else speaker.french_captions

    begun = time.time()
    images, tokens, start, length = draw(model, atlas, config, speak, room, options.scenes, options.batch, device)
    print(f"{len(images)} scenes drawn in {time.time() - begun:.0f} s", flush=True)

    dim, inner, rank = config["text"]["dim"], config["text"]["ff_dim"], options.rank
    small = lambda rows, columns: nn.Parameter(torch.randn(rows, columns, device=device) * columns ** -0.5)
    zero = lambda rows, columns: nn.Parameter(torch.zeros(rows, columns, device=device))
    deltas = [(small(rank, dim), zero(inner, rank), small(rank, inner), zero(dim, rank)) for _ in model.text.blocks]
    adam = torch.optim.AdamW([p for d in deltas for p in d], lr=0, betas=(0.9, 0.98), weight_decay=0.0)
    total = 0.0
    for step in range(options.steps):
        for group in adam.param_groups:
            group["lr"] = options.rate * min(1, (step + 1) / 10) * (1 - step / options.steps)
        pick = torch.randint(len(images), (options.batch,), device=device)
        longest = int(length[pick].max())
        mask, positions = slot_mask([("caption", longest - 1)], model.prefix, device)
        place = torch.arange(1, longest, device=device)
        weight = ((place >= start[pick, None]) & (place < length[pick, None])).float()
        with torch.autocast(device, torch.bfloat16):
            hidden = model.run(images[pick], model.text.wte[tokens[pick, :longest - 1]], positions, mask, deltas)
            loss = token_loss(hidden, model.text.post_ln, model.text.lm_head, tokens[pick, 1:longest], weight)
        adam.zero_grad()
        loss.backward()
        adam.step()
        total += loss.detach()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1} {time.time() - begun:.0f}s loss {total.item() / 100:.4f}", flush=True)
            total = 0.0
    held = Atlas(options.atlas, device, words, held=True)
    images, tokens, start, length = draw(model, held, config, speak, room, options.check, options.batch, device)
    share, said = exact(model, deltas, images, Prompts(tokens, start, length), room, device)
    print(f"{share:.3f} of {len(images)} captions of held-out scenes are right to the last token")
    for row, first in list(zip(said.tolist(), start.tolist()))[:5]:
        print("  said:", speaker.p.tokenizer.decode(row[first:]))
    names = ("up_a", "up_b", "down_a", "down_b")
    save_file({f"text_lora.dense.{i}.{name}": t.detach().to(torch.bfloat16).contiguous().cpu()
               for i, d in enumerate(deltas) for name, t in zip(names, d)}, options.out)


if __name__ == "__main__":
    main()
