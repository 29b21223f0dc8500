"""Train the tiny model.  One run is at most a few minutes long and continues from the checkpoint of the last.

    python train.py --atlas .train/atlas --state STATE --out OUT --seconds 560 --total 1500
    python -m torch.distributed.run --nproc-per-node 2 train.py ...

`--total` is the time of all runs together, by which the learning rate is scheduled; `--seconds` ends this run.  The
second form trains on several GPUs, each drawing and learning from a batch of its own.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import evaluate_gpu
from language import MOST, Phrases, Speaker
from model import Moondream, VisionBlock, TextBlock, bins_to_size, layer_norm, load_config, stitch_pool_matrix
from scenes import MIXTURE, Atlas, Painter, dense_targets
from team import Team

# Rooms of the prompts of one picture; every slot sees the picture and itself.
SLOTS = [("caption", 83)] + 2 * [("detect", 32)] + 2 * [("point", 24)] + 4 * [("query", 28)]


def slot_mask(slots, prefix, device):
    """[rows, prefix + rows] and the position of every row: slots are causal and do not see each other."""
    rooms = [room for _, room in slots]
    rows = sum(rooms)
    mask = torch.zeros(rows, prefix + rows, dtype=torch.bool, device=device)
    mask[:, :prefix] = True
    positions, at = [], 0
    for room in rooms:
        mask[at:at + room, prefix + at:prefix + at + room] = torch.ones(room, room, dtype=torch.bool, device=device).tril()
        positions.append(prefix + torch.arange(room, device=device))
        at += room
    return mask, torch.cat(positions)


def bins_of(boxes):
    """Bins of centre x, centre y, width, height."""
    place = (boxes[..., :2] * 1024).round().clamp(0, 1023)
    size = ((boxes[..., 2:].clamp(min=1 / 1024).log2() + 10) / 10 * 1023).round().clamp(0, 1023)
    return torch.cat([place, size], -1)


def list_layout(prompts, room, per_thing):
    """For every position of a list slot: which thing and which part of it the *token* there is (part -1: neither)."""
    offset = torch.arange(room + 1, device=prompts.tokens.device) - prompts.prompt[:, None]
    thing = offset.div(per_thing, rounding_mode="floor")
    inside = (offset >= 0) & (thing < prompts.count[:, None])
    return thing.clamp(0, MOST), torch.where(inside, offset % per_thing, -1)


def embed_list(model, prompts, room, per_thing):
    """Input rows of a detect or point slot, with numbers where the tokens are coordinates or sizes."""
    thing, part = list_layout(prompts, room, per_thing)
    bins = bins_of(prompts.values).gather(1, thing[..., None].expand(-1, -1, 4))
    rows = model.text.wte[prompts.tokens[:, :room]]
    part_in, bins_in = part[:, :room], bins[:, :room]
    value = torch.where(part_in == 1, bins_in[..., 1], bins_in[..., 0]) / 1024
    rows = torch.where(((part_in == 0) | (part_in == 1))[..., None], model.region.embed_coord(value).to(rows.dtype), rows)
    if per_thing == 3:
        size = model.region.embed_size(bins_to_size(bins_in[..., 2:]))
        rows = torch.where((part_in == 2)[..., None], size.to(rows.dtype), rows)
    return rows, part[:, 1:], bins[:, 1:]


def soft_bins(logits, bins, spread, weight):
    """Cross entropy against a narrow bell around the right bin, so that near misses cost less."""
    steps = torch.arange(1024, device=logits.device)
    target = torch.softmax(-((steps - bins[..., None]) / spread) ** 2 / 2, -1)
    loss = -(target * torch.log_softmax(logits.float(), -1)).sum(-1)
    return (loss * weight).sum() / weight.sum().clamp(min=1)


def token_loss(hidden, norm, head, labels, weight):
    logits = F.linear(layer_norm(hidden, norm), head.weight, head.bias).float()
    loss = torch.logsumexp(logits, -1) - logits.gather(-1, labels[..., None])[..., 0]
    return (loss * weight).sum() / weight.sum()


class DenseHead(nn.Module):
    """What covers every patch: noun, colour, box, letters.  Used in training only."""

    def __init__(self, dim, nouns, colours):
        super().__init__()
        self.split = [nouns + 2, colours + 1, 4, 4 * 37]
        self.out = nn.Linear(dim, sum(self.split))

    def forward(self, features, noun, colour, box, present, letters):
        n, c, b, l = self.out(features).float().split(self.split, -1)
        shape = present.shape
        on = present.float()
        weight = on + 0.15 * (1 - on)
        total = on.sum().clamp(min=1)
        kind = F.cross_entropy(n.flatten(0, 1), noun.flatten(), reduction="none", label_smoothing=0.02).view(shape)
        paint = F.cross_entropy(c.flatten(0, 1), colour.flatten(), reduction="none").view(shape)
        kind = (kind * weight).sum() / weight.sum()
        paint = (paint * on).sum() / total
        place = (F.smooth_l1_loss(b, box, beta=0.02, reduction="none").sum(-1) * on).sum() / total
        low, high = torch.maximum(b[..., :2], box[..., :2]), torch.minimum(b[..., 2:], box[..., 2:])
        inter = (high - low).clamp(min=0).prod(-1)
        area = (b[..., 2:] - b[..., :2]).clamp(min=0).prod(-1) + (box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1)
        overlap = ((1 - inter / (area - inter).clamp(min=1e-6)) * on).sum() / total
        letter_weight = torch.where(letters < 36, 1.0, 0.03)
        read = F.cross_entropy(l.reshape(-1, 37), letters.flatten(), reduction="none").view(letters.shape)
        read = (read * letter_weight).sum() / letter_weight.sum()
        return kind + 0.4 * paint + 2.0 * place + 0.5 * overlap + 0.6 * read, torch.stack([kind, overlap, read]).detach()


def orthogonalise(g):
    """Newton-Schulz iterations towards the nearest orthogonal matrices of a stack."""
    x = g.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


class Muon:
    """Momentum, orthogonalised, for the matrices inside the blocks; stacks equal shapes to launch few kernels."""

    def __init__(self, named):
        self.groups = {}
        for name, p in named:
            thirds = 3 if "qkv" in name else 1
            shape = (p.shape[0] // thirds, p.shape[1])
            self.groups.setdefault((thirds, shape), []).append(p)
        self.moments = {key: torch.zeros(len(ps) * key[0], *key[1], device=ps[0].device) for key, ps in self.groups.items()}
        self.project = torch.compile(orthogonalise) if torch.cuda.is_available() else orthogonalise

    @torch.no_grad()
    def step(self, lr, momentum=0.95, decay=0.02):
        for key, ps in self.groups.items():
            thirds, shape = key
            g = torch.stack([p.grad for p in ps]).view(-1, *shape)
            moment = self.moments[key].lerp_(g, 1 - momentum)
            update = self.project(g.lerp(moment, momentum)).view(len(ps), -1, shape[1])
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            torch._foreach_mul_(ps, 1 - lr * decay)
            torch._foreach_add_(ps, list(update.unbind(0)), alpha=-lr * scale)


class Trainer:
    def __init__(self, options, team):
        self.options, self.team = options, team
        self.device = team.device
        torch.manual_seed(options.seed)
        torch.set_float32_matmul_precision("high")
        model_folder = Path(options.model)
        self.config = config = load_config(model_folder / "config.json")
        self.model = Moondream(config)
        self.model.start()
        self.model.to(self.device)
        self.words = (Path(options.atlas) / "words.txt").read_text().split()
        self.atlas = Atlas(options.atlas, self.device, self.words)
        mixture = MIXTURE if options.batch == 512 else {k: max(1, v * options.batch // 512) for k, v in MIXTURE.items()}
        self.mixture = mixture
        compiled = options.compile and self.device == "cuda"
        self.painter = Painter(self.atlas, config["vision"], mixture, compiled=compiled, text_rate=options.text_rate)
        self.speaker = make_speaker(model_folder, self.atlas.names, self.device)
        self.heads = nn.ModuleList([DenseHead(config["vision"]["enc_dim"], len(self.atlas.names), 11),
                                    DenseHead(config["text"]["dim"], len(self.atlas.names), 11)]).to(self.device)
        self.mask, self.positions = slot_mask(SLOTS, self.model.prefix, self.device)
        grid, margin = self.model.vision.grid, config["vision"]["overlap_margin"]
        self.grid = grid
        self.pools = {key: stitch_pool_matrix(*key, grid, margin).to(self.device) for key in mixture if key != (1, 1)}
        named = [(n, p) for n, p in [*self.model.named_parameters(), *self.heads.named_parameters()] if p.requires_grad]
        inner = lambda n, p: p.dim() == 2 and ("blocks." in n or "proj_mlp" in n or n.endswith("decoder.fc1.weight"))
        self.muon = Muon([(n, p) for n, p in named if inner(n, p)])
        rest = [p for n, p in named if not inner(n, p)]
        self.adam = torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0, fused=self.device == "cuda")
        self.all = [p for _, p in named]
        self.step, self.spent, self.drawn = 0, 0.0, 0
        self.functions = {"soft": soft_bins, "token": token_loss, "targets": dense_targets}
        if compiled:
            vision_block, text_block = torch.compile(VisionBlock.forward, dynamic=False), torch.compile(TextBlock.forward, dynamic=False)
            self.vision_block, self.text_block = vision_block, text_block
            self.functions = {k: torch.compile(f, dynamic=False) for k, f in self.functions.items()}
            self.head_forward = torch.compile(DenseHead.forward, dynamic=False)
        else:
            self.vision_block, self.text_block = VisionBlock.forward, TextBlock.forward
            self.head_forward = DenseHead.forward
        if options.state and Path(options.state).exists():
            self.load(options.state)
        elif options.weights:
            self.model.load_state_dict({k.removeprefix("model."): v.float() for k, v in load_file(options.weights).items()})
            if options.heads and Path(options.heads).exists():
                self.heads.load_state_dict({k.removeprefix("heads."): v for k, v in load_file(options.heads).items()})
                self.spent = options.spent
        team.share([p.data for p in [*self.model.parameters(), *self.heads.parameters()]])
        torch.manual_seed(options.seed + self.step + 1000003 * team.rank)
        # Drawn beside the learning, on a stream of its own, so that its many small kernels fill gaps.
        self.side = torch.cuda.Stream() if options.overlap and self.device == "cuda" else None
        self.saved = time.time()

    # Pieces of the forward pass that use the compiled blocks

    def features(self, batch):
        v = self.model.vision
        pixels = ((batch.crops.to(torch.bfloat16) / 255) - 0.5) / 0.5
        x = v.patch_emb(v.patches(pixels))
        x = x + v.pos_emb.to(x.dtype)
        for block in v.blocks:
            x = self.vision_block(block, x)
        return layer_norm(x, v.post_ln)

    def features_plain(self, batch):
        """The same without compiled blocks, for evaluation."""
        pixels = ((batch.crops.to(torch.bfloat16) / 255) - 0.5) / 0.5
        return torch.cat([self.model.vision.encode(part) for part in pixels.split(512)])

    def image(self, features):
        """Image embeddings of all scenes from the features of all crops."""
        n = self.painter.scenes
        whole, at, pooled = features[:n], n, []
        for down, across, count, _, _, first in self.painter.groups:
            if (down, across) == (1, 1):
                pooled.append(whole[first:first + count])
                continue
            tiles = down * across
            local = features[at:at + tiles * count].view(tiles, count, self.grid ** 2, -1).permute(1, 0, 2, 3)
            at += tiles * count
            pooled.append(self.pools[(down, across)].to(features.dtype) @ local.reshape(count, tiles * self.grid ** 2, -1))
        return self.model.project(whole, torch.cat(pooled))

    def text_rows(self, image, embedded, deltas=None):
        x = torch.cat([self.model.prefix_rows(image), embedded.to(image.dtype)], 1)
        prefix = self.model.prefix
        cos, sin = self.model.rope(torch.cat([torch.arange(prefix, device=x.device), self.positions]))
        for index, block in enumerate(self.model.text.blocks):
            x = self.text_block(block, x, cos, sin, prefix, self.mask, None if deltas is None else deltas[index])
        return x[:, prefix:]

    def prompts(self, truth):
        made = []
        for kind, room in SLOTS:
            if kind == "caption":
                made.append(self.speaker.captions(truth, room))
            elif kind == "query":
                made.append(self.speaker.queries(truth, room))
            else:
                made.append(self.speaker.listing(truth, room, kind))
        return made

    def text_loss(self, image, truth):
        """Loss of all prompts: tokens, coordinates and sizes."""
        prompts = self.prompts(truth)
        embedded, labels, weights, lists = [], [], [], []
        at = 0
        for (kind, room), p in zip(SLOTS, prompts):
            place = torch.arange(1, room + 1, device=self.device)
            weight = ((place >= p.prompt[:, None]) & (place < p.length[:, None])).float()
            label = p.tokens[:, 1:]
            if kind in ("detect", "point"):
                rows, part, bins = embed_list(self.model, p, room, 3 if kind == "detect" else 2)
                weight = weight * (part < 1)  # after x the next token is certain
                lists.append((at, room, part, bins))
                weight = weight * 1.5
            else:
                rows = self.model.text.wte[p.tokens[:, :room]]
            embedded.append(rows)
            labels.append(label)
            weights.append(weight)
            at += room
        hidden = self.text_rows(image, torch.cat([e.to(image.dtype) for e in embedded], 1))
        words = self.functions["token"](hidden, self.model.text.post_ln, self.model.text.lm_head, torch.cat(labels, 1),
                                        torch.cat(weights, 1))
        region = self.model.region
        rows = torch.cat([hidden[:, at:at + room] for at, room, _, _ in lists], 1)
        part = torch.cat([x[2] for x in lists], 1)
        bins = torch.cat([x[3] for x in lists], 1)
        wanted = torch.where(part == 1, bins[..., 1], bins[..., 0])
        place = self.functions["soft"](region.coord_decoder(rows), wanted, 2.5, ((part == 0) | (part == 1)).float())
        rows = torch.cat([hidden[:, at:at + room] for at, room, _, _ in lists[:2]], 1)
        part = torch.cat([x[2] for x in lists[:2]], 1)
        bins = torch.cat([x[3] for x in lists[:2]], 1)
        size = region.size_decoder(rows).unflatten(-1, (2, 1024))
        on = (part == 2).float()[..., None].expand(-1, -1, 2)
        extent = self.functions["soft"](size, bins[..., 2:], 7.0, on)
        return words, place, extent

    def rate(self):
        """Share of the peak learning rate: a short rise, a plateau, a long straight fall."""
        done = self.spent / self.options.total
        return min(1.0, (self.step + 1) / 150) * min(1.0, max(0.01, (1.0 - done) / 0.55))

    def wait(self):
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.time()

    def update(self, batch, targets, warm):
        """One step; returns the parts of the loss as a tensor of 9."""
        o, n = self.options, self.painter.scenes
        with torch.autocast(self.device, torch.bfloat16):
            features = self.features(batch)
            dense, seen = self.head_forward(self.heads[0], features, *targets)
            if warm:
                loss = dense
                parts = second = torch.zeros_like(seen)
            else:
                image = self.image(features)
                after, second = self.head_forward(self.heads[1], image, *(t[:n] for t in targets))
                words, place, extent = self.text_loss(image, batch.truth)
                ease = 0.3 + 0.7 * max(0.0, 1 - self.spent / (0.6 * o.total))
                loss = 2.0 * words + 0.5 * place + 0.4 * extent + ease * (dense + 0.7 * after)
                parts = torch.stack([words, place, extent]).detach()
        loss.backward()
        for p in self.all:  # parts of the model that the warm-up does not touch
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.team.average([p.grad for p in self.all])
        nn.utils.clip_grad_norm_(self.all, 3.0)
        rate = self.rate()
        self.muon.step(o.muon_rate * rate)
        for group in self.adam.param_groups:
            group["lr"] = o.adam_rate * rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=False)
        self.muon_zero()
        self.step += 1
        return torch.cat([parts, seen, second])

    def plain(self):
        """Share of the drawings that are shown unchanged: more and more of them towards the end."""
        done = self.spent / self.options.total
        return 0.15 + 0.4 * min(1.0, max(0.0, (done - 0.4) / 0.5))

    def draw(self):
        """A batch and its targets; drawings are changed anew every so many batches."""
        o = self.options
        if o.refresh and self.drawn % o.refresh == 0:
            self.atlas.refresh(self.plain())
        self.drawn += 1
        batch = self.painter.paint()
        return batch, self.functions["targets"](batch, self.grid)

    def draw_beside(self):
        """The same on the side stream, after all that is queued so far: so what a batch two steps ago held can be
        reused by now, and this one is drawn while the last one is learnt from."""
        if self.side is None:
            return self.draw()
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            return self.draw()

    def compile_all(self):
        """Take the first steps of both kinds outside the clock, and see how long drawing takes beside learning."""
        begun = self.wait()
        batch, targets = self.draw()
        painted = self.wait()
        fresh = self.spent < self.options.vision_seconds
        if fresh:
            self.update(batch, targets, True)
        self.update(batch, targets, False)
        compiled = self.wait()
        for _ in range(4):
            batch, targets = self.draw()
        drawing = (self.wait() - compiled) / 4
        middle = self.wait()
        for _ in range(4):
            self.update(batch, targets, fresh)
        learning = (self.wait() - middle) / 4
        self.team.say(f"compiled drawing in {painted - begun:.0f} s, learning in {compiled - painted:.0f} s; "
                      f"a batch takes {1000 * drawing:.0f} ms to draw and {1000 * learning:.0f} ms to learn from")

    def report_progress(self, history, counted, elapsed):
        h = (history / counted).tolist()
        self.team.say(f"step {self.step} {self.spent:.0f}s {1000 * elapsed / counted:.0f}ms/step rate {self.rate():.2f} "
                      f"plain {self.plain():.2f} words {h[0]:.3f} place {h[1]:.3f} size {h[2]:.3f} | kind {h[3]:.3f} "
                      f"overlap {h[4]:.3f} letters {h[5]:.3f} | kind {h[6]:.3f} overlap {h[7]:.3f} letters {h[8]:.3f}")
        if not math.isfinite(h[3]):
            raise SystemExit("the loss is not finite")

    def run(self, wall):
        """Train until the first process's wall clock reaches `wall`."""
        o = self.options
        self.compile_all()
        begun = last = self.wait()
        offset = self.spent
        history = torch.zeros(9, device=self.device)
        counted, shown, going = 0, self.step, True
        if o.finish:
            o.total, = self.team.agree(self.spent + max(1.0, wall - begun))
        ahead = self.draw_beside()
        while going:
            if self.side is not None:
                torch.cuda.current_stream().wait_stream(self.side)
            batch, targets = ahead
            ahead = self.draw_beside()
            history += self.update(batch, targets, self.spent < o.vision_seconds)
            counted += 1
            if self.step % 10 == 0 or o.steps:
                now = self.wait()
                over = now >= wall or (o.steps and self.step >= o.steps)
                self.spent, over = self.team.agree(offset + now - begun, float(over))
                going = not over and self.spent < o.total
                if self.step - shown >= 160:
                    self.report_progress(history, counted, now - last)
                    history.zero_()
                    counted, last, shown = 0, now, self.step
                if now - self.saved > o.save_every:
                    self.keep()
        self.wait()

    def muon_zero(self):
        for ps in self.muon.groups.values():
            torch._foreach_zero_([p.grad for p in ps])

    def keep(self):
        """Write the checkpoint and the weights, in the first process."""
        self.saved = time.time()
        if self.team.first and self.step:
            if self.options.state:
                self.save(self.options.state)
            if self.options.out:
                Path(self.options.out).mkdir(parents=True, exist_ok=True)
                self.export(self.options.out)

    def save(self, path):
        torch.save({"model": self.model.state_dict(), "heads": self.heads.state_dict(), "adam": self.adam.state_dict(),
                    "muon": self.muon.moments, "step": self.step, "spent": self.spent}, path)

    def load(self, path):
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        if "adam" in state:
            self.adam.load_state_dict(state["adam"])
            for key, value in state["muon"].items():
                self.muon.moments[key].copy_(value)
        self.step, self.spent = state["step"], state["spent"]
        self.team.say(f"continuing at step {self.step}, {self.spent:.0f} s")

    def export(self, out, parts=4):
        """fp32 weights in files small enough to carry; merge.py joins them."""
        tensors = {f"model.{k}": v.detach().float().contiguous().cpu() for k, v in self.model.state_dict().items()}
        tensors |= {f"heads.{k}": v.detach().float().contiguous().cpu() for k, v in self.heads.state_dict().items()}
        share = sum(t.numel() for t in tensors.values()) / parts
        chunk, size, index = {}, 0, 0
        for name, tensor in tensors.items():
            if size + tensor.numel() > share * 1.05 and index < parts - 1:
                save_file(chunk, Path(out) / f"weights-{index}.safetensors")
                chunk, size, index = {}, 0, index + 1
            chunk[name] = tensor
            size += tensor.numel()
        save_file(chunk, Path(out) / f"weights-{index}.safetensors")
        (Path(out) / "progress.json").write_text(json.dumps({"step": self.step, "spent": self.spent}))


def make_speaker(model_folder, names, device):
    from tokenizers import Tokenizer
    config = load_config(model_folder / "config.json")
    t = config["tokenizer"]["templates"]
    templates = {"query": t["query"]["prefix"], "detect": t["detect"]["prefix"], "point": t["point"]["prefix"]}
    templates |= {f"caption {length}": t["caption"][length] for length in ("short", "normal", "long")}
    return Speaker(Phrases(Tokenizer.from_file(str(model_folder / "tokenizer.json")), templates, names), device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--atlas", default=".train/atlas")
    parser.add_argument("--model", default="models/tiny", help="folder of config.json and tokenizer.json")
    parser.add_argument("--state", help="checkpoint to continue from and to write")
    parser.add_argument("--weights", help="weights to start from where there is no checkpoint, such as models/tiny/model.safetensors")
    parser.add_argument("--heads", help="with --weights: the training heads that merge.py --heads wrote")
    parser.add_argument("--spent", type=float, default=0, help="with --heads: seconds of training already behind them")
    parser.add_argument("--out", help="folder for the exported weights")
    parser.add_argument("--seconds", type=float, default=540, help="wall clock of this run until training ends")
    parser.add_argument("--total", type=float, default=900, help="seconds of training in all runs, compilation not counted")
    parser.add_argument("--vision-seconds", type=float, default=40)
    parser.add_argument("--finish", action="store_true", help="let the learning rate end its fall with this run")
    parser.add_argument("--refresh", type=int, default=6, help="change the drawings every so many steps")
    parser.add_argument("--overlap", type=int, default=1, help="draw the next batch while learning from this one")
    parser.add_argument("--text-rate", type=float, default=0.6, help="share of the scenes with a printed word")
    parser.add_argument("--save-every", type=float, default=150, help="seconds between checkpoints")
    parser.add_argument("--batch", type=int, default=512, help="scenes of a step, for each GPU")
    parser.add_argument("--steps", type=int, default=0, help="stop after this many steps (for smoke tests)")
    parser.add_argument("--muon-rate", type=float, default=0.015)
    parser.add_argument("--adam-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluate", type=int, default=0, help="scenes to evaluate on after training, of each kind")
    parser.add_argument("--compile", type=int, default=1)
    options = parser.parse_args()
    begun = time.time()
    team = Team()
    trainer = Trainer(options, team)
    team.say(f"ready after {time.time() - begun:.0f} s; {sum(p.numel() for p in trainer.model.parameters()) / 1e6:.2f} M "
             f"parameters, {team.size} processes")
    trainer.run(begun + options.seconds)
    trainer.keep()
    if torch.cuda.is_available():
        team.say(f"peak memory {torch.cuda.max_memory_allocated() / 2 ** 30:.1f} GiB, "
                 f"{trainer.step * trainer.painter.scenes * team.size} scenes")
    if options.evaluate:
        for index, unseen in enumerate((False, True)):
            if index % team.size == team.rank:  # two processes share the work
                evaluate_gpu.report(trainer, unseen, options.evaluate)
    team.say(f"whole run {time.time() - begun:.0f} s")
    team.end()


if __name__ == "__main__":
    main()
