"""The things the tiny model knows: English and French names, emoji, and words to find drawings by.

One line per noun: singular | plural | French with article | French plural | emoji | extra icon or file names.
A noun's own name is always tried as an icon name and as a drawing's title.
"""

from dataclasses import dataclass

_TABLE = """
cat|cats|un chat|chats|🐈🐱|kitten
dog|dogs|un chien|chiens|🐕🐶🐩|puppy
horse|horses|un cheval|chevaux|🐎🐴|
cow|cows|une vache|vaches|🐄🐮|
pig|pigs|un cochon|cochons|🐖🐷|
sheep|sheep|un mouton|moutons|🐑🐏|lamb
rabbit|rabbits|un lapin|lapins|🐇🐰|bunny
mouse|mice|une souris|souris|🐁🐭🐀|rat
elephant|elephants|un éléphant|éléphants|🐘|
lion|lions|un lion|lions|🦁|
tiger|tigers|un tigre|tigres|🐅🐯|
bear|bears|un ours|ours|🐻|
panda|pandas|un panda|pandas|🐼|
monkey|monkeys|un singe|singes|🐒🐵|chimpanzee
giraffe|giraffes|une girafe|girafes|🦒|
zebra|zebras|un zèbre|zèbres|🦓|
camel|camels|un chameau|chameaux|🐪🐫|dromedary
kangaroo|kangaroos|un kangourou|kangourous|🦘|
deer|deer|un cerf|cerfs|🦌|
fox|foxes|un renard|renards|🦊|
wolf|wolves|un loup|loups|🐺|
frog|frogs|une grenouille|grenouilles|🐸|
turtle|turtles|une tortue|tortues|🐢|tortoise
snake|snakes|un serpent|serpents|🐍|
crocodile|crocodiles|un crocodile|crocodiles|🐊|alligator
fish|fish|un poisson|poissons|🐟🐠🐡|fish-simple
shark|sharks|un requin|requins|🦈|
whale|whales|une baleine|baleines|🐋🐳|
dolphin|dolphins|un dauphin|dauphins|🐬|
octopus|octopuses|une pieuvre|pieuvres|🐙|
crab|crabs|un crabe|crabes|🦀|
snail|snails|un escargot|escargots|🐌|
butterfly|butterflies|un papillon|papillons|🦋|
bee|bees|une abeille|abeilles|🐝|
ant|ants|une fourmi|fourmis|🐜|
spider|spiders|une araignée|araignées|🕷|
ladybug|ladybugs|une coccinelle|coccinelles|🐞|
bird|birds|un oiseau|oiseaux|🐦|dove crow
duck|ducks|un canard|canards|🦆|
owl|owls|un hibou|hiboux|🦉|
penguin|penguins|un pingouin|pingouins|🐧|
eagle|eagles|un aigle|aigles|🦅|
chicken|chickens|une poule|poules|🐔🐓|rooster hen
swan|swans|un cygne|cygnes|🦢|
parrot|parrots|un perroquet|perroquets|🦜|
bat|bats|une chauve-souris|chauves-souris|🦇|
squirrel|squirrels|un écureuil|écureuils|🐿|
apple|apples|une pomme|pommes|🍎🍏|food-apple
banana|bananas|une banane|bananes|🍌|
lemon|lemons|un citron|citrons|🍋|
pear|pears|une poire|poires|🍐|
strawberry|strawberries|une fraise|fraises|🍓|
pineapple|pineapples|un ananas|ananas|🍍|
watermelon|watermelons|une pastèque|pastèques|🍉|
carrot|carrots|une carotte|carottes|🥕|
tomato|tomatoes|une tomate|tomates|🍅|
mushroom|mushrooms|un champignon|champignons|🍄|
cheese|cheeses|un fromage|fromages|🧀|
egg|eggs|un œuf|œufs|🥚|
pizza|pizzas|une pizza|pizzas|🍕|
hamburger|hamburgers|un hamburger|hamburgers|🍔|burger
cake|cakes|un gâteau|gâteaux|🎂🍰|birthday-cake birthday_cake
cookie|cookies|un biscuit|biscuits|🍪|
donut|donuts|un beignet|beignets|🍩|doughnut
ice cream|ice creams|une glace|glaces|🍨🍦|ice-cream
cup|cups|une tasse|tasses|☕🍵|coffee mug-hot mug
bottle|bottles|une bouteille|bouteilles|🍾🍼|wine-bottle bottle-wine bottle-soda
wine glass|wine glasses|un verre de vin|verres de vin|🍷|wine wine-glass glass-wine
beer|beers|une bière|bières|🍺|beer-bottle beer-stein beer-mug
car|cars|une voiture|voitures|🚗🚙🚘|car-side car-profile
bus|buses|un bus|bus|🚌🚍|
truck|trucks|un camion|camions|🚚🚛|
bicycle|bicycles|un vélo|vélos|🚲|bike
motorcycle|motorcycles|une moto|motos|🏍🛵|motorbike
train|trains|un train|trains|🚂🚆🚄|locomotive
airplane|airplanes|un avion|avions|✈🛩🛫|plane
helicopter|helicopters|un hélicoptère|hélicoptères|🚁|
boat|boats|un bateau|bateaux|⛵🚤|sailboat sail-boat
ship|ships|un navire|navires|🚢🛳|ferry
rocket|rockets|une fusée|fusées|🚀|
tractor|tractors|un tracteur|tracteurs|🚜|
hammer|hammers|un marteau|marteaux|🔨|
wrench|wrenches|une clé à molette|clés à molette|🔧|spanner
screwdriver|screwdrivers|un tournevis|tournevis|🪛|
axe|axes|une hache|haches|🪓|
scissors|scissors|des ciseaux|ciseaux|✂|content-cut cut
knife|knives|un couteau|couteaux|🔪|
fork|forks|une fourchette|fourchettes||silverware-fork
spoon|spoons|une cuillère|cuillères|🥄|silverware-spoon
key|keys|une clé|clés|🔑🗝|vpn_key
lock|locks|un cadenas|cadenas|🔒|padlock
light bulb|light bulbs|une ampoule|ampoules|💡|lightbulb bulb
candle|candles|une bougie|bougies|🕯|
umbrella|umbrellas|un parapluie|parapluies|☂🌂☔|
clock|clocks|une horloge|horloges|🕐⏰🕰|alarm
camera|cameras|un appareil photo|appareils photo|📷📸|
telephone|telephones|un téléphone|téléphones|☎📞|phone
laptop|laptops|un ordinateur|ordinateurs|💻|computer
television|televisions|une télévision|télévisions|📺|tv
book|books|un livre|livres|📕📗📘📖|
pencil|pencils|un crayon|crayons|✏|
envelope|envelopes|une enveloppe|enveloppes|✉📧|email
gift|gifts|un cadeau|cadeaux|🎁|present
balloon|balloons|un ballon|ballons|🎈|
bell|bells|une cloche|cloches|🔔|
suitcase|suitcases|une valise|valises|🧳|luggage bag-suitcase
backpack|backpacks|un sac à dos|sacs à dos|🎒|bag-personal
basket|baskets|un panier|paniers|🧺|
bucket|buckets|un seau|seaux|🪣|
broom|brooms|un balai|balais|🧹|
ladder|ladders|une échelle|échelles|🪜|
magnet|magnets|un aimant|aimants|🧲|
anchor|anchors|une ancre|ancres|⚓|
crown|crowns|une couronne|couronnes|👑|
glasses|glasses|des lunettes|lunettes|👓🕶|eyeglasses sunglasses
hat|hats|un chapeau|chapeaux|🎩👒|hat-cowboy hat-fedora
shoe|shoes|une chaussure|chaussures|👞👟👠|boot sneaker shoe-sneaker
sock|socks|une chaussette|chaussettes|🧦|
shirt|shirts|une chemise|chemises|👕|tshirt tshirt-crew t-shirt
dress|dresses|une robe|robes|👗|
trousers|trousers|un pantalon|pantalons|👖|pants
glove|gloves|un gant|gants|🧤|mitten
chair|chairs|une chaise|chaises|🪑|armchair
bed|beds|un lit|lits|🛏|
sofa|sofas|un canapé|canapés|🛋|couch
door|doors|une porte|portes|🚪|
bathtub|bathtubs|une baignoire|baignoires|🛁|bath
toilet|toilets|des toilettes|toilettes|🚽|
table|tables|une table|tables||table-furniture desk
lamp|lamps|une lampe|lampes||desk-lamp lamp-pendant
tree|trees|un arbre|arbres|🌳🌲|pine-tree tree-evergreen
palm tree|palm trees|un palmier|palmiers|🌴|palm-tree tree-palm palm
cactus|cactuses|un cactus|cactus|🌵|
flower|flowers|une fleur|fleurs|🌸🌼🌺🌻|daisy sunflower flower-lotus
rose|roses|une rose|roses|🌹|
tulip|tulips|une tulipe|tulipes|🌷|flower-tulip
leaf|leaves|une feuille|feuilles|🍃🍁🍂|
sun|suns|un soleil|soleils|☀🌞|white-balance-sunny
moon|moons|une lune|lunes|🌙🌛|crescent moon-waning-crescent
cloud|clouds|un nuage|nuages|☁|
snowflake|snowflakes|un flocon de neige|flocons de neige|❄|
snowman|snowmen|un bonhomme de neige|bonshommes de neige|⛄☃|
rainbow|rainbows|un arc-en-ciel|arcs-en-ciel|🌈|looks
lightning|lightning bolts|un éclair|éclairs|⚡|bolt flash
soccer ball|soccer balls|un ballon de foot|ballons de foot|⚽|soccer soccer-ball futbol sports_soccer
basketball|basketballs|un ballon de basket|ballons de basket|🏀|basketball-ball
tennis ball|tennis balls|une balle de tennis|balles de tennis|🎾|tennis-ball
baseball|baseballs|une balle de baseball|balles de baseball|⚾|
trophy|trophies|un trophée|trophées|🏆|
medal|medals|une médaille|médailles|🏅🥇|
guitar|guitars|une guitare|guitares|🎸|guitar-electric guitar-acoustic
piano|pianos|un piano|pianos|🎹|piano-keys
drum|drums|un tambour|tambours|🥁|
trumpet|trumpets|une trompette|trompettes|🎺|
violin|violins|un violon|violons|🎻|
microphone|microphones|un micro|micros|🎤🎙|
house|houses|une maison|maisons|🏠🏡|home
castle|castles|un château|châteaux|🏰🏯|fort
church|churches|une église|églises|⛪|
tent|tents|une tente|tentes|⛺|
lighthouse|lighthouses|un phare|phares||
windmill|windmills|un moulin|moulins||
flag|flags|un drapeau|drapeaux|🚩🏴|
mountain|mountains|une montagne|montagnes|⛰🏔|mountains
robot|robots|un robot|robots|🤖|
ghost|ghosts|un fantôme|fantômes|👻|
skull|skulls|un crâne|crânes|💀|
teddy bear|teddy bears|un ours en peluche|ours en peluche|🧸|teddy-bear teddy
globe|globes|un globe|globes|🌍🌎|earth globe-hemisphere-west
telescope|telescopes|un télescope|télescopes|🔭|
microscope|microscopes|un microscope|microscopes|🔬|
battery|batteries|une pile|piles|🔋|battery-full
hourglass|hourglasses|un sablier|sabliers|⌛⏳|timer-sand
fire|fires|un feu|feux|🔥|flame
feather|feathers|une plume|plumes|🪶|
calendar|calendars|un calendrier|calendriers|📅📆|
shopping cart|shopping carts|un chariot|chariots|🛒|shopping-cart cart shopping_cart
traffic light|traffic lights|un feu rouge|feux rouges|🚦🚥|traffic-light traffic
dice|dice|un dé|dés|🎲|dice-5 dice-five die
puzzle piece|puzzle pieces|une pièce de puzzle|pièces de puzzle|🧩|puzzle puzzle-piece
kite|kites|un cerf-volant|cerfs-volants|🪁|
"""

# Flat shapes are drawn from formulas in one colour; "star" and "heart" are shapes too.
_SHAPES = """
circle|circles|un cercle|cercles
square|squares|un carré|carrés
triangle|triangles|un triangle|triangles
rectangle|rectangles|un rectangle|rectangles
diamond|diamonds|un losange|losanges
pentagon|pentagons|un pentagone|pentagones
hexagon|hexagons|un hexagone|hexagones
oval|ovals|un ovale|ovales
cross|crosses|une croix|croix
arrow|arrows|une flèche|flèches
star|stars|une étoile|étoiles
heart|hearts|un cœur|cœurs
"""

COLOURS = [  # name, French masculine, feminine, sRGB centre
    ("red", "rouge", "rouge", (214, 32, 38)),
    ("orange", "orange", "orange", (242, 128, 24)),
    ("yellow", "jaune", "jaune", (246, 214, 38)),
    ("green", "vert", "verte", (40, 156, 62)),
    ("blue", "bleu", "bleue", (34, 84, 206)),
    ("purple", "violet", "violette", (132, 48, 172)),
    ("pink", "rose", "rose", (246, 130, 180)),
    ("brown", "brun", "brune", (120, 74, 36)),
    ("black", "noir", "noire", (18, 18, 20)),
    ("white", "blanc", "blanche", (246, 246, 246)),
    ("gray", "gris", "grise", (128, 128, 130)),
]


@dataclass
class Noun:
    name: str
    plural: str
    french: str
    french_plural: str
    emoji: str = ""
    extra: tuple = ()
    shape: bool = False


def load():
    nouns = []
    for line in _TABLE.strip().splitlines():
        name, plural, french, french_plural, emoji, extra = line.split("|")
        nouns.append(Noun(name, plural, french, french_plural, emoji, tuple(extra.split())))
    for line in _SHAPES.strip().splitlines():
        nouns.append(Noun(*line.split("|"), shape=True))
    return nouns


NOUNS = load()
