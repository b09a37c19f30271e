"""The word lists the synthetic corpus draws from, and the ones it must never see."""

from __future__ import annotations

__all__ = ["CHINESE", "CITIES", "HELD_OUT", "ITEMS", "NAMES", "NOUNS", "SYLLABLES"]

NOUNS = """
able acid actor advice airport album alarm animal answer apple archive army arrow artist atlas atom autumn avenue award baby
bakery balance ballet balloon bamboo banana bank barrel basket battery battle beach beacon bear beauty bicycle bird birthday
bishop blanket blossom board boat bottle boulder brain branch bread breeze brick bridge brother brush bubble bucket budget
building bullet burger butter button cabin cable cactus camera camp canal candle canyon captain carbon career carpet carrot
castle cathedral cattle cave cedar ceiling cellar cement center cereal chain chair chalk channel chapter charity cheese chess
chicken chimney chocolate church cinema circle circus citizen clay climate clock cloud clover coast coconut coffee coin college
comet comic compass concert copper coral corner cotton country courage cousin cradle crane crater crayon cricket crisis crocodile
crown crystal culture curtain cycle dancer danger daughter dawn debate decade democracy dentist desert design diamond diary dinner
dinosaur doctor dolphin donkey dragon drama drawing dream drone drum duck dust eagle earth echo eclipse economy education election
electricity elephant emerald emotion empire energy engine envelope equator essay evening evidence evolution exercise expert fabric
factory falcon family farmer fashion feather festival fiction field finance finger fire fish flag flame flavor flight flood flower
flute fog folklore football forest fossil fountain fox freedom freight friend frog frost fruit furniture future galaxy gallery garden
garlic gas gate gemstone geography geology geometry ghost giant ginger giraffe glacier glass globe glove goat gold golf gorilla grain
grammar granite grape gravity guitar habit hammer harbor harmony harvest health heart helmet herb hero history hobby holiday honey
horizon horse hospital hotel house hunger hunter hurricane hydrogen ice idea insect insurance internet invention iron island ivory
jacket jazz jewel journey judge juice jungle justice kangaroo kettle keyboard kingdom kitchen kite knight knowledge ladder lake lamp
language lantern laser laughter law leader leather legend lemon leopard lesson letter lettuce liberty library lightning lily lime
linen lion literature lizard logic lotus luck machine magazine magic magnet mango maple marathon marble market mask mathematics meadow
medicine melody memory merchant metal meteor microscope milk mineral mirror mission mist mobile money monkey moon morning mosaic
mosquito moss mountain mouse movie muscle museum mushroom music mystery mythology nature navy needle network newspaper night nitrogen
noodle novel nurse nutrition oasis ocean octopus office olive onion opera orange orbit orchard orchestra orchid oxygen oyster painting
palace panda paper parade paradise parrot passport pasta path patience peace peach peacock pearl pebble pencil penguin pepper perfume
philosophy phone photograph physics piano pilot pine pioneer pirate pizza planet plastic plate player poem poetry pocket police
politics pollen pony popcorn portrait potato pottery powder prairie prince printer prison privacy prize profit progress psychology
pumpkin puppet puzzle pyramid quartz queen question rabbit radar radio railway rain rainbow ranch recipe record recycling refuge
relativity religion reptile rescue research restaurant rhythm ribbon rice riddle ring river road robot rocket romance rose ruby rugby
saddle safety sailor salad salmon salt sand satellite sauce scarf scholar school science sculpture season secret seed shadow shark sheep
shell shelter shield ship shoe shoulder silence silk silver singer skeleton sketch skill sleep smoke snail snake snow soap soccer
society soil soldier solution song soup space sparrow species speech spice spider spinach spirit spoon spring square squirrel stadium
star station statue steam steel stone storm story strategy strawberry street student submarine sugar summer sun sunset surgery swamp
swan sweater swimming sword symbol symphony table talent tea teacher technology telephone telescope temple tennis theater theory thunder
tide tiger timber tobacco tomato tooth tornado tourism tower town toy tractor trade tradition traffic train travel treasure tree
triangle tribe trumpet truth tulip tunnel turkey turtle twilight umbrella uncle uniform universe university vaccine valley vampire
vanilla vegetable vehicle velvet village vine violin virus vision vitamin volcano volleyball voyage wagon walnut water waterfall wave
wealth weather wedding whale wheat wheel whisper wildlife willow wind window wine wing winter wisdom wolf wonder wood wool workshop
world worm writer yacht yoga zebra zinc architecture astronomy biology chemistry economics engineering genetics journalism linguistics
medicine robotics statistics software hardware database algorithm compiler browser firewall protocol server cloud storage encryption
blockchain bitcoin startup marketing logistics agriculture forestry fisheries mining construction manufacturing retail banking
nanotechnology cybersecurity neuroscience photography archaeology meteorology oceanography cryptography thermodynamics acoustics optics
solar electric digital virtual modern ancient global local urban rural organic natural artificial mobile smart green renewable quantum
nuclear medical public private social remote creative classical indoor outdoor hidden famous popular northern southern eastern western
""".split()

NAMES = """
Alice Bob Carol David Emma Frank Grace Henry Ivy Jack Kate Leo Mia Noah Olivia Peter Quinn Rosa Sam Tina Uma Victor Wendy Xavier Yara
Zoe Anna Ben Clara Daniel Ella Felix Gina Hugo Iris Jonas Lena Max Nina Oscar Paula Ralf Sara Tom Vera Will Marie Jay Mary John Lucy
""".split()

ITEMS = """
apples pears books pens coins marbles stickers cards cookies eggs stamps balls flowers candles shells oranges pencils cups plates
tickets toys bottles boxes chairs lamps stones keys buttons
""".split()

CITIES = """
Paris London Berlin Madrid Rome Vienna Prague Tokyo Kyoto Seoul Beijing Shanghai Delhi Mumbai Cairo Lagos Nairobi Lima Bogota Quito
Toronto Boston Chicago Denver Seattle Austin Miami Sydney Perth Oslo Stockholm Helsinki Lisbon Dublin Athens Warsaw Budapest Zurich
""".split()

CHINESE = list(
    "天气新闻音乐电影历史科学数学编程机器人学习城市山水春夏秋冬花鸟鱼虫茶酒饭菜书画诗歌旅行家庭朋友老师学生工作生活健康运动足球"
    "火车飞机汽车电脑手机网络游戏宇宙月亮太阳星空海洋森林沙漠河流经济文化教育艺术法律政治"
)

SYLLABLES = (
    "ba be bi bo bu ca ce ci co cu da de di do du fa fe fi fo fu ga ge gi go gu ha he hi ho hu ja je ji jo ju ka ke ki ko ku la le li lo lu "
    "ma me mi mo mu na ne ni no nu pa pe pi po pu qua que ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo vu wa we wi wo xa xe xi "
    "ya ye yo za ze zi zo zu bra cre dri flo gla kra pla pre sta tro vra zor ster tion ment ing ous ple gan mor tal ker lin vik dor ran sel "
    "ard eth ix um on or an er ion al ic os us ex oph yl ys phi tho rhy sch gn wh ough eau ae oi"
).split()

# Never in the training corpus, neither alone nor inside a phrase: what evaluation asks about.
HELD_OUT = """
AI Biotechnology photosynthesis Zorvik Kubernetes origami saxophone Wimbledon espresso typography Antarctica beekeeping calligraphy
Patagonia Neptune ukulele hieroglyphs permafrost Byzantium graphene kombucha skateboarding Reykjavik velociraptor Tchaikovsky aquaponics
Montessori Blorpix Quenlar Sarvotti Tindelmo Wexalune Yormandi Phlegra Drystan Kelvorn Ombrassi Vintriko Hazzelby Jurandel Lomquist
Nettlewick Ostrovane Pridwell Ruxanda Skarvind Tolbrimm Ulvaston zeppelin trampolines mangroves chameleons lighthouses mitochondria
Fibonaccia Genvara Heliotropes Ivorique Jaskaran Kiribati Liechtenstein Mozambique
""".split()
