"""Draw labelled scenes on the GPU (or, slowly, on a CPU): sprites, shapes and words over backgrounds.

A batch is made of groups of equal tiling: most scenes fill one crop, the others are as large as the resized pictures
that the engine cuts into 2 to 6 tiles.  All pixels of a batch are drawn by one function over a flat list of pixels, so
that it compiles to one kernel whatever the mixture.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from augment import augment, insides
from language import MOST, Truth
from nouns import COLOURS

LAYERS = MOST + 1  # the last layer is the printed text
STRIP_HEIGHT, STRIP_WIDTH = 32, 256
LEVELS = 4
BANK = 256  # side of a background texture

# (tiles down, tiles across): share of the scenes of a training batch, in 512ths
MIXTURE = {(1, 1): 352, (1, 2): 20, (2, 1): 20, (1, 3): 8, (3, 1): 8, (2, 2): 80, (2, 3): 12, (3, 2): 12}


def pack(rgba):
    """uint8 [..., 4] to int32."""
    wide = rgba.to(torch.int32)
    return wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16 | wide[..., 3] << 24


def channel(word, index):
    return ((word >> (8 * index)) & 255).float()


def mip_levels(cells):
    """Premultiplied float cells [n, h, w, 4] in 0..255 to LEVELS packed levels."""
    levels = []
    for level in range(LEVELS):
        levels.append(pack((cells + 0.5).clamp(0, 255).to(torch.uint8)).flatten())
        if level + 1 < LEVELS:
            cells = F.avg_pool2d(cells.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return levels


def draw_index(weights):
    """A random column of every row, with the given weights; unlike multinomial it never waits for the GPU."""
    return (weights / torch.empty_like(weights).exponential_().clamp(min=1e-9)).argmax(-1)


def noise_textures(count, generator):
    """Smooth coloured noise of several kinds, [count, BANK, BANK, 3] in 0..1."""
    out = []
    for index in range(count):
        total = torch.zeros(1, 3, BANK, BANK)
        power = 0.3 + 1.4 * torch.rand(1, generator=generator).item()
        mix = torch.rand(1, generator=generator).item()
        for octave in range(1, 8):
            cells = 2 ** octave
            grid = torch.rand(1, 3, cells, cells, generator=generator)
            grid = mix * grid + (1 - mix) * grid[:, :1]
            if index % 3 == 0:
                grid = (grid > 0.5).float()
            total += F.interpolate(grid, (BANK, BANK), mode="bicubic" if index % 2 else "bilinear",
                                   align_corners=False) * cells ** -power
        total -= total.amin((2, 3), keepdim=True)
        total /= total.amax((2, 3), keepdim=True)
        a, b = torch.rand(2, 3, generator=generator)
        if index % 4 < 2:  # two colours
            total = a[None, :, None, None] + (b - a)[None, :, None, None] * total[:, :1]
        if index % 5 == 0:  # stripes and checks
            y, x = torch.meshgrid(torch.arange(BANK), torch.arange(BANK), indexing="ij")
            width = 4 + int(torch.randint(28, (1,), generator=generator))
            stripes = ((x + (y if index % 10 else 0)) // width % 2).float()
            if index % 15 == 0:
                stripes = ((x // width + y // width) % 2).float()
            total = total * 0.4 + 0.6 * (a[None, :, None, None] + (b - a)[None, :, None, None] * stripes[None, None])
        out.append(total.permute(0, 2, 3, 1).clamp(0, 1))
    return torch.cat(out)


def picture_file(folder, name):
    """A sheet of pictures: the exact one or, where files have to be small, a compressed one."""
    exact = folder / f"{name}.png"
    return Image.open(exact if exact.exists() else folder / f"{name}.webp")


def even_odds(sprites, pool):
    """Odds of the drawings in `pool`: a group of near-identical ones counts little more than a single one."""
    key = lambda s: (s["group"], "") if s["group"] >= 0 else (-1, s["source"] + s["detail"])
    groups = [key(sprites[i]) for i in pool]
    odds = np.array([groups.count(group) ** -0.7 for group in groups])
    return odds / odds.sum()


class Atlas:
    """Everything that scenes are drawn from, in device memory."""

    def __init__(self, folder, device, words, held=False, unseen=False, seed=0):
        """`held`: draw with held-out backgrounds, fonts and words.  `unseen`: with held-out drawings."""
        folder = Path(folder)
        info = json.loads((folder / "atlas.json").read_text())
        self.names, self.device = info["nouns"], device
        side, columns = info["side"], info["columns"]
        sheet = np.asarray(picture_file(folder, "sprites").convert("RGBA"))
        sprites = info["sprites"]
        cells = np.stack([sheet[i // columns * side:(i // columns + 1) * side, i % columns * side:(i % columns + 1) * side]
                          for i in range(len(sprites))])
        cells = torch.from_numpy(cells).to(device).float()
        cells[..., :3] *= cells[..., 3:] / 255
        self.originals = None if held else (cells + 0.5).to(torch.uint8)
        levels = mip_levels(cells)
        self.side = side
        self.level_start = torch.tensor([0, *np.cumsum([len(level) for level in levels])[:-1]], device=device)
        self.source = torch.cat(levels)
        self.coverage = (cells[..., 3] > 127).float().mean((1, 2))
        self.mono = torch.tensor([s["mono"] for s in sprites], device=device)
        self.half = torch.tensor([[s["width"] / side / 2, s["height"] / side / 2] for s in sprites], device=device)
        number = {name: i for i, name in enumerate(self.names)}
        rng = np.random.default_rng(7)
        slots = 64 if held else 1024  # training draws its 64 anew from these, see refresh
        table = np.zeros((len(self.names), slots), dtype=np.int64)
        shapes = []
        for name, index in number.items():
            mine = [i for i, s in enumerate(sprites) if s["noun"] == name and (s.get("shape") or s["held"] == unseen)
                    and not (held and s.get("extra"))]  # so that evaluation scenes stay the same
            flat = [i for i in mine if sprites[i]["mono"]]
            full = [i for i in mine if not sprites[i]["mono"]]
            if sprites[mine[0]].get("shape"):
                shapes.append(index)
            # Colour drawings and one-colour icons about equally often; a few colour drawings must not be most of what is seen.
            share = 9 if held or len(full) > 3 else 6
            odds = {id(pool): None if held else even_odds(sprites, pool) for pool in (full, flat)}
            for place in range(slots):
                pool = full if full and (not flat or place % 16 < share) else flat
                table[index, place] = pool[rng.integers(len(pool))] if held else rng.choice(pool, p=odds[id(pool)])
        self.table = torch.from_numpy(table).to(device)
        if not held:
            self.all_table, self.table = self.table, self.table[:, :64].contiguous()
            self.flat = self.mono.clone()
            self.mine = torch.from_numpy(np.unique(table)).to(device)
            self.inside = None
        self.shapes = torch.tensor(shapes, device=device)
        self.things = torch.tensor([i for i in range(len(self.names)) if i not in set(shapes)], device=device)

        glyphs = np.asarray(Image.open(folder / "glyphs.png").convert("L")).copy()
        fonts = len(info["fonts_held"])
        self.glyphs = torch.from_numpy(glyphs).to(device).view(fonts, 32, 36, 32).permute(0, 2, 1, 3).float()
        self.fonts = torch.tensor([i for i, h in enumerate(info["fonts_held"]) if h == held], device=device)
        self.advance = torch.tensor(info["glyph_widths"], device=device)
        mine = [w for i, w in enumerate(words) if (i % 10 == 0) == held]
        letters = torch.zeros(len(mine), 8, dtype=torch.long)
        for row, word in enumerate(mine):
            letters[row, :len(word)] = torch.tensor([ord(c) - 65 for c in word])
        self.words, self.word_length = letters.to(device), torch.tensor([len(w) for w in mine], device=device)

        generator = torch.Generator().manual_seed(991 if held else 17)
        strip = np.asarray(picture_file(folder, "photos").convert("RGB"))
        photos = [strip[i * 512:(i + 1) * 512] for i, p in enumerate(info["photos"]) if p["held"] == held]
        squares = []
        for photo in photos:  # each photograph as a whole and in four parts
            picture = Image.fromarray(photo)
            squares.append(np.asarray(picture.resize((BANK, BANK), Image.LANCZOS)))
            squares += [photo[y:y + BANK, x:x + BANK] for y in (0, 256) for x in (0, 256)]
        photos = torch.from_numpy(np.stack(squares).copy())
        # The same number of textures in both sets keeps the compiled drawing function valid for either.
        noise = (noise_textures(180 - len(photos), generator) * 255).to(torch.uint8)
        self.photo_count = len(photos)
        bank = torch.cat([photos, noise])
        self.bank_size = len(bank)
        self.bank_mean = bank.float().mean((1, 2)).to(device) / 255
        self.bank = pack(torch.cat([bank, torch.full_like(bank[..., :1], 255)], -1)).flatten().to(device)
        self.colours = torch.tensor([c[3] for c in COLOURS], device=device).float() / 255
        self.odds = torch.tensor([1.0, 1.2, 1.2, 1.1, 1.0, 0.9, 0.8, 0.8], device=device)  # of 1..8 things
        sizes = [0, 1, 1.25]  # where the levels of the word strips begin, in whole strips after the sprites
        self.strip_starts = torch.tensor(sizes, device=device, dtype=torch.float64)


    @torch.no_grad()
    def refresh(self, plain=0.0):
        """Other drawings of every noun, changed anew but for a share of `plain`: shapes stay as they are."""
        if self.inside is None:
            things = ~torch.isin(self.mine, self.all_table[self.shapes].unique())
            self.mine = self.mine[things]
            self.inside = torch.cat([insides(part[..., 3].float() / 255) for part in self.originals[self.mine].split(512)])
        self.table = self.all_table[:, torch.randperm(self.all_table.shape[1], device=self.device)[:64]].contiguous()
        sides = [self.side >> level for level in range(LEVELS)]
        source = [self.source[start:start + len(self.originals) * side * side].view(-1, side * side)
                  for start, side in zip(self.level_start.tolist(), sides)]
        axis = (torch.arange(self.side, device=self.device) + 0.5 - self.side / 2).abs() + 0.5
        for which, inside in zip(self.mine.split(512), self.inside.split(512)):
            original = self.originals[which].float()
            cells, mono = augment(original, inside, self.flat[which])
            same = torch.rand(len(which), device=self.device) < plain
            cells = torch.where(same[:, None, None, None], original, cells)
            mono = torch.where(same, self.flat[which], mono)
            for level, packed in zip(source, mip_levels(cells)):
                level[which] = packed.view(len(which), -1)
            seen = cells[..., 3] > 40
            self.mono[which] = mono
            self.coverage[which] = (cells[..., 3] > 127).float().mean((1, 2))
            self.half[which] = torch.stack([(seen.any(1) * axis).amax(1), (seen.any(2) * axis).amax(1)], 1) / self.side


def draw_ground(scene, x, y, back, bank):
    """Background colour [n, 3] in 0..255 of pixels at x, y (parts of the picture) of the given scenes.

    back [scenes, 20]: two colours, gradient direction, radial, texture affine, strength, contrast, brightness, centre.
    """
    b = [back[scene, i] for i in range(20)]
    linear = x * b[6] + y * b[7]
    radial = ((x - b[17]) ** 2 + (y - b[18]) ** 2).sqrt() * 1.2
    t = (linear + b[8] * (radial - linear)).clamp(0, 1)
    u = x * b[9] + y * b[10] + b[11]
    v = y * b[9] - x * b[10] + b[12]
    # Mirror at the edges so that any window of the texture is continuous.
    u = (BANK - 1) - ((u % (2 * BANK - 2)) - (BANK - 1)).abs()
    v = (BANK - 1) - ((v % (2 * BANK - 2)) - (BANK - 1)).abs()
    u0, v0 = u.floor(), v.floor()
    fu, fv = u - u0, v - v0
    start = b[13].int() * (BANK * BANK)
    iu, iv = u0.int().clamp(0, BANK - 2), v0.int().clamp(0, BANK - 2)
    taps = [(bank[start + (iv + j) * BANK + iu + i], (fu if i else 1 - fu) * (fv if j else 1 - fv))
            for j in (0, 1) for i in (0, 1)]
    colour = []
    for k in range(3):
        texture = sum(channel(word, k) * weight for word, weight in taps)
        plain = (b[k] + (b[3 + k] - b[k]) * t) * 255
        colour.append((plain + b[14] * (texture - plain)).to(torch.float16))
    return colour


def draw_layer(red, green, blue, owner, layer, scene, x, y, params, bases, source):
    """One sprite a scene over what is there: params [scenes, 12] are six affine numbers to texels, width, height,
    tint r g b, mono; bases [scenes] is where the sprite's level begins in `source`."""
    p = [params[scene, i] for i in range(12)]
    base = bases[scene]
    u = x * p[0] + y * p[1] + p[2] - 0.5
    v = x * p[3] + y * p[4] + p[5] - 0.5
    u0, v0 = u.floor(), v.floor()
    fu, fv = u - u0, v - v0
    width, height = p[6], p[7]
    r = g = b = alpha = 0.0
    for j in (0, 1):
        for i in (0, 1):
            tu, tv = u0 + i, v0 + j
            inside = (tu >= 0) & (tv >= 0) & (tu < width) & (tv < height)
            place = base + torch.where(inside, tv * width + tu, 0.0).int()
            word = torch.where(inside, source[place], 0)
            weight = (fu if i else 1 - fu) * (fv if j else 1 - fv)
            r += channel(word, 0) * weight
            g += channel(word, 1) * weight
            b += channel(word, 2) * weight
            alpha += channel(word, 3) * weight
    mono = p[11] > 0.5
    cover = alpha / 255
    r = torch.where(mono, alpha, r) * p[8]
    g = torch.where(mono, alpha, g) * p[9]
    b = torch.where(mono, alpha, b) * p[10]
    over = lambda below, above: (below.float() * (1 - cover) + above).to(torch.float16)
    return over(red, r), over(green, g), over(blue, b), torch.where(cover > 0.5, layer, owner)


def lanczos_matrix(target, size):
    """Pillow's antialiased LANCZOS along one axis, [target, size]."""
    scale = size / target
    f = max(scale, 1.0)
    matrix = torch.zeros(target, size)
    for o in range(target):
        centre = (o + 0.5) * scale
        low, high = max(0, int(centre - 3 * f + 0.5)), min(size, int(centre + 3 * f + 0.5))
        t = (torch.arange(low, high) - centre + 0.5) / f
        w = torch.sinc(t) * torch.sinc(t / 3)
        matrix[o, low:high] = w / w.sum()
    return matrix


LUMA = torch.tensor([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99]).view(8, 8).float()


def jpeg(pixels, quality, luma):
    """JPEG's loss on [n, 3, h, w] in 0..255: 8 x 8 DCT of Y, Cb, Cr quantised by `quality` [n]."""
    n, _, h, w = pixels.shape
    device = pixels.device
    k = torch.arange(8, device=device).float()
    basis = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) * 0.5
    basis[0] *= 0.5 ** 0.5
    r, g, b = pixels.float().unbind(1)
    ycc = torch.stack([0.299 * r + 0.587 * g + 0.114 * b - 128, -0.1687 * r - 0.3313 * g + 0.5 * b,
                       0.5 * r - 0.4187 * g - 0.0813 * b], 1)
    blocks = ycc.view(n, 3, h // 8, 8, w // 8, 8)
    freq = torch.einsum("ux,vy,ncixjy->nciujv", basis, basis, blocks)
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)[:, None, None, None, None, None]
    table = (luma[None, None, None, :, None, :] * scale).clamp(min=1)
    table = torch.cat([table, table * 1.3, table * 1.3], 1)
    freq = (freq / table).round() * table
    y, cb, cr = torch.einsum("ux,vy,nciujv->ncixjy", basis, basis, freq).reshape(n, 3, h, w).unbind(1)
    y = y + 128
    return torch.stack([y + 1.402 * cr, y - 0.3441 * cb - 0.7141 * cr, y + 1.772 * cb], 1).clamp(0, 255)


@dataclass
class Batch:
    crops: torch.Tensor    # uint8 [crops, 3, crop, crop]: all global crops first, then the tiles group by group
    owners: torch.Tensor   # uint8 [crops, crop, crop]: layer drawn at a pixel, 255 for the background
    scene: torch.Tensor    # [crops] scene number
    window: torch.Tensor   # [crops, 4] x0, y0, width, height of the crop in parts of the picture
    truth: Truth
    layer_noun: torch.Tensor    # [scenes, LAYERS], LAYERS - 1 being the text
    layer_colour: torch.Tensor
    layer_box: torch.Tensor     # [scenes, LAYERS, 4]
    layer_seen: torch.Tensor    # [scenes, LAYERS]
    text_affine: torch.Tensor   # [scenes, 6] from parts of the picture to texels of the strip
    text_ends: torch.Tensor     # [scenes, 8] where every character ends in the strip
    canvases: list = None


class Painter:
    def __init__(self, atlas, vision, mixture, compiled=False, keep_canvases=False, text_rate=0.45):
        """`mixture`: {(down, across): scenes}; `vision`: the vision part of the model's configuration.

        `keep_canvases`: draw scene by scene, undistorted, and keep the whole pictures (for evaluation and small machines).
        """
        self.atlas, self.device = atlas, atlas.device
        self.crop, self.patch = vision["crop_size"], vision["enc_patch_size"]
        margin = vision["overlap_margin"] * self.patch
        self.window = self.crop - 2 * margin
        self.keep, self.text_rate = keep_canvases, text_rate
        self.groups = []
        first = 0
        self.aspects = []
        for (down, across), count in mixture.items():
            height, width = down * self.window + 2 * margin, across * self.window + 2 * margin
            self.groups.append((down, across, count, height, width, first))
            first += count
            self.aspects += [width / height] * count
        self.scenes = first
        self.pixels = sum(g[2] * g[3] * g[4] for g in self.groups)
        if not keep_canvases:
            self.pixel_scene = torch.cat([torch.arange(f, f + c, device=self.device, dtype=torch.int32).repeat_interleave(h * w)
                                          for _, _, c, h, w, f in self.groups])
            self.pixel_x = torch.cat([((torch.arange(w, device=self.device) + 0.5) / w).repeat(c * h)
                                      for _, _, c, h, w, f in self.groups])
            self.pixel_y = torch.cat([((torch.arange(h, device=self.device) + 0.5) / h).repeat_interleave(w).repeat(c)
                                      for _, _, c, h, w, f in self.groups])
        # Layer by layer: one kernel for all of them would take a minute to compile.
        self.ground = torch.compile(draw_ground, dynamic=False) if compiled else draw_ground
        self.layer = torch.compile(draw_layer, dynamic=False) if compiled else draw_layer
        self.layer_number = [torch.tensor(i, dtype=torch.uint8, device=self.device) for i in range(LAYERS)]
        self.aspects = torch.tensor(self.aspects, device=self.device)
        heights = torch.cat([torch.full((c,), float(h)) for _, _, c, h, _, _ in self.groups]).to(self.device)
        widths = torch.cat([torch.full((c,), float(w)) for _, _, c, _, w, _ in self.groups]).to(self.device)
        self.canvas = torch.stack([widths, heights], 1)
        window = lambda i, j, h, w: [j * self.window / w, i * self.window / h, self.crop / w, self.crop / h]
        self.tile_windows = {g[:2]: torch.tensor([window(i, j, g[3], g[4]) for i in range(g[0]) for j in range(g[1])],
                                                 device=self.device) for g in self.groups}
        self.whole_window = torch.tensor([0.0, 0.0, 1.0, 1.0], device=self.device).expand(first, 4)
        self.luma = LUMA.to(self.device)
        self.resize = {g[:2]: (lanczos_matrix(self.crop, g[3]).to(self.device), lanczos_matrix(self.crop, g[4]).to(self.device))
                       for g in self.groups if g[:2] != (1, 1)}

    def _uniform(self, *shape, low=0.0, high=1.0):
        return torch.rand(*shape, device=self.device) * (high - low) + low

    def _jpeg_alone(self):
        return torch.rand(()).item() < 0.5

    def layout(self):
        """Choose what lies where.  Picture units: x in 0..aspect', y in 0..1 with the shorter side = 1."""
        a, n, dev = self.atlas, self.scenes, self.device
        jitter = torch.exp(self._uniform(n, low=-0.22, high=0.22)) if not self.keep else 1.0
        aspect = self.aspects * jitter  # of the picture before it was resized to the crop or the tiles
        span = torch.stack([torch.where(aspect > 1, aspect, 1.0), torch.where(aspect > 1, 1.0, 1 / aspect)], 1)
        amount = draw_index(a.odds.expand(n, -1)) + 1

        # What: kinds, with repeats, and a drawing of each.
        kind = a.things[torch.randint(len(a.things), (n, MOST), device=dev)]
        shape = a.shapes[torch.randint(len(a.shapes), (n, MOST), device=dev)]
        kind = torch.where(self._uniform(n, MOST) < 0.22, shape, kind)
        colour = torch.randint(len(a.colours), (n, MOST), device=dev)
        repeat = self._uniform(n, MOST) < 0.32
        again = self._uniform(n, MOST) < 0.5
        pick = torch.randint(64, (n, MOST), device=dev)
        for i in range(1, MOST):
            kind[:, i] = torch.where(repeat[:, i], kind[:, i - 1], kind[:, i])
            colour[:, i] = torch.where(repeat[:, i] & again[:, i], colour[:, i - 1], colour[:, i])
            pick[:, i] = torch.where(repeat[:, i] & again[:, i], pick[:, i - 1], pick[:, i])
        sprite = a.table.gather(0, kind.view(-1)[:, None].expand(-1, 64)).gather(1, pick.view(-1, 1)).view(n, MOST)
        mono = a.mono[sprite]

        # Background first: colours keep clear of it.
        low = torch.rand(n, 3, device=dev)
        high = (low + 0.5 * torch.randn(n, 3, device=dev)).clamp(0, 1)
        angle = self._uniform(n, high=2 * math.pi)
        texture = torch.where(self._uniform(n) < 0.55, torch.randint(a.photo_count, (n,), device=dev),
                              torch.randint(a.bank_size, (n,), device=dev))
        strength = torch.where(self._uniform(n) < 0.3, 0.0, self._uniform(n, low=0.25, high=1.0).pow(0.6))
        ground = (low + high) / 2 * (1 - strength[:, None]) + strength[:, None] * a.bank_mean[texture]
        other = torch.randint(len(a.colours), (n, MOST), device=dev)
        contrast = lambda c: (a.colours[c] - ground[:, None]).abs().sum(-1)
        colour = torch.where(contrast(colour) < 0.45, torch.where(contrast(other) > contrast(colour), other, colour), colour)

        # Where: sizes, then one after the other at the freest of several places.
        shortest = torch.minimum(self.canvas[:, 0] / span[:, 0], self.canvas[:, 1] / span[:, 1])  # pixels per unit
        smallest = (20.0 / shortest).clamp(min=0.05)[:, None]
        largest = (1.15 / amount.float().sqrt()).clamp(max=0.6)[:, None]
        size = smallest * (largest / smallest) ** self._uniform(n, MOST).pow(0.8)
        turn = torch.randn(n, MOST, device=dev) * 0.16
        turn = torch.where(self._uniform(n, MOST) < 0.1, turn * 3, turn).clamp(-0.6, 0.6)
        turn = torch.where((kind[..., None] == a.shapes).any(-1), turn.clamp(-0.2, 0.2), turn)
        flip = torch.where(self._uniform(n, MOST) < 0.5, -1.0, 1.0)
        stretch = torch.exp(torch.randn(n, MOST, device=dev) * 0.06)
        half = a.half[sprite] * size[..., None]
        cos, sin = turn.cos().abs(), turn.sin().abs()
        box = torch.stack([half[..., 0] * cos + half[..., 1] * sin, half[..., 0] * sin + half[..., 1] * cos], -1)
        tries = 10
        spots = torch.rand(n, MOST, tries, 2, device=dev)
        room = (span[:, None] - 2 * box).clamp(min=0.0)
        spots = box[:, :, None] + spots * room[:, :, None]
        centre = torch.zeros(n, MOST, 2, device=dev)
        present = torch.arange(MOST, device=dev) < amount[:, None]
        fits = (2 * box <= span[:, None]).all(-1)
        allowed = self._uniform(n, high=0.3)
        for i in range(MOST):
            if i == 0:
                centre[:, 0] = spots[:, 0, 0]
                continue
            gap = (spots[:, i, :, None] - centre[:, None, :i]).abs()
            over = (box[:, i, None, None] + box[:, None, :i] - gap).clamp(min=0)
            over = torch.minimum(over, 2 * torch.minimum(box[:, i, None, None], box[:, None, :i])).prod(-1)
            area = 4 * torch.minimum(box[:, i, None].prod(-1), box[:, :i].prod(-1))
            worst = (over / area[:, None].clamp(min=1e-6)).masked_fill(~present[:, None, :i], 0).amax(-1)
            # Take a place that overlaps within what this scene allows, or the freest one.
            best = torch.where(worst <= allowed[:, None], 0.0, worst).argmin(1)
            rows = torch.arange(n, device=dev)
            centre[:, i] = spots[rows, i, best]
            present[:, i] &= (worst[rows, best] <= 0.3) & fits[:, i]

        # Inverse affine maps from picture parts to texels, with the mip level that fits the size on the canvas.
        displayed = size * shortest[:, None]
        level = torch.log2(a.side / displayed.clamp(min=1)).add(0.15).round().clamp(0, LEVELS - 1)
        side = a.side / 2 ** level
        base = a.level_start[level.long()] + sprite * (side * side).long()
        params = torch.zeros(n, LAYERS, 12, device=dev)
        cos, sin = turn.cos(), turn.sin()
        sx, sy = side / size / stretch, side / size * stretch
        ux, uy = cos * sx * flip, sin * sx * flip
        vx, vy = -sin * sy, cos * sy
        params[:, :MOST, 0] = ux * span[:, None, 0]
        params[:, :MOST, 1] = uy * span[:, None, 1]
        params[:, :MOST, 2] = side / 2 - ux * centre[..., 0] - uy * centre[..., 1]
        params[:, :MOST, 3] = vx * span[:, None, 0]
        params[:, :MOST, 4] = vy * span[:, None, 1]
        params[:, :MOST, 5] = side / 2 - vx * centre[..., 0] - vy * centre[..., 1]
        params[:, :MOST, 6] = params[:, :MOST, 7] = torch.where(present, side, 0.0)
        tint = (a.colours[colour] + torch.randn(n, MOST, 3, device=dev) * 0.04).clamp(0, 1)
        gain = torch.exp(torch.randn(n, MOST, 1, device=dev) * 0.1) * torch.exp(torch.randn(n, MOST, 3, device=dev) * 0.04)
        params[:, :MOST, 8:11] = torch.where(mono[..., None], tint, gain.clamp(max=1.0))
        params[:, :MOST, 11] = mono.float()
        bases = torch.zeros(n, LAYERS, dtype=torch.int32, device=dev)
        bases[:, :MOST] = base.int()
        noun = torch.where(present, kind, -1)
        colour = torch.where(mono & present, colour + 1, 0)
        expected = a.coverage[sprite] * displayed ** 2 * (self.canvas.prod(1) / (span.prod(1) * shortest ** 2))[:, None]

        back = torch.zeros(n, 20, device=dev)
        back[:, 0:3], back[:, 3:6] = low, high
        back[:, 6], back[:, 7] = angle.cos().abs(), angle.sin().abs()
        back[:, 8] = (self._uniform(n) < 0.25).float()
        zoom = shortest * torch.exp(self._uniform(n, low=-1.6, high=0.0)) * 0.7
        back[:, 9] = zoom * torch.where(self._uniform(n) < 0.8, 1.0, 0.9) * span.mean(1)
        back[:, 10] = zoom * torch.randn(n, device=dev) * 0.1
        back[:, 11], back[:, 12] = self._uniform(n, high=400.0), self._uniform(n, high=400.0)
        back[:, 13] = texture.float()
        back[:, 14] = strength
        back[:, 15] = torch.exp(torch.randn(n, device=dev) * 0.12)
        back[:, 16] = torch.randn(n, device=dev) * 14
        back[:, 17], back[:, 18] = self._uniform(n), self._uniform(n)
        return params, bases, back, noun, colour, expected, span, shortest, ground

    def print_words(self, params, bases, span, shortest, ground):
        """Printed text for a third of the scenes: draws the strips and places them as the last layer."""
        a, n, dev = self.atlas, self.scenes, self.device
        u = self._uniform(n)
        word = torch.randint(len(a.words), (n,), device=dev)
        text, length = a.words[word], a.word_length[word]
        digits = torch.randint(26, 36, (n, 8), device=dev)
        random = torch.randint(0, 26, (n, 8), device=dev)
        some = torch.randint(1, 7, (n,), device=dev)
        text = torch.where((u < 0.22)[:, None], digits, text)
        text = torch.where((u > 0.85)[:, None], random, text)
        length = torch.where(u < 0.22, some, torch.where(u > 0.85, some + 2, length))
        inside = torch.arange(8, device=dev) < length[:, None]
        font = a.fonts[torch.randint(len(a.fonts), (n,), device=dev)]
        spacing = torch.randint(-1, 3, (n, 1), device=dev)
        advance = torch.where(inside, a.advance[font[:, None], text] + spacing, 0)
        ends = advance.cumsum(1).clamp(max=STRIP_WIDTH)
        column = torch.arange(STRIP_WIDTH, device=dev)
        letter = (column[None, :, None] >= ends[:, None]).sum(-1).clamp(max=7)
        local = column[None] - (ends - advance).gather(1, letter)
        visible = (column[None] < ends[:, -1:]) & (local < 32)
        strip = a.glyphs[font[:, None], text.gather(1, letter), :, local.clamp(0, 31)]  # [n, width, height]
        strip = (strip * visible[..., None]).transpose(1, 2)
        # Ink that stands out from the ground, on a plate in half of the scenes.
        plate = self._uniform(n) < 0.5
        dark = torch.where(plate, self._uniform(n) < 0.5, ground.mean(1) > 0.5)
        ink = torch.rand(n, 3, device=dev) * 0.35
        ink = torch.where(dark[:, None], ink, 1 - ink)
        board = torch.rand(n, 3, device=dev) * 0.4
        board = torch.where(dark[:, None], 1 - board, board)
        cover = strip[..., None] / 255
        flat = torch.where(plate[:, None, None, None] & visible[:, None, :, None], board[:, None, None] * (1 - cover), 0.0)
        flat = flat + ink[:, None, None] * cover
        alpha = torch.where(plate[:, None, None, None], visible[:, None, :, None].float(), cover)
        levels = mip_levels(torch.cat([flat, alpha], -1) * 255)
        source = torch.cat([a.source, *levels])

        wide = ends[:, -1].float() + 0.01
        # Letters at least about 10 pixels high and 8 wide, the word at most nine tenths of the picture.
        scale_low = (8.0 * length / wide).clamp(min=11.0 / 28)  # pixels a texel
        scale_high = torch.minimum(0.9 * span[:, 0] * shortest / wide, torch.full_like(wide, 2.4))
        has = (self._uniform(n) < (0.36 if self.keep else self.text_rate)) & (scale_high > scale_low)
        scale = scale_low * (scale_high.clamp(min=0.1) / scale_low).clamp(min=1) ** self._uniform(n)
        scale = scale / shortest  # picture units a texel
        level = torch.log2(1 / (scale * shortest)).add(0.2).round().clamp(0, 2)
        turn = torch.randn(n, device=dev) * 0.07
        size = torch.stack([wide, torch.full_like(wide, 32.0)], 1) * scale[:, None]
        half = size / 2
        reach = torch.stack([half[:, 0] * turn.cos() + half[:, 1] * turn.sin().abs(),
                             half[:, 0] * turn.sin().abs() + half[:, 1] * turn.cos()], 1)
        centre = reach + torch.rand(n, 2, device=dev) * (span - 2 * reach).clamp(min=0)
        texel = 1 / (scale * 2 ** level)
        cos, sin = turn.cos() * texel, turn.sin() * texel
        middle = torch.stack([wide / 2, torch.full_like(wide, 16.0)], 1) / 2 ** level[:, None]
        affine = torch.stack([cos * span[:, 0], sin * span[:, 1], middle[:, 0] - cos * centre[:, 0] - sin * centre[:, 1],
                              -sin * span[:, 0], cos * span[:, 1], middle[:, 1] + sin * centre[:, 0] - cos * centre[:, 1]], 1)
        params[:, MOST, :6] = affine
        params[:, MOST, 6] = torch.where(has, STRIP_WIDTH / 2 ** level, 0.0)
        params[:, MOST, 7] = STRIP_HEIGHT / 2 ** level
        params[:, MOST, 8:11] = 1.0
        row = torch.arange(n, device=dev)
        whole = n * STRIP_WIDTH * STRIP_HEIGHT
        bases[:, MOST] = len(a.source) + (a.strip_starts[level.long()] * whole).long() + \
            row * (STRIP_WIDTH * STRIP_HEIGHT / 4 ** level).long()
        return source, has, text, length, affine * 2 ** level[:, None], ends

    def draw(self, scene, x, y, params, bases, source, back, bank):
        """Colour [n, 3] and owning layer [n] (255: background) of pixels."""
        red, green, blue = self.ground(scene, x, y, back, bank)
        owner = torch.full(scene.shape, 255, dtype=torch.uint8, device=self.device)
        for layer in range(LAYERS):
            red, green, blue, owner = self.layer(red, green, blue, owner, self.layer_number[layer], scene, x, y,
                                                 params[:, layer].contiguous(), bases[:, layer].contiguous(), source)
        return torch.stack([red, green, blue], -1), owner

    def measure(self, owners, first, boxes, counts):
        """Tight boxes of what is visible of every layer, from owner maps [n, h, w]."""
        n, h, w = owners.shape
        for layer in range(LAYERS):
            mask = owners == layer
            columns, rows = mask.any(1), mask.any(2)
            x0, x1 = columns.int().argmax(1), w - columns.flip(1).int().argmax(1)
            y0, y1 = rows.int().argmax(1), h - rows.flip(1).int().argmax(1)
            boxes[first:first + n, layer] = torch.stack([(x0 + x1) / (2 * w), (y0 + y1) / (2 * h),
                                                         (x1 - x0) / w, (y1 - y0) / h], 1)
            counts[first:first + n, layer] = mask.sum((1, 2))

    @torch.no_grad()
    def paint(self):
        a, n, dev = self.atlas, self.scenes, self.device
        params, bases, back, noun, colour, expected, span, shortest, ground = self.layout()
        source, has_text, text, length, affine, ends = self.print_words(params, bases, span, shortest, ground)
        boxes = torch.zeros(n, LAYERS, 4, device=dev)
        counts = torch.zeros(n, LAYERS, device=dev)
        if not self.keep:
            pixels, owner = self.draw(self.pixel_scene, self.pixel_x, self.pixel_y, params, bases, source, back, a.bank)
        wholes, whole_owners, tiles, tile_owners, tile_scene, tile_window, canvases = [], [], [], [], [], [], []
        at = 0
        for down, across, count, h, w, first in self.groups:
            if self.keep:  # one scene at a time, for machines without a GPU
                parts = []
                x, y = ((torch.arange(w, device=dev) + 0.5) / w).repeat(h), ((torch.arange(h, device=dev) + 0.5) / h).repeat_interleave(w)
                for i in range(first, first + count):
                    parts.append(self.draw(torch.full((h * w,), i, device=dev), x, y, params, bases, source, back, a.bank))
                image = torch.stack([p[0] for p in parts]).view(count, h, w, 3)
                layer = torch.stack([p[1] for p in parts]).view(count, h, w)
            else:
                size = count * h * w
                image = pixels[at:at + size].view(count, h, w, 3)
                layer = owner[at:at + size].view(count, h, w)
                at += size
            self.measure(layer, first, boxes, counts)
            image = image.permute(0, 3, 1, 2).float()
            image = ((image - 128) * back[first:first + count, 15, None, None, None] + 128
                     + back[first:first + count, 16, None, None, None]).clamp(0, 255)
            # A little blur in some scenes, noise in some, JPEG in others: which is as random as the scenes.
            third = -(-count // 3)
            padded = F.pad(image[:third], (1, 1, 1, 1), mode="replicate")
            around = (padded[:, :, :-2, 1:-1] + padded[:, :, 2:, 1:-1] + padded[:, :, 1:-1, :-2] + padded[:, :, 1:-1, 2:]) / 4
            image[:third] += self._uniform(third, 1, 1, 1, high=0.6) * (around - image[:third])
            some = slice(count // 4, count // 4 + third)
            image[some] += self._uniform(len(image[some]), 1, 1, 1, high=14) * torch.randn_like(image[some])
            if count > 1 or self._jpeg_alone():
                some = slice(count // 2, None)
                image[some] = jpeg(image[some].clamp(0, 255).contiguous(), self._uniform(len(image[some]), low=30, high=96), self.luma)
            image = image.clamp(0, 255)
            image = (image + 0.5).to(torch.uint8)
            if self.keep:
                canvases += list(image)
            if (down, across) == (1, 1):
                wholes.append(image)
                whole_owners.append(layer)
                continue
            rows, columns = self.resize[(down, across)]
            small = torch.einsum("oh,nchw,pw->ncop", rows, image.float(), columns)
            wholes.append((small + 0.5).clamp(0, 255).to(torch.uint8))
            yy = ((torch.arange(self.crop, device=dev) + 0.5) / self.crop * h).long()
            xx = ((torch.arange(self.crop, device=dev) + 0.5) / self.crop * w).long()
            whole_owners.append(layer[:, yy][:, :, xx])
            for i in range(down):
                for j in range(across):
                    y0, x0 = i * self.window, j * self.window
                    tiles.append(image[:, :, y0:y0 + self.crop, x0:x0 + self.crop])
                    tile_owners.append(layer[:, y0:y0 + self.crop, x0:x0 + self.crop])
                    tile_scene.append(torch.arange(first, first + count, device=dev))
                    tile_window.append(self.tile_windows[(down, across)][i * across + j].expand(count, 4))
        seen = counts >= 20
        seen[:, :MOST] &= (noun >= 0) & (counts[:, :MOST] > 0.3 * expected)
        seen[:, MOST] &= has_text
        layer_noun = torch.cat([noun.clamp(min=0), torch.full((n, 1), len(a.names), device=dev)], 1)
        layer_colour = torch.cat([colour, torch.zeros(n, 1, dtype=torch.long, device=dev)], 1)
        order = boxes[:, :MOST, 0].masked_fill(~seen[:, :MOST], 9).argsort(1)
        take = lambda t: t[:, :MOST].gather(1, order)
        truth = Truth(take(seen), take(layer_noun), take(layer_colour),
                      boxes[:, :MOST].gather(1, order[..., None].expand(-1, -1, 4)),
                      seen[:, MOST], boxes[:, MOST], text, length)
        return Batch(torch.cat(wholes + tiles), torch.cat(whole_owners + tile_owners),
                     torch.cat([torch.arange(n, device=dev), *tile_scene]), torch.cat([self.whole_window, *tile_window]),
                     truth, layer_noun, layer_colour, boxes, seen, affine, ends, canvases or None)


def dense_targets(batch, grid):
    """For every patch of every crop: noun (last + 1: nothing), colour, box in parts of the crop, letters at 2 x 2 points.

    Returns noun [c, g²], colour [c, g²], box [c, g², 4] relative to the patch centre, present [c, g²], letters [c, g², 4].
    """
    owners, scene, window = batch.owners, batch.scene, batch.window
    crops, side = owners.shape[0], owners.shape[1]
    step = side // grid // 4
    points = owners[:, step // 2::step, step // 2::step].view(crops, grid, 4, grid, 4)
    votes = torch.stack([(points == layer).sum((2, 4)) for layer in range(LAYERS)], -1).flatten(1, 2)  # [c, g², layers]
    votes = votes * batch.layer_seen[scene][:, None]
    most, layer = votes.max(-1)
    present = most >= 2
    pick = lambda table: table[scene].gather(1, layer)
    nothing = batch.layer_noun.max(1).values[scene][:, None] + 1  # the text's number is the largest
    noun = torch.where(present, pick(batch.layer_noun), nothing)
    colour = torch.where(present, pick(batch.layer_colour), 0)
    box = batch.layer_box[scene].gather(1, layer[..., None].expand(-1, -1, 4))
    low = (box[..., :2] - box[..., 2:] / 2 - window[:, None, :2]) / window[:, None, 2:]
    high = (box[..., :2] + box[..., 2:] / 2 - window[:, None, :2]) / window[:, None, 2:]
    centre = (torch.arange(grid, device=owners.device) + 0.5) / grid
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    patch = torch.stack([cx, cy], -1).flatten(0, 1)
    box = torch.cat([low.clamp(0, 1) - patch, high.clamp(0, 1) - patch], -1)
    # Letters: where does each of 2 x 2 points of a patch fall in the strip of printed text?
    offsets = torch.tensor([-0.25, 0.25], device=owners.device) / grid
    oy, ox = torch.meshgrid(offsets, offsets, indexing="ij")
    where = patch[:, None] + torch.stack([ox, oy], -1).flatten(0, 1)  # [g², 4, 2]
    where = window[:, None, None, :2] + where[None] * window[:, None, None, 2:]
    affine = batch.text_affine[scene]
    part = lambda i: affine[:, None, None, i]
    u = where[..., 0] * part(0) + where[..., 1] * part(1) + part(2)
    v = where[..., 0] * part(3) + where[..., 1] * part(4) + part(5)
    ends = batch.text_ends[scene][:, None, None]
    letter = (u[..., None] >= ends).sum(-1)
    inside = (u >= 0) & (letter < 8) & (v >= 2) & (v < 30) & batch.layer_seen[scene][:, None, None, MOST]
    text = batch.truth.text[scene]
    shown = text.gather(1, letter.clamp(max=7).flatten(1)).view(letter.shape)
    return noun, colour, box, present, torch.where(inside, shown, 36)
