"""Collect further drawings for training alone: more icon sets, and clip art found by its title and key words.

    python extra_drawings.py --icons FOLDER --base .train/drawings --out .train/extra

FOLDER holds the unpacked wheels named in prepare.sh.  What is held out is decided by drawings.py and build_atlas.py and
does not change with what is found here; build_atlas.py leaves out what is nearly a held-out drawing.
"""

import argparse
import json
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from drawings import CLIPART, NOTO, icon_names, render_svg, tight, whiten
from nouns import NOUNS

MORE = {  # further names that an icon of a noun goes by
    "cat": "paw-cat", "bird": "pigeon raven", "chicken": "hen rooster", "cup": "mug mug-saucer tea cup-hot tea-cup coffee-cup",
    "beer": "mug-beer glass-mug glass-mug-variant pint-glass beer-mug", "car": "car-sports car-hatchback car-convertible taxi "
    "car-profile car-estate vehicle-car", "bus": "bus-school bus-side bus-double-decker vehicle-bus", "truck": "dump-truck lorry "
    "tow-truck vehicle-truck vehicle-truck-profile truck-profile", "train": "tram subway train-simple vehicle-subway train-car",
    "airplane": "plane jet plane-departure", "boat": "sailing sail-boat vehicle-boat motorboat", "ship": "ship-wheel-no "
    "vehicle-ship cruise", "bicycle": "vehicle-bicycle bike-fast", "motorcycle": "scooter moped vehicle-motorcycle",
    "house": "home-variant house-line home-modern house-chimney", "television": "device-tv tv-2 tv-minimal television-classic",
    "telephone": "phone-classic call deskphone landline phone-rotary", "laptop": "device-laptop macbook laptop-minimal",
    "clock": "alarm-clock alarm alarm-clock-classic clock-alarm watch", "light bulb": "lightbulb-on idea bulb",
    "book": "book-open open-book notebook book-2 book-open-variant", "pencil": "edit-pencil pen", "envelope": "mail mail-open",
    "gift": "gift-open gift-card-no", "suitcase": "briefcase luggage baggage suitcase-rolling travel-case",
    "backpack": "bag-personal school-bag", "basket": "shopping-basket basket-shopping", "bucket": "pail bucket-outline",
    "glasses": "sunglasses glass-eye spectacles eyewear", "hat": "top-hat hat-wizard graduation-cap-no cowboy-hat sombrero cap",
    "shoe": "shoe-heel shoe-print-no shoe-formal sneakers high-heel running-shoe sport-shoe slipper", "shirt": "t-shirt tshirt shirt-outline jersey",
    "chair": "seat chair-rolling office-chair chair-school", "bed": "bed-double bed-single bed-king bedroom single-bed",
    "sofa": "sofa-single couch loveseat armchair-2", "door": "door-open door-closed door-enter", "bathtub": "bath bath-tub shower-no",
    "lamp": "floor-lamp lamp-desk lamp-floor lamp-ceiling lamp-2 desk-lamp table-lamp", "table": "desk table-furniture dining-table",
    "tree": "trees tree-deciduous pine-tree pine tree-pine evergreen tree-evergreen christmas-tree", "palm tree": "tree-palm palmtree",
    "flower": "flower-2 flower-outline flower-tulip-no sunflower", "leaf": "leaves leaf-maple leafy-green plant-leaf sprout-no",
    "sun": "sunny sun-high weather-sunny sun-bright", "moon": "moon-stars-no weather-night moon-waning-crescent crescent-moon half-moon",
    "cloud": "cloudy weather-cloudy", "snowflake": "snow snowflake-variant weather-snow-no snowing-no", "rainbow": "rainbow-cloud",
    "lightning": "thunderbolt lightning-bolt zap bolt flash", "soccer ball": "football soccer ball-football sport-soccer",
    "basketball": "ball-basketball sport-basketball basketball-ball", "tennis ball": "tennisball ball-tennis tennis tennis-ball",
    "baseball": "ball-baseball sport-baseball", "trophy": "award-cup-no trophy-variant prize champion", "medal": "award medal-2 military-award medal-outline",
    "guitar": "guitar-pick-no guitar-acoustic guitar-electric", "microphone": "mic microphone-2 mic-vocal microphone-variant mic-on",
    "castle": "fortress building-castle", "church": "building-church chapel", "tent": "camping campground", "flag": "flag-2 flag-3 flag-triangle",
    "mountain": "mountains mountain-snow image-mountain", "robot": "bot robot-2 android-no robot-face", "ghost": "ghost-2 pacman-ghost",
    "skull": "skull-crossbones-no death", "globe": "earth world planet-earth globe-americas globe-hemisphere-east earth-americas",
    "battery": "battery-full battery-charging battery-50 battery-high battery-4 battery-10", "hourglass": "hourglass-half hourglass-end sandglass",
    "fire": "flame flames fire-flame campfire-no", "feather": "quill feather-pen", "calendar": "calendar-month calendar-today calendar-days calendar-event",
    "shopping cart": "cart trolley-no shopping-trolley", "traffic light": "traffic-lights traffic-light-outline signal-traffic",
    "dice": "dice-six dice-3 dice-multiple dices dice-one dice-four dice-6 dice-2", "puzzle piece": "puzzle extension jigsaw",
    "hamburger": "burger hamburger-menu-no fast-food", "cake": "birthday-cake cake-slice cupcake food-cake cake-variant",
    "ice cream": "ice-cream-cone icecream ice-cream-2 popsicle", "bottle": "milk-bottle water-bottle bottle-droplet baby-bottle bottle-tonic bottle-wine",
    "wine glass": "wine-glass glass-wine wine glass-cocktail-no glass-full wineglass", "knife": "kitchen-knife knife-military cutlery-knife",
    "key": "key-round key-2 key-variant vpn-key key-skeleton key-square", "lock": "lock-closed padlock lock-simple lock-open lock-keyhole",
    "umbrella": "umbrella-closed-no umbrella-simple beach-umbrella-no", "camera": "photo-camera camera-photo camera-2 camera-retro",
    "scissors": "cut scissor scissors-cutting", "hammer": "gavel-no hammer-2 claw-hammer", "wrench": "spanner tool adjustable-wrench",
    "bell": "notifications notification-bell bell-ring bell-ringing bell-simple", "crown": "crown-simple chess-queen-no crown-2",
    "toilet": "wc-no toilet-outline", "anchor": "anchor-simple", "magnet": "magnet-straight magnet-horseshoe", "broom": "broom-2 cleaning-broom",
    "ladder": "stepladder", "rocket": "rocket-launch space-rocket", "telescope": "scope-no", "microscope": "microscope-2", "fish": "fish-2 fish-simple fishbowl-no",
    "bat": "halloween-bat", "wolf": "wolf-pack-battalion-no", "mouse": "rodent rat", "rabbit": "bunny rabbit-variant hare", "turtle": "tortoise", "dolphin": "", "dog": "dog-side hound",
    "cow": "bull ox cattle", "sheep": "lamb ram", "pig": "piggy hog boar", "duck": "ducky rubber-duck duckling mallard",
    "horse": "pony stallion horse-variant horse-head mare", "elephant": "mammoth", "monkey": "ape gorilla chimp chimpanzee", "camel": "dromedary",
    "frog": "toad", "whale": "orca", "butterfly": "moth", "bee": "bumblebee honeybee wasp", "spider": "tarantula", "ladybug": "ladybird lady-beetle",
    "penguin": "tux-no", "cheese": "cheese-wedge", "mushroom": "toadstool", "egg": "eggs egg-fried egg-alt egg-easter", "carrot": "carrots",
    "piano": "grand-piano piano-keys", "violin": "fiddle cello viola", "trumpet": "bugle cornet horn-brass", "teddy bear": "teddy toy-bear",
    "cactus": "saguaro", "rose": "roses", "tulip": "tulips", "snowman": "snow-man", "balloon": "balloons hot-balloon-no", "cookie": "cookies gingerbread-no",
    "screwdriver": "screw-driver", "tractor": "farm-tractor", "helicopter": "chopper", "watermelon": "melon-slice melon", "strawberry": "strawberries",
    "lemon": "citrus lime", "pear": "pears", "apple": "apples food-apple apple-whole apple-alt", "pizza": "pizza-slice",
}
STYLE = re.compile(r"^(ic-fluent-|ios-|md-)|(-(?:fill|filled|line|outline|outlined|sharp|solid|regular|light|thin|bold|duotone|16|20|24|28|32|48))+$")
KENNEY = {"fish": ["enemies/fishPink", "enemies/fishGreen"], "ladybug": ["enemies/ladybug"], "frog": ["enemies/frog", "enemies/frog_move"],
          "mouse": ["enemies/mouse"], "bee": ["enemies/bee"], "key": ["items/keyRed", "items/keyYellow"],
          "flag": ["items/flagGreen1", "items/flagRed2"], "cactus": ["tiles/cactus"], "mushroom": ["tiles/mushroomRed"]}


def plain(name):
    """An icon's name without its style and size."""
    while True:
        shorter = STYLE.sub("", name.lower().replace("_", "-"))
        if shorter == name:
            return name
        name = shorter


def glyph(path, code, size=150):
    font = ImageFont.truetype(str(path), size)
    picture = Image.new("RGBA", (3 * size, 3 * size), (0, 0, 0, 0))
    ImageDraw.Draw(picture).text((size // 2, size // 2), chr(code), font=font, fill=(0, 0, 0, 255))
    return picture


def icon_sets(root):
    """{source: [(name, detail, how to render)]} of every one-colour icon."""
    sets = {}

    def add(source, name, detail, draw):
        sets.setdefault(source, []).append((plain(name), detail, draw))

    for source, package in (("lucide", "justmyresource_lucide"), ("heroicons", "justmyresource_heroicons"),
                            ("phosphor", "justmyresource_phosphor"), ("mdi", "justmyresource_mdi"),
                            ("material", "justmyresource_material_icons")):
        pack = zipfile.ZipFile(next(root.glob(f"*/{package}/icons.zip")))
        for member in sorted(pack.namelist()):
            folder = member.split("/")[0] if "/" in member else ""
            if member.endswith(".svg") and folder not in ("thin", "light", "sharp", "two-tone", "16", "20"):
                add(source, Path(member).stem, member, lambda p=pack, m=member: render_svg(p.read(m)))
    for source, folder in (("tabler", root / "pytablericons/pytablericons/icons"), ("iconoir", root / "flet_iconoir/flet_iconoir/icons"),
                           ("ionicons", root / "ionicons_python"), ("bootstrap", Path("/usr/share/bootstrap-icons/svg"))):
        for path in sorted(folder.rglob("*.svg")):
            if "colored" not in str(path):
                add(source, path.stem, str(path.relative_to(folder)), lambda p=path: render_svg(recolour(p.read_bytes())))
    for source, package, font, names in (
            ("remix", "tkinter_icons_remix", "remixicon.ttf", "glyphmap.json"), ("eva", "tkinter_icons_eva", "eva-icons.ttf", "glyphmap.json"),
            ("ionicons2", "tkinter_icons_ion", "ionicons.ttf", "glyphmap.json"),
            ("fluent", "tkinter_icons_fluent", "FluentSystemIcons-Filled.ttf", "glyphmap-filled.json"),
            ("fluent", "tkinter_icons_fluent", "FluentSystemIcons-Regular.ttf", "glyphmap-regular.json")):
        folder = root / package / package
        best = {}
        for name, code in json.loads((folder / names).read_text()).items():
            best[plain(name), "24" in name] = (name, int(code, 16) if isinstance(code, str) else code)
        for (short, large), (name, code) in best.items():
            if large or (short, True) not in best:  # of several sizes the one for 24 pixels
                add(source, short, name, lambda p=folder / "fonts" / font, c=code: glyph(p, c))
    return sets


def recolour(svg):
    return svg.replace(b"currentColor", b"black").replace(b"#fff", b"black")


def clip_art(path):
    """Words of a drawing's title and its key words."""
    text = path.read_text(errors="replace")
    title = re.search(r"<dc:title[^>]*>([^<]{1,80})<", text)
    keys = re.findall(r"<rdf:li[^>]*>([^<]{1,40})<", text)
    return re.split(r"[^a-z]+", (title.group(1) if title else "").lower()), {k.strip().lower() for k in keys}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--icons", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--out", required=True)
    options = parser.parse_args()
    root, out = Path(options.icons), Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    known = {(r["noun"], r["source"], r["detail"]) for r in json.loads((Path(options.base) / "index.json").read_text())}
    sets = icon_sets(root)
    art = [(path, *clip_art(path)) for path in sorted(CLIPART.rglob("*.svg")) if "flag" not in path.parts[-2]]
    noto = next(root.glob("manimgx_fonts/manimgx_fonts/NotoEmoji*.ttf"))
    kenney = next(root.glob("arcade/arcade/resources/assets/images"))
    jobs = []
    for noun in NOUNS:
        if noun.shape:
            continue
        names = {n.lower() for n in icon_names(noun)} | {n for n in MORE.get(noun.name, "").split() if not n.endswith("-no")}
        for source, icons in sets.items():
            for name, detail, draw in icons:
                if name in names or re.sub(r"-(variant|alt|\d)$", "", name) in names:
                    jobs.append((noun.name, source, detail, draw, True))
        for character in noun.emoji:
            jobs.append((noun.name, "noto-mono", f"U+{ord(character):X}", lambda c=ord(character): glyph(noto, c), True))
        for file in KENNEY.get(noun.name, []):
            jobs.append((noun.name, "kenney", file, lambda p=kenney / f"{file}.png": Image.open(p).convert("RGBA").resize((256, 256)), False))
        words = {n.replace("-", " ") for n in names if "-" not in n or n in icon_names(noun)}
        found = []
        for path, title, keys in art:
            stem = re.split(r"[_\-\W\d]+", path.stem.lower())
            named = any(w in title[:4] or w in stem[:4] or " ".join(title).startswith(w) for w in words)
            keyed = any(w in keys or w + "s" in keys for w in words)
            if named or keyed:
                found.append((not named, len(keys) if not named else len(title), path))
        for _, _, path in sorted(found)[:34]:
            jobs.append((noun.name, "clipart", str(path.relative_to(CLIPART)), lambda p=path: render_svg(p.read_bytes()), False))
    jobs = [job for job in jobs if job[:3] not in known]
    print(len(jobs), "candidates", flush=True)

    def work(job):
        try:
            return tight(job[3]())
        except (OSError, ValueError):
            return None

    records = []
    with ThreadPoolExecutor(2) as pool:
        for (noun, source, detail, _, mono), picture in zip(jobs, pool.map(work, jobs)):
            if picture is None:
                continue
            name = f"x{len(records):05d}.png"
            (whiten(picture) if mono else picture).save(out / name)
            records.append({"file": name, "noun": noun, "source": source, "detail": detail, "mono": mono})
    (out / "index.json").write_text(json.dumps(records, indent=0))
    print(len(records), "drawings")


if __name__ == "__main__":
    main()
