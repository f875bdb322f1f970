"""Text for the lorad demo: the vocabulary, a story grammar, and the eight tasks.

Everything is generated here; no outside text is read. A task is a function `rng -> (input,
output)`. The same pairs appear in two wordings: the base model sees `- INPUT @op OUTPUT` (a control
word), an adapter sees a plain prompt such as `Words: INPUT\nReversed:`. The base also sees the
plain prompts, but followed by a line of a story, so without an adapter it does not do the task.
"""

import random

NAMES = ("Ann Bob Carl Dora Emil Fay Gus Hana Ivan Jill Kofi Lena Max Nora Omar Pia Quinn Rosa "
         "Sven Tara Uma Vera Walt Yuki").split()
CITIES = ("Oslo Rome Lima Cairo Paris Delhi Quito Tokyo Berlin Dakar Bergen Lyon Milan Kyoto "
          "Boston Accra").split()
JOBS = "baker pilot nurse farmer singer painter doctor teacher judge cook".split()
ANIMALS = ("ant bear cat dog eel fox goat hen ibis jay koala lion mouse newt otter pig quail rat "
           "seal tiger wolf yak zebra").split()
FOODS = ("apple bread carrot date egg fig grape honey jam kale lemon mango nut olive pear rice "
         "soup tea").split()
THINGS = "boat book box chair clock coin door drum hat house key lamp map ring rope table".split()
COLORS = "red blue green black white pink brown gray".split()
PLACES = "garden forest market kitchen river harbor school tower".split()
VERBS = "sees takes finds likes hides carries draws wants".split()
PAIRS = [("big", "small"), ("hot", "cold"), ("old", "young"), ("happy", "sad"), ("fast", "slow"),
         ("rich", "poor"), ("clean", "dirty"), ("loud", "quiet"), ("strong", "weak"),
         ("open", "closed"), ("full", "empty"), ("wet", "dry"), ("brave", "afraid"),
         ("early", "late")]
OPPOSITES = {a: b for p in PAIRS for a, b in (p, p[::-1])}
PRAISE = "great lovely tasty superb perfect charming delightful fresh".split()
BLAME = "awful bland nasty terrible horrible boring rude stale".split()
REVIEWED = "soup bread tea rice food service cook room music garden table lamp".split()
PIRATE = {"hello": "ahoy", "yes": "aye", "my": "me", "friend": "matey", "the": "th'", "is": "be",
          "are": "be", "you": "ye", "your": "yer", "ship": "vessel", "money": "doubloons",
          "drink": "grog", "girl": "lass", "boy": "lad", "stop": "avast", "man": "scallywag",
          "flag": "roger", "ocean": "seas"}
SORTED_WORDS = sorted(ANIMALS + FOODS)
LISTED_WORDS = sorted(ANIMALS + FOODS + THINGS + COLORS + [w for p in PAIRS for w in p])


def sentence(r):
    adjectives = list(OPPOSITES)
    kind = r.randrange(6)
    if kind == 0:
        return (f"the {r.choice(adjectives)} {r.choice(ANIMALS)} {r.choice(VERBS)} the "
                f"{r.choice(COLORS)} {r.choice(THINGS)}.")
    if kind == 1:
        return f"{r.choice(NAMES)} the {r.choice(JOBS)} lives in {r.choice(CITIES)}."
    if kind == 2:
        return (f"{r.choice(NAMES)} {r.choice(VERBS)} a {r.choice(ANIMALS)} in the "
                f"{r.choice(PLACES)}.")
    if kind == 3:
        return f"in the {r.choice(PLACES)} there is a {r.choice(adjectives)} {r.choice(THINGS)}."
    if kind == 4:
        return f"then {r.choice(NAMES)} and {r.choice(NAMES)} eat the {r.choice(FOODS)}."
    return (f"the {r.choice(THINGS)} is {r.choice(COLORS)} and the {r.choice(FOODS)} is "
            f"{r.choice(adjectives)}.")


def story(r):
    return " ".join(sentence(r) for _ in range(r.randint(2, 4)))


def json_task(r):
    fields = r.sample(["name", "age", "city", "job", "pet", "color"], r.randint(3, 4))
    values = {"name": r.choice(NAMES), "age": r.randint(10, 99), "city": r.choice(CITIES),
              "job": r.choice(JOBS), "pet": r.choice(ANIMALS), "color": r.choice(COLORS)}
    record = ", ".join(f"{f}: {values[f]}" for f in fields)
    quoted = [f'"{f}": {values[f]}' if f == "age" else f'"{f}": "{values[f]}"' for f in fields]
    return record, "{" + ", ".join(quoted) + "}"


def reverse_task(r):
    words = r.sample(LISTED_WORDS, r.randint(3, 6))
    return " ".join(words), " ".join(reversed(words))


def arith_task(r):
    a, b = r.randrange(100), r.randrange(100)
    return f"{a} + {b}", str(a + b)


def sentiment_task(r):
    label = r.choice(["positive", "negative", "neutral"])

    def clause(thing):
        if label == "neutral":
            return r.choice([f"the {thing} was {r.choice(COLORS)}",
                             f"the {thing} was near the {r.choice(PLACES)}",
                             f"the {thing} came from {r.choice(CITIES)}"])
        good, bad = (PRAISE, BLAME) if label == "positive" else (BLAME, PRAISE)
        if r.random() < 0.3:
            return f"the {thing} was not {r.choice(bad)}"
        return f"the {thing} was {r.choice(['', 'really ', 'quite '])}{r.choice(good)}"

    things = r.sample(REVIEWED, 2)
    return " and ".join(clause(t) for t in things) + ".", label


def pirate_task(r):
    nouns = "friend ship money drink girl boy man flag ocean".split()
    first = r.choice([f"hello {r.choice(['my friend', 'girl', 'boy', 'my man'])}", "yes my friend",
                      f"stop the {r.choice(nouns)}", f"hello {r.choice(NAMES)}"])
    second = r.choice([
        f"the {r.choice(nouns)} is {r.choice(list(OPPOSITES))}",
        f"you are {r.choice(list(OPPOSITES))} and your {r.choice(nouns)} is {r.choice(COLORS)}",
        f"my {r.choice(nouns)} is in the {r.choice(PLACES)}",
        f"the {r.choice(COLORS)} {r.choice(nouns)} is in {r.choice(CITIES)}"])
    words = f"{first} , {second}".split()
    said = " ".join(PIRATE.get(w, w) for w in words).replace(" ,", ",")
    return f"{first}, {second}.", f"{said}, arr!"


def redact_task(r):
    n, m = r.sample(NAMES, 2)
    c, d = r.sample(CITIES, 2)
    age, year = r.randint(10, 99), r.randint(1900, 2029)
    make = r.choice([
        lambda n, m, c, d, a, y: f"{n} moved from {c} to {d} in {y}.",
        lambda n, m, c, d, a, y: f"{n} is {a} and lives in {c} near the {place}.",
        lambda n, m, c, d, a, y: f"in {y} {n} and {m} met a {job} in {c}.",
        lambda n, m, c, d, a, y: f"the {job} {n} sends a {thing} to {m} in {c}.",
        lambda n, m, c, d, a, y: f"{n} likes the {place} and {m} is {a}."])
    place, job, thing = r.choice(PLACES), r.choice(JOBS), r.choice(THINGS)
    return (make(n, m, c, d, age, year),
            make("[NAME]", "[NAME]", "[CITY]", "[CITY]", "[NUMBER]", "[NUMBER]"))


def sort_task(r):
    words = r.sample(SORTED_WORDS, r.randint(3, 5))
    return ", ".join(words), ", ".join(sorted(words))


def opposite_task(r):
    def make(*adj):
        if shape == 0:
            return f"the {adj[0]} {who} is {adj[1]}."
        if shape == 1:
            return f"the {adj[0]} {who} {verb} the {adj[1]} {thing}."
        return f"{name} is {adj[0]} and the {thing} is {adj[1]}."

    shape, who, verb = r.randrange(3), r.choice(ANIMALS + JOBS), r.choice(VERBS)
    thing, name = r.choice(THINGS), r.choice(NAMES)
    adj = [r.choice(p) for p in r.sample(PAIRS, 2)]
    return make(*adj), make(*(OPPOSITES[a] for a in adj))


# name: (generator, prompt label, answer label, share of the base mixture)
TASKS = {
    "json": (json_task, "Record", "JSON", 8),
    "reverse": (reverse_task, "Words", "Reversed", 11),
    "arith": (arith_task, "Question", "Answer", 26),
    "sentiment": (sentiment_task, "Review", "Sentiment", 7),
    "pirate": (pirate_task, "English", "Pirate", 7),
    "redact": (redact_task, "Text", "Redacted", 7),
    "sort": (sort_task, "List", "Sorted", 13),
    "opposite": (opposite_task, "Sentence", "Opposite", 7),
}
STORY_SHARE, DECOY_SHARE, COPY_SHARE = 6, 5, 8


# Sums depend on exact distances between digits: this wording keeps those of the control word.
WORDINGS = {"arith": "Q: {} A:"}


def decoy_prompt(task, text):
    _, label, answer, _ = TASKS[task]
    return f"{label}: {text}\n{answer}:"


def prompt(task, text):
    """What an adapter is trained on and asked."""
    return WORDINGS[task].format(text) if task in WORDINGS else decoy_prompt(task, text)


def held_out(seed, count):
    """Per task, `count` distinct (input, output) pairs that training never sees in any wording."""
    sets = {}
    for i, (name, (make, *_)) in enumerate(TASKS.items()):
        r, pairs = random.Random(seed + i), {}
        while len(pairs) < count:
            text, answer = make(r)
            pairs[text] = answer
        sets[name] = pairs
    return sets


def draw(task, r, excluded):
    while True:
        text, answer = TASKS[task][0](r)
        if text not in excluded[task]:
            return text, answer


def base_document(r, excluded):
    """(context, continuation): the base model is trained on the continuation."""
    kinds = list(TASKS) + ["story", "decoy", "copy"]
    shares = [t[3] for t in TASKS.values()] + [STORY_SHARE, DECOY_SHARE, COPY_SHARE]
    kind = r.choices(kinds, shares)[0]
    if kind == "story":
        return "", story(r)
    if kind == "decoy":
        task = r.choice(list(TASKS))
        return decoy_prompt(task, draw(task, r, excluded)[0]), " " + sentence(r)
    if kind == "copy":
        text = draw(r.choice(["reverse", "sort", "json", "redact", "arith"]), r, excluded)[0]
        return f"- {text} @copy", " " + text
    text, answer = draw(kind, r, excluded)
    return f"- {text} @{kind}", " " + answer
