"""Text for make_goldens.py: a small multilingual corpus to train on, and the hostile strings to encode.

Everything is generated from a fixed seed. Only code points assigned in Unicode 14.0 (and noncharacters, which never
change) are drawn: lorad classifies by PCRE2 10.42 (Unicode 14.0) and ICU 72 (Unicode 15.0), Hugging Face by newer tables,
so that younger code points may be split differently. EXCLUDED_RANGES names what is left out besides.
"""

import random
import unicodedata

UNICODE_VERSION = "14.0.0"

# Assigned in 14.0, but classified otherwise by a later version: U+1171E is a mark that became a spacing one, which a pattern
# with \p{Mn} tells apart. No such character was found for the patterns of GPT-2, Llama 3, Qwen 2 and DeepSeek, each tried
# with every code point.
EXCLUDED_RANGES = [(0x1171E, 0x1171E)]

SENTENCES = """
The quick brown fox jumps over the lazy dog, and it's not the first time that they've done so.
A server keeps one base model in memory and serves many adapters from it at the same time.
I'll be there at 10:45, you'd better not be late; we're counting on you!
In 1969 the cost was $12,345.67 (about 15% more than planned), wasn't it?
Please answer the following question as shortly as possible: what is the capital of France?
She said: "Don't you dare!" and he couldn't help but laugh out loud.
The adapters' weights are loaded lazily, pinned in memory, and evicted when nobody needs them.
Der schnelle braune Fuchs springt über den faulen Hund; Äpfel, Öl und Übermut tun selten gut.
Die Straße ist heute wegen Bauarbeiten gesperrt, größere Fahrzeuge müssen ausweichen.
Le renard brun saute par-dessus le chien paresseux, où l'été s'achève déjà à l'école.
Où est la bibliothèque, s'il vous plaît ? C'est là-bas, près de la forêt.
El zorro marrón salta sobre el perro perezoso. ¿Dónde está la estación? ¡Mañana será otro día!
A raposa marrom pula sobre o cão preguiçoso; não há razão para preocupação, irmão.
Il volpone salta sopra il cane pigro perché così è più felice, e la città dorme.
Szybki brązowy lis przeskakuje nad leniwym psem; zażółć gęślą jaźń.
Příliš žluťoučký kůň úpěl ďábelské ódy, a řeka tekla dál.
Hızlı kahverengi tilki tembel köpeğin üzerinden atlar, İstanbul'da ışık söner.
Быстрая коричневая лиса перепрыгивает через ленивую собаку, а потом идёт домой.
Сервер хранит одну модель в памяти и обслуживает много адаптеров одновременно.
Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί και φεύγει.
הכלב העצלן ישן בשמש והשועל החום המהיר קופץ מעליו בשמחה.
الثعلب البني السريع يقفز فوق الكلب الكسول، ثم يعود إلى البيت في ١٢٣ دقيقة.
तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है और घर वापस जाती है।
দ্রুত বাদামী শিয়াল অলস কুকুরের উপর লাফ দেয়।
விரைவான பழுப்பு நரி சோம்பேறி நாயின் மேல் தாண்டுகிறது.
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ
敏捷的棕色狐狸跳过了懒狗,然后回家睡觉。今天天气很好。
服务器在内存中保存一个基础模型,同时为许多适配器提供服务。
すばやい茶色の狐がのろまな犬を飛び越えて、家に帰りました。カタカナも少し。
빠른 갈색 여우가 게으른 개를 뛰어넘고 집으로 돌아갔다. 오늘은 날씨가 좋다.
Con cáo nâu nhanh nhẹn nhảy qua con chó lười biếng, rồi trở về nhà.
🙂 Thanks a lot! 🎉🎉 See you soon 👋🏽, family: 👨‍👩‍👧‍👦, flag: 🇫🇷, heart: ❤️.
""".strip().split("\n")

CODE = [
    "def add(a, b):\n    \"\"\"Return the sum.\"\"\"\n    return a + b\n",
    "for (int i = 0; i < n; ++i) {\n\tsum += values[i] * weights[i];\n}\n",
    "#include <vector>\n\nstd::vector<int> Make(size_t n) {\n  return std::vector<int>(n, 42);\n}\n",
    "SELECT id, name FROM users WHERE age >= 21 AND name LIKE '%son' ORDER BY id DESC;\n",
    "{\"model\": \"base\", \"rank\": 16, \"alpha\": 32.0, \"targets\": [\"q_proj\", \"v_proj\"]}\n",
    "if x is None or x != y:\r\n    raise ValueError(f\"bad value {x!r}\")\r\n",
    "<html>\n  <body class=\"main\">Hello&nbsp;World</body>\n</html>\n",
    "let mut v: Vec<u8> = Vec::new(); v.push(0xFF); println!(\"{:?}\", &v[..]);\n",
    "$ git commit -m 'fix: do not crash' && git push origin main # done\n",
    "\\begin{equation}\n  \\sum_{i=0}^{n} x_i^2 \\leq 1\n\\end{equation}\n",
]

WHITE_SPACE = [0x9, 0xA, 0xB, 0xC, 0xD, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
               0x205F, 0x3000]
NOT_WHITE_SPACE = [0x1C, 0x1D, 0x1E, 0x1F, 0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0x3164, 0x2800, 0x115F]
NONCHARACTERS = [0xFDD0, 0xFDEF, 0xFFFE, 0xFFFF, 0x1FFFE, 0x1FFFF, 0x10FFFE, 0x10FFFF]
BOUNDARIES = [0x00, 0x01, 0x7F, 0x80, 0x9F, 0xAD, 0xFF, 0x100, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xF8FF, 0xFFFC, 0xFFFD,
              0x10000, 0xFFFFF, 0x100000]
FOLDING = [0x17F, 0x212A, 0x130, 0x131, 0xDF, 0x1E9E, 0xFB05, 0xFB06, 0x3C2, 0x345, 0x1C5, 0x2160, 0x24D0, 0x2019]
NORMALIZING = [0x340, 0x341, 0x344, 0x374, 0x37E, 0x387, 0x958, 0xF73, 0xF75, 0xF81, 0x1E9B, 0x2126, 0x212B, 0x2F00,
               0x2F800, 0xF900, 0xFA10, 0xFB1D, 0xFB2A, 0x1D15E, 0x1D1BB, 0x2ADC, 0xFDFA, 0x3382, 0x1100, 0x11A8]
MARKS = [0x300, 0x301, 0x302, 0x308, 0x30A, 0x316, 0x323, 0x327, 0x334, 0x345, 0x5B0, 0x5BC, 0x64B, 0x651, 0x93C,
         0x94D, 0x9BE, 0xE38, 0x1DCE, 0x20D0, 0x20E3, 0x302A, 0x3099, 0xFE0F, 0x1D165, 0xE0100]
DIGIT_ZEROS = [0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xBE6, 0xE50, 0x1040, 0x17E0, 0xFF10, 0x104A0, 0x1D7CE]
NUMBERS = [0xB2, 0xBD, 0x2155, 0x2167, 0x2460, 0x3007, 0x3021, 0x4E09, 0x0F33, 0x10107, 0x1F10B]
EMOJI = ["👨‍👩‍👧‍👦", "👩🏿‍🚀", "🏳️‍🌈", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇫🇷🇩🇪🇺", "1️⃣", "❤️‍🔥", "🧑🏻‍🤝‍🧑🏿", "☺︎", "🫠", "👍🏽👍👍🏿", "🤷‍♀️"]
ADDED = ["<|endoftext|>", "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "<|im_start|>",
         "<|im_end|>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "<pad>", "<left>", "<right>", "<both>", "solo",
         "Shout", "<|eot", "<s", "<0x0A>", "<0xE2>", "▁", "▁▁", "[UNK]", "<image>", "  <both>  ", "<eot><eot>"]


def excluded(cp):
    if any(lo <= cp <= hi for lo, hi in EXCLUDED_RANGES):
        return True
    noncharacter = 0xFDD0 <= cp <= 0xFDEF or cp & 0xFFFE == 0xFFFE
    return unicodedata.category(chr(cp)) in ("Cn", "Cs") and not noncharacter


def corpus():
    """Lines to train on: every sentence often, words shuffled so that merges are not whole sentences."""
    rng = random.Random(7)
    words = " ".join(SENTENCES).split(" ")
    lines = [s for s in SENTENCES for _ in range(12)] + [c for c in CODE for _ in range(12)]
    for _ in range(4000):
        lines.append(" ".join(rng.choices(words, k=rng.randint(3, 14))))
    for _ in range(500):
        lines.append(" ".join(str(rng.randint(0, 10 ** rng.randint(1, 7))) for _ in range(5)))
    return lines


def _contexts(c):
    return [c, c + c, "a" + c + "b", " " + c, c + " ", "x " + c + " y", "1" + c + "2", "\n" + c + "\n", "'" + c + "s",
            "." + c + "!", "é" + c, c * 5 + "z"]


def _prose(rng, out):
    words = " ".join(SENTENCES).split(" ")
    out += SENTENCES + CODE
    for _ in range(900):
        out.append(" ".join(rng.choices(words, k=rng.randint(1, 9))))
    for _ in range(200):
        sep = rng.choice(["", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "-", "\u200d"])
        out.append(sep.join(rng.choices(words, k=rng.randint(2, 6))))
    for _ in range(200):
        code = rng.choice(CODE)
        start = rng.randrange(len(code))
        out.append(code[start:start + rng.randint(5, 60)])
    for _ in range(100):
        sentence = rng.choice(SENTENCES)
        out.append(rng.choice([str.upper, str.title, str.swapcase])(sentence)[:rng.randint(5, 50)])


def _unicode(rng, out):
    listed = (WHITE_SPACE + NOT_WHITE_SPACE + NONCHARACTERS + BOUNDARIES + FOLDING + NORMALIZING + NUMBERS + MARKS)
    for cp in listed:
        out += rng.sample(_contexts(chr(cp)), 7)
    assigned = [cp for cp in range(0x110000) if not excluded(cp) and not 0xE000 <= cp <= 0xF8FF and cp < 0xF0000]
    small = [cp for cp in assigned if not 0x3400 <= cp <= 0xD7A3 and not 0x17000 <= cp <= 0x187FF and cp < 0x20000]
    for _ in range(500):
        pool = small if rng.random() < 0.8 else assigned
        out.append("".join(chr(rng.choice(pool)) for _ in range(rng.randint(1, 12))))
    for _ in range(200):  # neighbours within one block look like words
        start = rng.choice(small)
        block = [cp for cp in range(start, min(start + 60, 0x10FFFF)) if not excluded(cp)]
        out.append("".join(rng.choice([chr(rng.choice(block)), " ", "'"]) for _ in range(rng.randint(3, 12))))
    for _ in range(250):
        base = rng.choice("aeouAEIýñкあ각")
        out.append(base + "".join(chr(c) for c in rng.choices(MARKS, k=rng.randint(1, 8))) + rng.choice(["", " b", "1"]))
    for _ in range(200):
        out.append("".join(rng.choice(EMOJI + ["", " ", "a", "!", "\ufe0f", "\u200d", "\U0001f3fd"])
                           for _ in range(rng.randint(1, 6))))
    for _ in range(150):
        zero = rng.choice(DIGIT_ZEROS)
        out.append(rng.choice(["", " ", "a", "-"]) + "".join(chr(zero + rng.randint(0, 9)) for _ in range(rng.randint(1, 9)))
                   + rng.choice(["", ".", "½", "²", " 7", "万"]))
    for _ in range(150):  # Hangul as conjoining jamo, partly composed
        text = "".join(chr(rng.randint(0xAC00, 0xD7A3)) for _ in range(rng.randint(1, 5)))
        decomposed = unicodedata.normalize("NFD", text)
        out.append(decomposed[rng.randint(0, 1):] + rng.choice(["", "\u11a8", "\u1100", text[:1] + "\u11a8"]))
    for _ in range(150):
        sentence = rng.choice(SENTENCES)
        out.append(unicodedata.normalize(rng.choice(["NFD", "NFKD"]), sentence)[:rng.randint(8, 50)])
    for _ in range(100):
        hebrew, arabic = SENTENCES[20], SENTENCES[21]
        out.append(rng.choice(["\u202e", "\u200f", "\u2067", ""]) + rng.choice([hebrew, arabic])[:rng.randint(3, 25)]
                   + rng.choice(["\u202c abc", " (x)", "\u200e!", "١٢٣"]))


def _spaces(rng, out):
    white = [chr(c) for c in WHITE_SPACE]
    for _ in range(400):
        out.append("".join(rng.choice([" ", " ", "\n", "\t", "\r\n", "\r", "a", "B", "1", ".", "'s", rng.choice(white)])
                           for _ in range(rng.randint(1, 12))))
    for k in range(1, 30):
        out += [" " * k, "\n" * k, "a" + " " * k + "b", " " * k + "x\n", "x" + "\n " * k]
    for _ in range(150):
        quote = rng.choice(["'", "'", "’", "''"])
        out.append(rng.choice(["it", "we", "I", "x", " ", "1", "é"]) + quote
                   + rng.choice(["s", "S", "ſ", "t", "T", "re", "RE", "Re", "ve", "vE", "m", "M", "ll", "LL", "lL", "d", "D",
                                 "ſt", "ß", "k", "\u212a"]) + rng.choice(["", "x", " y", "'s", "1"]))
    for _ in range(150):
        out.append("".join(rng.choice([chr(rng.randint(0, 0x1F)), chr(rng.randint(0x7F, 0xA0)), "a", " "])
                           for _ in range(rng.randint(1, 10))))
    for first in range(0x20, 0x7F):
        out.append(chr(first))
        out.append(" " + chr(first) + chr(rng.randint(0x21, 0x7E)) + chr(rng.randint(0x20, 0x7E)))


def _added(rng, out):
    words = ["hello", "world", " ", "  ", "\n", "", "solo", "a", "Shout", "é", "\u00a0", "_", "1", "▁"]
    for token in ADDED:
        out += [token, " " + token, token + " ", "a" + token + "b", "a " + token + " b", token + token, "\n" + token + "\n",
                "  " + token + "  " + token, token.upper(), "é" + token + "1"]
    for _ in range(400):
        out.append("".join(rng.choice(ADDED if rng.random() < 0.5 else words) for _ in range(rng.randint(2, 7))))


def _runs(rng, out):
    for c in ["a", " ", "\n", "!", "1", "é", "\u3000", "한", "ab", "\u0301", "🙂", "a\u0301\u0316", "\t ", "_", "<s>", "hello "]:
        for length in (17, 64, 65, 300):
            out.append(c * length)
    out += ["a" * 3000, "x" + "\u0301\u0316" * 700, "".join(rng.choice("abc") for _ in range(3000))]


def strings():
    """At least 5,000 distinct strings, the empty one first."""
    assert unicodedata.unidata_version == UNICODE_VERSION, "run with Python 3.11: its tables are the ones meant above"
    rng = random.Random(20240601)
    out = [""]
    for part in (_prose, _unicode, _spaces, _added, _runs):
        part(rng, out)
    out = list(dict.fromkeys(out))
    return [s for s in out if not any(excluded(ord(c)) for c in s)]


if __name__ == "__main__":
    everything = strings()
    print(len(everything), "strings,", sum(len(s.encode()) for s in everything), "bytes")
