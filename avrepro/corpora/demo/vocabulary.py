"""Names of the objects that the demo world draws: each a person's everyday word for an OpenMoji glyph.

The vocabulary plays the part of ImageNet's 1000 classes in Li et al. (2017): names of things on show, tied to
the sounds to be recognised by word vectors alone. It therefore also holds things whose names lie near
vehicles or warning sounds and that never sound here (sailboat, bell, firefighter).
"""

from __future__ import annotations


def _glyphs(text: str) -> dict[str, str]:
    """Name -> glyph out of "name glyph, name glyph, ..."."""
    return {" ".join(words[:-1]): words[-1] for words in map(str.split, text.split(","))}


# Things that sound in one of the 17 classes, or are easily taken for one: road, rail, what warns or screams.
VEHICLES = _glyphs("""
    ambulance 🚑, fire engine 🚒, police car 🚓, automobile 🚗, taxi 🚕, sport utility vehicle 🚙, pickup truck 🛻,
    racing car 🏎, bus 🚌, trolleybus 🚎, minibus 🚐, delivery truck 🚚, articulated lorry 🚛, tractor 🚜,
    motorcycle 🏍, motor scooter 🛵, bicycle 🚲, cyclist 🚴, skateboard 🛹, kick scooter 🛴, rickshaw 🛺,
    locomotive 🚂, railway car 🚃, high-speed train 🚄, bullet train 🚅, tram 🚋, monorail 🚝, wheelchair 🦽
""")
WARNERS = _glyphs("loudspeaker 📢, megaphone 📣, screaming face 😱, frightened face 😨")
FLYING = _glyphs("""
    airplane ✈, helicopter 🚁, rocket 🚀, balloon 🎈, kite 🪁, parachute 🪂, bird 🐦, eagle 🦅, owl 🦉, dove 🕊,
    bat 🦇, butterfly 🦋, bee 🐝, mosquito 🦟, fly 🪰, satellite 🛰, cloud ☁, sun ☀, moon 🌙, rainbow 🌈, star ⭐,
    lightning ⚡
""")
ANIMALS = _glyphs("""
    dog 🐕, cat 🐈, horse 🐎, cow 🐄, pig 🐖, sheep 🐑, goat 🐐, camel 🐪, elephant 🐘, giraffe 🦒, rhinoceros 🦏,
    mouse 🐁, rabbit 🐇, squirrel 🐿, hedgehog 🦔, kangaroo 🦘, rooster 🐓, duck 🦆, swan 🦢, penguin 🐧, frog 🐸,
    crocodile 🐊, turtle 🐢, snake 🐍, dinosaur 🦕, whale 🐋, dolphin 🐬, fish 🐟, shark 🦈, octopus 🐙, snail 🐌,
    crab 🦀, lobster 🦞, spider 🕷, tiger 🐅, monkey 🐒, flamingo 🦩, peacock 🦚
""")
# People, water, street and buildings, sounding things and instruments, food, plants, furniture, tools, clothes, play.
THINGS = _glyphs("""
    police officer 👮, firefighter 🧑‍🚒, guard 💂, baby 👶, dancer 💃, runner 🏃, clown 🤡, ghost 👻, robot 🤖,
    skull 💀, surfer 🏄, singer 🧑‍🎤, sailboat ⛵, speedboat 🚤, ship 🚢, canoe 🛶, anchor ⚓, ferry ⛴,
    traffic light 🚦, stop sign 🛑, barrier 🚧, fuel pump ⛽, fountain ⛲, tent ⛺, church ⛪, castle 🏰, hospital 🏥,
    factory 🏭, statue 🗽, carousel 🎠, mailbox 📫, chair 🪑, wheel 🛞, roller coaster 🎢, bell 🔔, horn 📯,
    trumpet 🎺, saxophone 🎷, violin 🎻, guitar 🎸, piano 🎹, drum 🥁, accordion 🪗, banjo 🪕, microphone 🎤,
    radio 📻, headphones 🎧, telephone ☎, alarm clock ⏰, beacon 🚨, apple 🍎, banana 🍌, grapes 🍇, watermelon 🍉,
    lemon 🍋, pineapple 🍍, strawberry 🍓, carrot 🥕, corn 🌽, tomato 🍅, broccoli 🥦, bread 🍞, cheese 🧀,
    hamburger 🍔, pizza 🍕, sandwich 🥪, egg 🥚, cake 🎂, doughnut 🍩, coffee ☕, wine 🍷, beer 🍺, bottle 🍾,
    palm 🌴, cactus 🌵, tulip 🌷, sunflower 🌻, rose 🌹, mushroom 🍄, leaf 🍁, sofa 🛋, bed 🛏, bathtub 🛁, toilet 🚽,
    door 🚪, lamp 💡, mirror 🪞, television 📺, computer 💻, camera 📷, clock 🕰, umbrella ☂, suitcase 🧳, hammer 🔨,
    axe 🪓, saw 🪚, wrench 🔧, scissors ✂, ladder 🪜, broom 🧹, bucket 🪣, candle 🕯, book 📖, key 🔑, magnet 🧲,
    microscope 🔬, telescope 🔭, shirt 👕, dress 👗, shoe 👟, boot 👢, hat 🎩, crown 👑, glasses 👓, football ⚽,
    basketball 🏀, trophy 🏆, gift 🎁, teddy 🧸, puzzle 🧩, flag 🚩, snowman ⛄, fire 🔥, extinguisher 🧯, basket 🧺
""")

# Object name -> glyph (one emoji, with its joined parts), in the order of an object model's outputs.
OBJECTS: dict[str, str] = {**VEHICLES, **WARNERS, **FLYING, **ANIMALS, **THINGS}

# Side views look left, as most emoji do; these few look right.
LOOK_RIGHT: frozenset[str] = frozenset({"airplane", "helicopter", "rocket", "bird", "bee"})

# Sound class of DCASE 2017 Task 4 -> objects whose sight shows the sound's source.
SIGHTS: dict[str, tuple[str, ...]] = {
    "Train horn": ("locomotive",),
    "Air horn, truck horn": ("articulated lorry",),
    "Car alarm": ("automobile",),
    "Reversing beeps": ("delivery truck",),
    "Ambulance (siren)": ("ambulance",),
    "Police car (siren)": ("police car",),
    "Fire engine, fire truck (siren)": ("fire engine",),
    "Civil defense siren": ("loudspeaker", "megaphone"),
    "Screaming": ("screaming face", "frightened face"),
    "Bicycle": ("bicycle", "cyclist"),
    "Skateboard": ("skateboard",),
    "Car": ("automobile", "taxi", "sport utility vehicle"),
    "Car passing by": ("automobile", "taxi", "sport utility vehicle"),
    "Bus": ("bus", "trolleybus", "minibus"),
    "Truck": ("delivery truck", "articulated lorry", "pickup truck"),
    "Motorcycle": ("motorcycle", "motor scooter"),
    "Train": ("locomotive", "railway car", "high-speed train", "bullet train"),
}

# Objects that show no class's source, in the order of OBJECTS.
DISTRACTING = tuple(name for name in OBJECTS if not any(name in names for names in SIGHTS.values()))
