"""Makes the tokenizer goldens: small tokenizers of each kind, and what Hugging Face's code answers with them.

    pip install tokenizers==0.23.3 transformers==5.23.0 sentencepiece==0.2.3
    python3.11 make_goldens.py            # rewrites the files beside this script

<kind>/tokenizer.json or tokenizer.model with tokenizer_config.json: as in a Hugging Face model directory.
strings.bin: uvarint count, then each string as uvarint length and bytes.
<kind>/golden.bin: uvarint stride (the kind holds every stride-th string), then for each string
    ids           with special tokens added
    plain         0: the same ids when text is not searched for special tokens; 1: other ids follow
    decoded       text of decode(ids, skip_special_tokens=True)
    decoded_full  text of decode(ids, skip_special_tokens=False)
  then uvarint count of random token sequences, each as ids, decoded, decoded_full.
  ids: uvarint count, uvarint each. text: 0: equal to the input; 1: uvarint length and bytes; 2: uvarint length and bytes,
  then `decoded`.

The spm kind is encoded by sentencepiece itself (through transformers' slow backend where special tokens are split off) and
decoded by the fast tokenizer that transformers derives from such a model, so that both kinds answer alike.
"""

import io
import json
import pathlib
import random

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_base import generate_merges
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

import golden_text

HERE = pathlib.Path(__file__).parent
VOCAB_SIZE = 2000

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
DEEPSEEK_PUNCTUATION = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def special(text, **flags):
    return AddedToken(text, special=True, normalized=False, **flags)


def plain_added():
    """Added tokens that are not special, with every flag."""
    return [AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
            AddedToken("solo", single_word=True, normalized=False), AddedToken("Shout", normalized=True)]


def train(tokenizer, specials, alphabet):
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=specials, initial_alphabet=alphabet,
                                  show_progress=False)
    tokenizer.train_from_iterator(golden_text.corpus(), trainer)
    return tokenizer


def byte_level(normalizer, pre_tokenizer, specials=()):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    return train(tokenizer, list(specials), pre_tokenizers.ByteLevel.alphabet())


def template(tokenizer, bos):
    bos_id = tokenizer.token_to_id(bos)
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)])


def gpt2():
    tokenizer = byte_level(None, pre_tokenizers.ByteLevel(add_prefix_space=False), [special("<|endoftext|>")])
    tokenizer.add_tokens(plain_added())
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def llama3():
    tokenizer = byte_level(None, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    tokenizer.add_special_tokens([special(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                                       "<|end_header_id|>", "<|eot_id|>")])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False),
                                                    template(tokenizer, "<|begin_of_text|>")])
    # Without some of its merges the vocabulary has words that only ignore_merges finds.
    state = json.loads(tokenizer.to_str())
    rng = random.Random(3)
    state["model"]["merges"] = [m for m in state["model"]["merges"] if rng.random() > 0.05]
    state["model"]["ignore_merges"] = True
    return Tokenizer.from_str(json.dumps(state)), {"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}}


def qwen2():
    tokenizer = byte_level(normalizers.NFC(), pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    tokenizer.add_special_tokens([special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<image>", normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer, {"bos_token": None, "eos_token": "<|im_end|>"}


def sentencepiece_model():
    out = io.BytesIO()
    lines = [line for text in golden_text.corpus() for line in text.split("\n") if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="bpe", vocab_size=VOCAB_SIZE, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=0.985, split_digits=True,
        allow_whitespace_only_pieces=True, num_threads=1, minloglevel=2, unk_surface=" \u2047 ")
    return out.getvalue()


def llama2_base(proto):
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    size = processor.get_piece_size()
    vocab = {processor.id_to_piece(i): i for i in range(size)}
    scores = {processor.id_to_piece(i): processor.get_score(i) for i in range(size)}
    merges = generate_merges(vocab, scores, skip_tokens=["<unk>", "<s>", "</s>"])
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([special("<unk>"), special("<s>"), special("</s>")])
    tokenizer.post_processor = template(tokenizer, "<s>")
    return tokenizer


def llama2(proto):
    tokenizer = llama2_base(proto)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer, {"bos_token": {"content": "<s>"}, "eos_token": {"content": "</s>"}}


def mistral(proto):
    tokenizer = llama2_base(proto)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens([special("[INST]"), special("[/INST]")])
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


def variant_metaspace():
    """Characters, unknown ones not fused; every simple normalizer; Metaspace that splits."""
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.NFKD(), normalizers.Lowercase(), normalizers.Strip(), normalizers.Replace(Regex(r"\p{Mn}+"), ""),
        normalizers.Replace("''", '"')])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation("isolated"),
        pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    train(tokenizer, [special("[UNK]"), special("<s>")], [])
    tokenizer.add_tokens(plain_added())
    return tokenizer, {}


def variant_prefix():
    """ByteLevel that adds a space and splits by itself after NFD, the merges written as "a b"."""
    tokenizer = byte_level(normalizers.NFD(), pre_tokenizers.ByteLevel(add_prefix_space=True), [special("<|endoftext|>")])
    tokenizer.add_tokens(plain_added() + [AddedToken("ÉTÉ", normalized=True)])
    state = json.loads(tokenizer.to_str())
    state["model"]["merges"] = [" ".join(m) for m in state["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(state)), {"bos_token": "<|endoftext|>"}


def variant_deepseek():
    """A Sequence of Splits in front of ByteLevel, a Sequence as decoder, BOS and EOS around the text."""
    tokenizer = byte_level(None, pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"), pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(DEEPSEEK_PUNCTUATION), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), [special("<s>"), special("</s>")])
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))])
    tokenizer.add_tokens(plain_added())
    return tokenizer, {"bos_token": "<s>", "eos_token": "</s>"}


def variant_split():
    """Every behaviour of Split and Digits, inverted matches, one white space removed."""
    tokenizer = byte_level(normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=True, right=False)]),
                           pre_tokenizers.Sequence([
                               pre_tokenizers.Split("-", "merged_with_previous"),
                               pre_tokenizers.Split(Regex(r"[\p{Lu}'()]"), "merged_with_next"),
                               pre_tokenizers.Split(Regex(r"[^\S\n]"), "contiguous"),
                               pre_tokenizers.Split(Regex(r"[a-z]+|[^a-z]"), "removed", invert=True),
                               pre_tokenizers.Split("\n", "removed"), pre_tokenizers.Digits(),
                               pre_tokenizers.Punctuation("contiguous"),
                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    return tokenizer, {}


def variant_whitespace():
    """The Whitespace pre-tokenizer, and a decoder that strips and replaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    train(tokenizer, [special("<unk>")], [])
    tokenizer.decoder = decoders.Sequence([decoders.Strip("e", 1, 0), decoders.Replace("th", "TH"), decoders.Fuse(),
                                           decoders.Strip("a", 2, 0)])
    return tokenizer, {}


def uvarint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def blob(text):
    data = text.encode()
    return uvarint(len(data)) + data


def id_list(ids):
    return uvarint(len(ids)) + b"".join(map(uvarint, ids))


def text_of(text, source, decoded=None):
    if text == source:
        return b"\0"
    if decoded is not None and text.endswith(decoded):
        return b"\2" + blob(text[:len(text) - len(decoded)])
    return b"\1" + blob(text)


def keeps_characters_in_broken_run(tokenizer, ids):
    """lorad keeps the whole characters of an ill-formed run of byte tokens, because it has streamed them already, where
    Hugging Face replaces the run altogether: such sequences are left out."""
    run = b""
    for token in [tokenizer.id_to_token(i) for i in ids] + [""]:
        if len(token) == 6 and token.startswith("<0x"):
            run += bytes([int(token[3:5], 16)])
            continue
        try:
            run.decode()
        except UnicodeDecodeError:
            if len(run.decode("utf-8", errors="ignore")) > 0:
                return True
        run = b""
    return False


def random_sequences(tokenizer, count):
    rng = random.Random(99)
    size = tokenizer.get_vocab_size()
    common = [i for i in range(min(300, size))]
    while count > 0:
        pool = common if rng.random() < 0.6 else range(size)
        ids = [rng.choice(pool) for _ in range(rng.randint(1, 10))]
        if not keeps_characters_in_broken_run(tokenizer, ids):
            count -= 1
            yield ids


def write_golden(kind, tokenizer, config, encode, encode_plain, texts, stride):
    folder = HERE / kind
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    out = [uvarint(stride)]
    for text in texts[::stride]:
        ids, plain = encode(text), encode_plain(text)
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        out += [id_list(ids), b"\0" if plain == ids else b"\1" + id_list(plain), text_of(decoded, text),
                text_of(tokenizer.decode(ids, skip_special_tokens=False), text, decoded)]
    sequences = list(random_sequences(tokenizer, 600 // stride + 100))
    out.append(uvarint(len(sequences)))
    for ids in sequences:
        out += [id_list(ids), blob(tokenizer.decode(ids, skip_special_tokens=True)),
                blob(tokenizer.decode(ids, skip_special_tokens=False))]
    (folder / "golden.bin").write_bytes(b"".join(out))
    print(kind, len(texts[::stride]), "strings", tokenizer.get_vocab_size(), "tokens", len(b"".join(out)), "bytes")


def write_fast(kind, tokenizer, config, texts, stride=1):
    def encode(text, plain=False):
        tokenizer.encode_special_tokens = plain
        ids = tokenizer.encode(text).ids
        tokenizer.encode_special_tokens = False
        return ids

    write_golden(kind, tokenizer, config, encode, lambda text: encode(text, plain=True), texts, stride)
    state = json.loads(tokenizer.to_str())
    (HERE / kind / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False, separators=(",", ":")) + "\n")


def write_spm(proto, texts):
    folder = HERE / "spm"
    folder.mkdir(exist_ok=True)
    path = folder / "tokenizer.model"
    path.write_bytes(proto)
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    slow = SentencePieceBackend(vocab_file=str(path), legacy=True, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast = llama2_base(proto)

    def encode_plain(text):
        return [1] + processor.encode(text)

    def encode(text):
        ids = [1] + slow.encode(text, add_special_tokens=False)
        assert any(t in text for t in ("<s>", "</s>", "<unk>")) or ids == encode_plain(text), text
        return ids

    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "add_eos_token": False, "legacy": True}
    write_golden("spm", fast, config, encode, encode_plain, texts, 1)


def main():
    texts = golden_text.strings()
    (HERE / "strings.bin").write_bytes(uvarint(len(texts)) + b"".join(map(blob, texts)))
    proto = sentencepiece_model()
    for make in (gpt2, llama3, qwen2):
        write_fast(make.__name__, *make(), texts)
    write_fast("llama2", *llama2(proto), texts)
    write_fast("mistral", *mistral(proto), texts)
    write_spm(proto, texts)
    for make in (variant_metaspace, variant_prefix, variant_deepseek, variant_split, variant_whitespace):
        write_fast(make.__name__, *make(), texts, stride=5)


if __name__ == "__main__":
    main()
