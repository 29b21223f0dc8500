"""Join the fp32 pieces that training exported into models/tiny/model.safetensors (bf16), and a checkpoint to go on from.

    python merge.py FOLDER_OF_PIECES --model models/tiny --state .train/state.pt
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pieces")
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--state", help="also write a checkpoint for train.py --state")
    parser.add_argument("--heads", help="also write the training heads, for train.py --heads")
    options = parser.parse_args()
    tensors = {}
    for path in sorted(Path(options.pieces).glob("weights-*.safetensors")):
        tensors |= load_file(path)
    model = {k: v for k, v in tensors.items() if k.startswith("model.")}
    save_file({k: v.to(torch.bfloat16) for k, v in model.items()}, Path(options.model) / "model.safetensors",
              metadata={"format": "pt"})
    print(sum(v.numel() for v in model.values()), "parameters")
    if options.heads:
        save_file({k: v for k, v in tensors.items() if k.startswith("heads.")}, options.heads)
    if options.state:
        progress = json.loads((Path(options.pieces) / "progress.json").read_text())
        torch.save({"model": {k[6:]: v for k, v in model.items()},
                    "heads": {k[6:]: v for k, v in tensors.items() if k.startswith("heads.")}, **progress}, options.state)


if __name__ == "__main__":
    main()
