"""Write config.json and tokenizer.json of the tiny model.

    python make_config.py models/tiny
"""

import json
import sys
from pathlib import Path

from language import train_tokenizer

VOCABULARY = 1792

VISION = {"enc_dim": 256, "enc_patch_size": 16, "enc_n_layers": 7, "enc_ff_dim": 1024, "enc_n_heads": 4,
          "proj_out_dim": 256, "crop_size": 224, "in_channels": 3, "max_crops": 6, "overlap_margin": 2,
          "proj_inner_dim": 512}
TEXT = {"dim": 256, "ff_dim": 768, "n_layers": 6, "vocab_size": VOCABULARY, "max_context": 1024, "n_heads": 4,
        "n_kv_heads": 4, "prefix_attn": 197}
REGION = {"dim": 256, "coord_feat_dim": 64, "coord_out_dim": 1024, "size_feat_dim": 128, "size_out_dim": 2048,
          "inner_dim": 192}


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(folder / "tokenizer.json", VOCABULARY)
    ids = lambda text: tokenizer.encode(text).ids
    caption = {length: [1, *ids("describe"), 2, *ids(length), 3] for length in ("short", "normal", "long")}
    config = {
        "text": TEXT, "vision": VISION, "region": REGION,
        "tokenizer": {
            "bos_id": 0, "eos_id": 0, "answer_id": 3, "thinking_id": 4, "coord_id": 5, "size_id": 6,
            "start_ground_points_id": 7, "end_ground_id": 9,
            "templates": {
                "caption": caption,
                "query": {"prefix": [1, *ids("query"), 2], "suffix": [3]},
                "detect": {"prefix": [1, *ids("detect"), 2], "suffix": [3]},
                "point": {"prefix": [1, *ids("point"), 2], "suffix": [3]},
            },
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    print(tokenizer.get_vocab_size(), "entries;", caption)


if __name__ == "__main__":
    main()
