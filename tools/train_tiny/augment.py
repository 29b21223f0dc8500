"""Change drawings so that a thing is learnt rather than its pictures: bend, recolour, sketch, fill, thicken, cut.

Works on all drawings of the atlas at once, on the GPU.  A drawing whose colour has a name (`mono`, tinted when it is
drawn) keeps that property or loses it together with the name, so answers about colours stay true.
"""

import math

import torch
import torch.nn.functional as F


def insides(alpha, steps=90):
    """What an outline encloses, [n, side, side] in 0..1: everything that cannot be reached from the edge."""
    wall = F.max_pool2d((alpha > 0.35).float()[:, None], 2)
    free = 1 - wall
    reach = F.pad(torch.zeros_like(free[:, :, 1:-1, 1:-1]), (1, 1, 1, 1), value=1.0) * free
    for _ in range(steps):
        reach = F.max_pool2d(reach, 3, 1, 1) * free
    return F.interpolate(1 - reach, alpha.shape[1:], mode="bilinear", align_corners=False)[:, 0]


def bend(cells, generator=None):
    """Affine and elastic change of [n, c, side, side], mostly keeping the drawing inside its cell."""
    n, device = len(cells), cells.device
    rand = lambda *shape: torch.rand(*shape, device=device)
    normal = lambda *shape: torch.randn(*shape, device=device)
    still = rand(n) < 0.12
    zoom = 1 + 0.3 * rand(n) - 0.06  # of the place sampled: above 1 makes the drawing smaller
    stretch = torch.exp(normal(n) * 0.13)
    turn = normal(n) * 0.12
    shear = normal(n) * 0.14
    cos, sin = turn.cos(), turn.sin()
    theta = torch.zeros(n, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 0, 1] = cos * zoom * stretch, (shear - sin) * zoom
    theta[:, 1, 0], theta[:, 1, 1] = sin * zoom, cos * zoom / stretch
    theta[still] = torch.tensor([[1.0, 0, 0], [0, 1, 0]], device=device)
    grid = F.affine_grid(theta, list(cells.shape), align_corners=False)
    strength = (rand(n) * 0.10 * (rand(n) < 0.6) * ~still)[:, None, None, None]
    waves = F.interpolate(normal(n, 2, 4, 4) * strength, cells.shape[2:], mode="bicubic", align_corners=True)
    return F.grid_sample(cells, grid + waves.permute(0, 2, 3, 1), align_corners=False)


def recolour(rgb):
    """Hue, saturation, gamma, contrast, inversion, posterising of [n, 3, side, side] in 0..1."""
    n, device = len(rgb), rgb.device
    rand = lambda low=0.0, high=1.0: torch.rand(n, 1, 1, 1, device=device) * (high - low) + low
    gray = (rgb * torch.tensor([0.299, 0.587, 0.114], device=device)[:, None, None]).sum(1, keepdim=True)
    angle = torch.where(rand() < 0.5, rand(-math.pi, math.pi), rand(-0.3, 0.3))
    r, g, b = rgb.unbind(1)
    c, s = angle[:, 0].cos(), angle[:, 0].sin()
    third, root = (1 - c) / 3, s / 3 ** 0.5
    turned = torch.stack([r * (c + third) + g * (third - root) + b * (third + root),
                          r * (third + root) + g * (c + third) + b * (third - root),
                          r * (third - root) + g * (third + root) + b * (c + third)], 1)
    amount = torch.where(rand() < 0.12, torch.zeros_like(angle), rand(0.35, 1.6))
    out = gray + (turned - gray) * amount
    out = torch.where(rand() < 0.07, 1 - out, out).clamp(1e-4, 1)
    out = out ** torch.exp(rand(-0.55, 0.55))
    out = (out - 0.5) * rand(0.6, 1.3) + 0.5 + rand(-0.15, 0.15)
    steps = rand(2.5, 5).round()
    out = torch.where(rand() < 0.1, (out * steps).round() / steps, out)
    return torch.where(rand() < 0.3, rgb, out).clamp(0, 1)


@torch.no_grad()
def augment(cells, inside, mono):
    """Changed drawings: premultiplied cells [n, side, side, 4] in 0..255 and which of them are tinted."""
    n, device = len(cells), cells.device
    rand = lambda *shape: torch.rand(*shape, device=device)
    chance = lambda p: (torch.rand(n, device=device) < p)
    at = lambda flags: flags[:, None, None, None]
    x = bend(torch.cat([cells.permute(0, 3, 1, 2) / 255, inside[:, None]], 1))
    alpha, inside = x[:, 3:4].clamp(0, 1), x[:, 4:5].clamp(0, 1)
    rgb = (x[:, :3] / alpha.clamp(min=0.02)).clamp(0, 1)
    wide = F.max_pool2d(alpha, 5, 1, 2)
    thick = F.max_pool2d(alpha, 3, 1, 1)
    thin = 1 - F.max_pool2d(1 - alpha, 7, 1, 3)
    edge = alpha - thin  # the outline of a flat form
    hollow = (edge.sum((1, 2, 3)) < 0.75 * alpha.sum((1, 2, 3))) & (thin.sum((1, 2, 3)) > 0.02 * alpha[0].numel())
    body = torch.maximum(alpha, inside)
    enclosed = (body - alpha).mean((1, 2, 3)) > 0.05

    # One-colour icons.
    style = rand(n)
    form = torch.where(at(mono & (style < 0.10) & hollow), edge, alpha)
    form = torch.where(at(mono & (style >= 0.10) & (style < 0.18) & enclosed), body, form)
    form = torch.where(at(mono & (style >= 0.22) & (style < 0.34)), thick, form)
    form = torch.where(at(mono & (style >= 0.34) & (style < 0.40)), wide, form)
    # An outline with its inside painted becomes a drawing of several colours.
    paint = mono & (style >= 0.40) & (style < 0.62) & enclosed
    top, bottom, line = (torch.rand(n, 3, 1, 1, device=device) for _ in range(3))
    line = torch.where(at(chance(0.6)), line * 0.25, line)
    fall = torch.linspace(0, 1, x.shape[2], device=device)[None, None, :, None]
    bottom = torch.where(at(chance(0.5)), top, bottom)
    fill = top + (bottom - top) * fall
    painted = fill * (1 - alpha) + line * alpha
    apart = (fill.mean((2, 3)) - line[..., 0, 0]).abs().sum(1) > 0.5
    paint &= apart
    # Coloured drawings: as they are, recoloured, as a silhouette, as a sketch.
    light = (rgb * torch.tensor([0.299, 0.587, 0.114], device=device)[:, None, None]).sum(1, keepdim=True) * alpha + (1 - alpha) * 0.9
    slope = F.max_pool2d(light, 3, 1, 1) + F.max_pool2d(-light, 3, 1, 1)
    sketch = ((slope + 0.5 * (thick - alpha)) * 5 - 0.5).clamp(0, 1)
    drawn = ~mono & (style < 0.10) & (sketch.mean((1, 2, 3)) > 0.03)
    shade = ~mono & (style >= 0.10) & (style < 0.16)
    form = torch.where(at(drawn), sketch, torch.where(at(paint), body, form))
    colour = torch.where(at(paint), painted, recolour(rgb))
    tinted = (mono & ~paint) | drawn | shade
    colour = torch.where(at(tinted), torch.ones_like(colour), colour)

    # A piece cut out of some.
    side = x.shape[2]
    place = torch.arange(side, device=device)[None] / side
    low, size = rand(2, n, 1) * 0.8, 0.12 + 0.2 * rand(2, n, 1)
    cut = ((place >= low) & (place < low + size)).float()
    keep = 1 - cut[0][:, None, :, None] * cut[1][:, None, None, :] * at(chance(0.15)).float()
    form = form * keep
    # Nothing may be lost altogether.
    lost = at((form > 0.5).float().mean((1, 2, 3)) < 0.02)
    form, colour = torch.where(lost, alpha, form), torch.where(lost, rgb, colour)
    tinted = torch.where(lost[:, 0, 0, 0], mono, tinted)
    return torch.cat([colour * form, form], 1).permute(0, 2, 3, 1) * 255, tinted
