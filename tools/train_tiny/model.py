"""Moondream 2's architecture in PyTorch, as small as the configuration says.

Parameter names are the published ones, so `state_dict()` with a `model.` prefix is the checkpoint.  Training runs many
prompts of one picture in one sequence; `Slots` says where they lie and who sees whom.
"""

import json
import math

import torch
import torch.nn.functional as F
from torch import nn


def layer_norm(x, norm):
    return F.layer_norm(x, (x.shape[-1],), norm.weight, norm.bias, 1e-5)


class Affine(nn.Module):
    """Weight and bias of a LayerNorm; functional use keeps the published names."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))


class MLP(nn.Module):
    def __init__(self, dim, inner, out=None):
        super().__init__()
        self.fc1 = nn.Linear(dim, inner)
        self.fc2 = nn.Linear(inner, out or dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Attention(nn.Module):
    def __init__(self, dim, qkv):
        super().__init__()
        self.qkv = nn.Linear(dim, qkv)
        self.proj = nn.Linear(dim, dim)


class VisionBlock(nn.Module):
    def __init__(self, dim, inner, heads):
        super().__init__()
        self.ln1, self.ln2 = Affine(dim), Affine(dim)
        self.attn, self.mlp = Attention(dim, 3 * dim), MLP(dim, inner)
        self.heads = heads

    def forward(self, x):
        batch, tokens, dim = x.shape
        qkv = self.attn.qkv(layer_norm(x, self.ln1)).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, dim)
        x = x + self.attn.proj(mixed)
        return x + self.mlp(layer_norm(x, self.ln2))


def rotate(x, cos, sin):
    """Half-split rotation of the first 2 * cos.shape[-1] dimensions; x is [batch, heads, tokens, head_dim]."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half].float(), x[..., half:2 * half].float(), x[..., 2 * half:]
    return torch.cat([(a * cos - b * sin).to(x.dtype), (a * sin + b * cos).to(x.dtype), rest], -1)


class TextBlock(nn.Module):
    def __init__(self, dim, inner, heads, kv_heads):
        super().__init__()
        self.ln = Affine(dim)
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.attn = Attention(dim, dim + 2 * kv_heads * self.head_dim)
        self.mlp = MLP(dim, inner)

    def qkv(self, n, cos, sin):
        batch, tokens, dim = n.shape
        q, k, v = self.attn.qkv(n).split([dim] + 2 * [self.kv_heads * self.head_dim], -1)
        q = q.view(batch, tokens, self.heads, self.head_dim).transpose(1, 2)
        k = k.view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        v = v.view(batch, tokens, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.kv_heads != self.heads:
            k, v = (t.repeat_interleave(self.heads // self.kv_heads, 1) for t in (k, v))
        return q, k, v

    def finish(self, x, n, mixed, delta=None):
        x = x + self.attn.proj(mixed.transpose(1, 2).reshape(x.shape))
        if delta is None:
            return x + self.mlp(n)
        up_a, up_b, down_a, down_b = delta
        hidden = F.gelu(self.mlp.fc1(n) + F.linear(F.linear(n, up_a), up_b), approximate="tanh")
        return x + self.mlp.fc2(hidden) + F.linear(F.linear(hidden, down_a), down_b)

    def forward(self, x, cos, sin, prefix, mask, delta=None):
        """The first `prefix` rows see each other; row prefix + i sees what mask[i] says."""
        n = layer_norm(x, self.ln)
        q, k, v = self.qkv(n, cos, sin)
        head = F.scaled_dot_product_attention(q[:, :, :prefix], k[:, :, :prefix], v[:, :, :prefix])
        tail = F.scaled_dot_product_attention(q[:, :, prefix:], k, v, attn_mask=mask)
        return self.finish(x, n, torch.cat([head, tail], 2), delta)

    def step(self, x, cos, sin, cache, mask, delta=None):
        """Rows after a cached prefix: returns the new rows only (used by greedy decoding)."""
        n = layer_norm(x, self.ln)
        q, k, v = self.qkv(n, cos, sin)
        mixed = F.scaled_dot_product_attention(q, torch.cat([cache[0], k], 2), torch.cat([cache[1], v], 2),
                                               attn_mask=mask)
        return self.finish(x, n, mixed, delta)


class Vision(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.grid = c["crop_size"] // c["enc_patch_size"]
        self.patch = c["enc_patch_size"]
        dim = c["enc_dim"]
        self.patch_emb = nn.Linear(3 * self.patch ** 2, dim)
        self.pos_emb = nn.Parameter(torch.zeros(1, self.grid ** 2, dim))
        self.blocks = nn.ModuleList(VisionBlock(dim, c["enc_ff_dim"], c["enc_n_heads"]) for _ in range(c["enc_n_layers"]))
        self.post_ln = Affine(dim)
        self.proj_mlp = MLP(2 * dim, c["proj_inner_dim"], c["proj_out_dim"])

    def patches(self, pixels):
        """[n, 3, crop, crop] to [n, grid * grid, 3 * patch * patch], each patch ordered channel, row, column."""
        n, g, p = pixels.shape[0], self.grid, self.patch
        return pixels.view(n, 3, g, p, g, p).permute(0, 2, 4, 1, 3, 5).reshape(n, g * g, 3 * p * p)

    def encode(self, pixels):
        x = self.patch_emb(self.patches(pixels)) + self.pos_emb
        for block in self.blocks:
            x = block(x)
        return layer_norm(x, self.post_ln)


class Text(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.wte = nn.Parameter(torch.randn(c["vocab_size"], c["dim"]) * 0.02)
        self.blocks = nn.ModuleList(TextBlock(c["dim"], c["ff_dim"], c["n_heads"], c["n_kv_heads"])
                                    for _ in range(c["n_layers"]))
        self.post_ln = Affine(c["dim"])
        self.lm_head = nn.Linear(c["dim"], c["vocab_size"])


class Region(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.coord_encoder = nn.Linear(c["coord_feat_dim"], c["dim"])
        self.size_encoder = nn.Linear(c["size_feat_dim"], c["dim"])
        self.coord_decoder = MLP(c["dim"], c["inner_dim"], c["coord_out_dim"])
        self.size_decoder = MLP(c["dim"], c["inner_dim"], c["size_out_dim"])
        # Fixed random frequencies: low ones for the coarse place, high ones for the last bins.
        self.coord_features = nn.Parameter(torch.randn(1, c["coord_feat_dim"] // 2) * 4.0, requires_grad=False)
        self.size_features = nn.Parameter(torch.randn(2, c["size_feat_dim"] // 2) * 2.0, requires_grad=False)

    @staticmethod
    def fourier(values, features, rounded=True):
        """Fourier features; `rounded` applies the bf16 steps of the specification."""
        if not rounded:
            angle = (2 * math.pi * values) @ features
            return torch.cat([angle.cos(), angle.sin()], -1)
        with torch.autocast(values.device.type, enabled=False):
            round16 = lambda t: t.to(torch.bfloat16).float()
            angle = round16(round16(2 * math.pi * round16(values.float())) @ round16(features.float()))
            return torch.cat([round16(angle.cos()), round16(angle.sin())], -1)

    def embed_coord(self, value, rounded=True):
        return self.coord_encoder(self.fourier(value[..., None], self.coord_features, rounded))

    def embed_size(self, size, rounded=True):
        return self.size_encoder(self.fourier(size, self.size_features, rounded))


def bins_to_size(bins):
    return torch.exp2(bins / 1023 * 10 - 10)


def tiling(height, width, c):
    """Tiles (down, across) of a picture: specification 3.3."""
    margins = 2 * c["overlap_margin"] * c["enc_patch_size"]
    window, most = c["crop_size"] - margins, c["max_crops"]
    h, w = height - margins, width - margins
    if h <= window or w <= window:
        return 1, 1
    a, b = math.ceil(h / window), math.ceil(w / window)
    if a * b > most:
        r = math.sqrt(most / (a * b))
        return max(1, math.floor(a * r)), max(1, math.floor(b * r))
    p = max(math.floor(math.sqrt(most * h / w)), a)
    q = max(math.floor(math.sqrt(most * w / h)), b)
    if p * q > most:
        if q > p:
            q = math.floor(most / p)
        else:
            p = math.floor(most / q)
    return max(1, p), max(1, q)


def stitch_pool_matrix(down, across, grid, margin):
    """[grid², tiles · grid²]: stitching of the tiles and adaptive average pooling back to the grid, as one matrix."""
    window = grid - 2 * margin

    def axis(tiles):  # rows: pooled cell, columns: (tile, local cell)
        size = tiles * window + 2 * margin
        source = []
        for tile in range(tiles):
            first, last = (0 if tile == 0 else margin), (grid if tile == tiles - 1 else grid - margin)
            source += [(tile, local) for local in range(first, last)]
        matrix = torch.zeros(grid, tiles, grid)
        for cell in range(grid):
            begin, end = cell * size // grid, -(-(cell + 1) * size // grid)
            for tile, local in source[begin:end]:
                matrix[cell, tile, local] += 1 / (end - begin)
        return matrix

    rows, columns = axis(down), axis(across)
    return torch.einsum("yir,xjc->yxijrc", rows, columns).reshape(grid * grid, down * across * grid * grid)


class Moondream(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.vision = Vision(config["vision"])
        self.text = Text(config["text"])
        self.region = Region(config["region"])
        c = config["text"]
        self.rotary_half = c["dim"] // c["n_heads"] // 4
        self.theta = c.get("rope_theta", 10000.0)
        self.prefix = 1 + self.vision.grid ** 2

    def start(self):
        """Weights before training: small normal matrices, residual outputs scaled down by depth."""
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and name.endswith("weight"):
                std = (1.0 / parameter.shape[1]) ** 0.5 * 0.7
                if name.endswith(("proj.weight", "mlp.fc2.weight")):
                    std /= (2 * len(self.vision.blocks)) ** 0.5
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        nn.init.normal_(self.vision.pos_emb, std=0.02)
        nn.init.normal_(self.text.wte, std=0.3)
        nn.init.normal_(self.text.lm_head.weight, std=0.02)

    def rope(self, positions):
        frequency = self.theta ** (-torch.arange(self.rotary_half, device=positions.device, dtype=torch.float32)
                                   / self.rotary_half)
        angle = positions.float()[:, None] * frequency
        return angle.cos(), angle.sin()

    def project(self, whole, pooled):
        return self.vision.proj_mlp(torch.cat([whole, pooled], -1))

    def prefix_rows(self, image):
        bos = self.text.wte[0].expand(image.shape[0], 1, -1).to(image.dtype)
        return torch.cat([bos, image], 1)

    def run(self, image, embedded, positions, mask, deltas=None):
        """Hidden rows of the embedded tokens (before post_ln), given image embeddings."""
        x = torch.cat([self.prefix_rows(image), embedded.to(image.dtype)], 1)
        where = torch.cat([torch.arange(self.prefix, device=x.device), positions])
        cos, sin = self.rope(where)
        for index, block in enumerate(self.text.blocks):
            x = block(x, cos, sin, self.prefix, mask, None if deltas is None else deltas[index])
        return x[:, self.prefix:]

    def cache(self, image, deltas=None):
        """Keys and values of BOS and the image for every layer."""
        x = self.prefix_rows(image)
        cos, sin = self.rope(torch.arange(self.prefix, device=x.device))
        kept = []
        for index, block in enumerate(self.text.blocks):
            n = layer_norm(x, block.ln)
            q, k, v = block.qkv(n, cos, sin)
            kept.append((k, v))
            x = block.finish(x, n, F.scaled_dot_product_attention(q, k, v), None if deltas is None else deltas[index])
        return kept

    def after(self, cache, embedded, positions, mask, deltas=None):
        cos, sin = self.rope(positions)
        x = embedded
        for index, block in enumerate(self.text.blocks):
            x = block.step(x, cos, sin, cache[index], mask, None if deltas is None else deltas[index])
        return x

    def logits(self, hidden):
        return self.text.lm_head(layer_norm(hidden, self.text.post_ln))


def load_config(path):
    with open(path) as file:
        return json.load(file)
