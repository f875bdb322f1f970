#!/usr/bin/env python3
"""Makes the lorad demo: a tiny Llama model, its tokenizer, eight LoRA adapters, held-out prompts.

    python3 make_demo.py --stage all                     # everything
    python3 make_demo.py --stage adapters --only sort    # one adapter again, on the saved base
    python3 make_demo.py --stage eval                    # measure what is on disk

Writes model/, adapters/, eval/ beside this file, and accuracy.json. Same seeds and library versions
(requirements.txt) give the same data; weights can differ in low bits between CPU kinds.
"""

import argparse
import json
import math
import os
import random
import shutil
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast)

import demo_text

HERE = os.path.dirname(os.path.abspath(__file__))
SEED_HELD_OUT, SEED_TOKENIZER, SEED_BASE, SEED_COOL = 1000, 2000, 3000, 3500
SEED_ADAPTER = 4000
HELD_OUT = 40
VOCAB, CONTEXT = 1024, 128  # the last few rows of the embedding have no token
BASE_BATCH, BASE_LR = 32, 2e-3
BASE_HORIZON, BASE_STEPS, COOL_STEPS = 1800, 1200, 150
ADAPTER_BATCH = 32
BOS, EOS, PAD = 0, 1, 2
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

# name: (LoraConfig arguments, steps, peak learning rate)
ADAPTERS = {
    "json": (dict(r=16, lora_alpha=32, target_modules=ATTENTION + MLP), 120, 2e-3),
    "reverse": (dict(r=64, lora_alpha=32, use_rslora=True, target_modules=["q_proj", "v_proj"]),
                200, 2e-3),
    "arith": (dict(r=32, lora_alpha=32, target_modules=ATTENTION), 150, 2e-3),
    "sentiment": (dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), 120, 3e-3),
    "pirate": (dict(r=8, lora_alpha=16, target_modules=ATTENTION + MLP), 120, 2e-3),
    "redact": (dict(r=16, lora_alpha=32, target_modules=MLP), 300, 2e-3),
    "sort": (dict(r=12, lora_alpha=24, target_modules=ATTENTION + ["down_proj"]), 350, 2e-3),
    "opposite": (dict(r=8, lora_alpha=16,
                      target_modules=["q_proj", "v_proj", "up_proj", "down_proj"],
                      rank_pattern={"q_proj": 4, "layers.3.mlp.down_proj": 20},
                      alpha_pattern={"q_proj": 12, "layers.3.mlp.down_proj": 30}), 300, 2e-3),
}


def path(*parts):
    return os.path.join(HERE, *parts)


def write_held_out():
    sets = demo_text.held_out(SEED_HELD_OUT, HELD_OUT)
    os.makedirs(path("eval"), exist_ok=True)
    for task, pairs in sets.items():
        with open(path("eval", f"{task}.jsonl"), "w") as f:
            for text, answer in pairs.items():
                row = {"prompt": demo_text.prompt(task, text), "expected": " " + answer}
                f.write(json.dumps(row) + "\n")
    return sets


def train_tokenizer(excluded):
    r = random.Random(SEED_TOKENIZER)
    drop_digits = str.maketrans("", "", "0123456789")  # so that every digit stays its own token
    lines = []
    for _ in range(20000):
        context, text = demo_text.base_document(r, excluded)
        lines.append((context + text).translate(drop_digits))
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<s>", "</s>", "<pad>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)])
    os.makedirs(path("model"), exist_ok=True)
    tok.save(path("model", "tokenizer.json"))
    with open(path("model", "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>",
                   "eos_token": "</s>", "pad_token": "<pad>", "add_bos_token": True,
                   "add_eos_token": False,
                   "clean_up_tokenization_spaces": False, "model_max_length": 512}, f, indent=2)
        f.write("\n")
    split = [w for w in demo_text.LISTED_WORDS + demo_text.NAMES + demo_text.CITIES
             if len(tok.encode(" " + w, add_special_tokens=False).ids) > 1]
    assert not split, f"words of more than one token: {split}"
    print(f"tokenizer: {tok.get_vocab_size()} entries", flush=True)


def load_tokenizer():
    return Tokenizer.from_file(path("model", "tokenizer.json"))


def encode_pairs(tok, pairs):
    flat = tok.encode_batch_fast([s for p in pairs for s in p], add_special_tokens=False)
    return [(flat[i].ids, flat[i + 1].ids) for i in range(0, len(flat), 2)]


def schedule(step, steps, warmup):
    return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)


def optimizer_for(model, lr, decay):
    params = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(params, lr=lr, betas=(0.9, 0.98), weight_decay=decay)


def step_once(model, opt, lr, **batch):
    for group in opt.param_groups:
        group["lr"] = lr
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    opt.step()
    opt.zero_grad(set_to_none=True)
    return loss.item()


def packed_batches(tok, r, excluded):
    """Rows of CONTEXT tokens of whole documents that do not see each other; no loss on contexts.

    Yields ids, labels, positions [BASE_BATCH, CONTEXT], mask [BASE_BATCH, 1, CONTEXT, CONTEXT].
    """
    causal = torch.ones(CONTEXT, CONTEXT, dtype=torch.bool).tril()
    docs = []
    while True:
        rows = []
        while len(rows) < BASE_BATCH:
            ids, labels, positions, owner = [], [], [], []
            while True:
                if not docs:
                    fresh = [demo_text.base_document(r, excluded) for _ in range(1000)]
                    docs = encode_pairs(tok, fresh)
                context, text = docs[-1]
                context = ([BOS] if r.random() < 0.8 else []) + context
                size = len(context) + len(text) + 1
                if len(ids) + size > CONTEXT:
                    break
                docs.pop()
                ids += context + text + [EOS]
                labels += [-100] * len(context) + text + [EOS]
                owner += [len(positions)] * size
                positions += range(size)
            gap = CONTEXT - len(ids)
            rows.append((ids + [PAD] * gap, labels + [-100] * gap, positions + [0] * gap,
                         owner + [-1] * gap))
        ids, labels, positions, owner = (torch.tensor(column) for column in zip(*rows))
        yield ids, labels, positions, (causal & (owner[:, :, None] == owner[:, None, :]))[:, None]


def run_base(model, seed, rates, excluded):
    """One optimizer run over the base mixture, a step for each learning rate."""
    tok, start = load_tokenizer(), time.time()
    opt = optimizer_for(model, BASE_LR, 0.01)
    batches = packed_batches(tok, random.Random(seed), excluded)
    model.train()
    for step, rate in enumerate(rates):
        ids, labels, positions, mask = next(batches)
        loss = step_once(model, opt, rate, input_ids=ids, labels=labels, position_ids=positions,
                         attention_mask=mask)
        if step % 50 == 0 or step == len(rates) - 1:
            seconds = time.time() - start
            print(f"base {step}/{len(rates)} loss {loss:.4f} {seconds:.0f}s", flush=True)
        if step % 200 == 199 or step == len(rates) - 1:
            print("   ", {t: skill(model, tok, t) for t in demo_text.TASKS}, flush=True)
    save_base(model)


def train_base(excluded):
    """A cosine schedule, left at a quarter of its peak for `cool_base`."""
    torch.manual_seed(SEED_BASE)
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=512,
        rope_theta=10000.0, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=BOS,
        eos_token_id=EOS, pad_token_id=PAD)
    model = LlamaForCausalLM(config)
    print(f"base: {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    rates = [BASE_LR * schedule(step, BASE_HORIZON, 60) for step in range(BASE_STEPS)]
    run_base(model, SEED_BASE, rates, excluded)


def cool_base(excluded):
    """From the saved weights, with a new optimizer: the learning rate falls straight to nothing."""
    rates = [0.25 * BASE_LR * min((step + 1) / 20, 1 - step / COOL_STEPS)
             for step in range(COOL_STEPS)]
    run_base(load_base(), SEED_COOL, rates, excluded)


def save_base(model):
    state = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    out = LlamaForCausalLM(model.config).to(torch.bfloat16)
    out.load_state_dict(state)
    out.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    out.save_pretrained(path("model"))
    os.chmod(path("model", "model.safetensors"), 0o644)
    with open(path("model", "config.json")) as f:
        config = json.load(f)
    config["rope_theta"] = 10000.0  # beside rope_parameters, for readers of the older spelling
    with open(path("model", "config.json"), "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def load_base():
    return LlamaForCausalLM.from_pretrained(path("model"), dtype=torch.float32)


@torch.no_grad()
def complete(model, tok, prompts, bos=True, dtype=torch.float32):
    """Greedy completions up to EOS, without special tokens."""
    rows = [[BOS] * bos + tok.encode(p, add_special_tokens=False).ids for p in prompts]
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=48, do_sample=False,
                             eos_token_id=EOS, pad_token_id=PAD)
    texts = []
    for row in out[:, width:].tolist():
        ended = EOS in row
        texts.append(tok.decode(row[:row.index(EOS)]) if ended else tok.decode(row) + "<no end>")
    return texts


def skill(model, tok, task):
    """How often the base answers its own control word on fresh pairs (progress only)."""
    r, model_was = random.Random(7), model.training
    model.eval()
    pairs = [demo_text.TASKS[task][0](r) for _ in range(32)]
    got = complete(model, tok, [f"- {text} @{task}" for text, _ in pairs])
    model.train(model_was)
    return round(sum(g == " " + a for g, (_, a) in zip(got, pairs)) / len(pairs), 2)


def adapter_batch(tok, task, r, excluded):
    pairs = [demo_text.draw(task, r, excluded) for _ in range(ADAPTER_BATCH)]
    rows = encode_pairs(tok, [(demo_text.prompt(task, t), " " + answer) for t, answer in pairs])
    ids, labels = [], []
    for context, text in rows:
        context = ([BOS] if r.random() < 0.85 else []) + context
        ids.append(context + text + [EOS])
        labels.append([-100] * len(context) + text + [EOS])

    def pad(rows, value):
        width = max(map(len, rows))
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    return pad(ids, PAD), pad(labels, -100)


def train_adapter(name, excluded):
    args, steps, lr = ADAPTERS[name]
    seed = SEED_ADAPTER + list(ADAPTERS).index(name)
    torch.manual_seed(seed)
    r, tok, start = random.Random(seed), load_tokenizer(), time.time()
    config = LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **args)
    model = get_peft_model(load_base(), config)
    opt = optimizer_for(model, lr, 0.0)
    model.train()
    for step in range(steps):
        ids, labels = adapter_batch(tok, name, r, excluded)
        loss = step_once(model, opt, lr * schedule(step, steps, 20), input_ids=ids, labels=labels)
        if step % 100 == 0 or step == steps - 1:
            print(f"{name} {step}/{steps} loss {loss:.4f} {time.time() - start:.0f}s", flush=True)
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.to(torch.bfloat16)
    model.peft_config["default"].base_model_name_or_path = "lorad-demo"
    out = path("adapters", name)
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out, save_embedding_layers=False)
    os.chmod(os.path.join(out, "adapter_model.safetensors"), 0o644)
    if os.path.exists(os.path.join(out, "README.md")):
        os.remove(os.path.join(out, "README.md"))  # PEFT's blank model card
    with open(os.path.join(out, "adapter_config.json")) as f:
        config = json.load(f)
    config["target_modules"].sort()  # PEFT keeps a set, whose order differs from run to run
    with open(os.path.join(out, "adapter_config.json"), "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def evaluate(name):
    tok = load_tokenizer()
    with open(path("eval", f"{name}.jsonl")) as f:
        rows = [json.loads(line) for line in f]
    prompts = [row["prompt"] for row in rows]

    def score(model, **how):
        got = complete(model, tok, prompts, **how)
        wrong = [(p, g) for p, g, row in zip(prompts, got, rows) if g != row["expected"]]
        return round(1 - len(wrong) / len(rows), 4), wrong

    base = load_base().eval()
    without, wrong = score(base)
    print(f"{name}: base alone {without}, e.g. {wrong[0] if wrong else None}")
    model = PeftModel.from_pretrained(base, path("adapters", name)).eval()
    with_adapter, wrong = score(model)
    print(f"{name}: adapter {with_adapter} wrong {wrong}", flush=True)
    result = {"base": without, "adapter": with_adapter,
              "adapter_bf16_compute": score(model, dtype=torch.bfloat16)[0],
              "adapter_without_bos": score(model, bos=False)[0]}
    print(f"{name}: {result}", flush=True)
    scores = {}
    if os.path.exists(path("accuracy.json")):
        with open(path("accuracy.json")) as f:
            scores = json.load(f)
    scores[name] = result
    with open(path("accuracy.json"), "w") as f:
        json.dump(scores, f, indent=2, sort_keys=True)
        f.write("\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stage", default="all",
                        choices=["base", "cool", "adapters", "eval", "all"])
    parser.add_argument("--only", help="comma-separated adapter names")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    names = args.only.split(",") if args.only else list(ADAPTERS)
    excluded = write_held_out()
    if args.stage in ("base", "all"):
        train_tokenizer(excluded)
        train_base(excluded)
    if args.stage in ("base", "cool", "all"):
        cool_base(excluded)
    for name in names:
        if args.stage in ("adapters", "all"):
            train_adapter(name, excluded)
        if args.stage in ("adapters", "eval", "all"):
            evaluate(name)


if __name__ == "__main__":
    main()
