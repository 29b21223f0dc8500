#!/usr/bin/env python3
"""Converts a LoRA adapter from a PyTorch pickle to the safetensors file that Fovea reads.

    tools/convert_adapter.py final.pt adapter.safetensors

Takes both published kinds: a flat state dict (variants of vikhyat/moondream) and a dictionary with `lora_state_dict`
(fine-tunes of kestrel). Names, shapes and element types stay as they are; Fovea knows both layouts. The pickle is read
with weights_only=True, so that it cannot run code. Needs the Python packages torch and safetensors.
"""

import argparse
import sys
from pathlib import Path


def adapter_tensors(loaded):
    """The tensors of what torch.load returned, by name. ValueError when something else is among them."""
    if not isinstance(loaded, dict):
        raise ValueError(f"a {type(loaded).__name__} instead of a dictionary of tensors")
    state = loaded.get("lora_state_dict", loaded)
    tensors = {}
    for name, value in state.items():
        if not (hasattr(value, "shape") and hasattr(value, "dtype")):
            raise ValueError(f"{name} is a {type(value).__name__}, not a tensor")
        # One module under two names: its tensors need not be stored twice.
        if name.startswith("_text.") and "text_lora." + name.removeprefix("_text.") in state:
            continue
        tensors[name] = value
    if not tensors:
        raise ValueError("no tensors")
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pickle", type=Path, help="what the adapter was downloaded as (.pt)")
    parser.add_argument("output", type=Path, help="the .safetensors file to write")
    args = parser.parse_args()
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as missing:
        sys.exit(f"convert_adapter: {missing}; install it with: pip install torch safetensors")

    loaded = torch.load(args.pickle, map_location="cpu", weights_only=True)
    try:
        tensors = adapter_tensors(loaded)
    except ValueError as wrong:
        sys.exit(f"convert_adapter: {args.pickle} holds {wrong}")
    # Copies: safetensors refuses views that share memory.
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, args.output)
    print(f"{args.output}: {len(tensors)} tensors")


if __name__ == "__main__":
    main()
