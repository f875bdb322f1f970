#!/usr/bin/env python3
"""Makes the golden logits of model_golden_test: tiny random models and adapters, and what transformers + PEFT give.

    pip install torch transformers peft safetensors
    tests/golden/models/make_goldens.py            # rewrites the folders beside this file

For each architecture it writes
    <name>/model/            a model folder as Hugging Face's tools leave it, bfloat16
    <name>/adapters/<a>/     PEFT adapters of several ranks, targets and options
    <name>/golden.safetensors
        tokens.<a>  [n]         a prompt, then the tokens that the adapted model adds to it greedily
        logits.<a>  [n, vocab]  logits of the model with the adapter, fp32, one row a token
        base.<a>    [n, vocab]  logits of the model alone on the same tokens
        prompt.<a>  [1]         length of the prompt

All weights are representable in bfloat16 (and those stored as float16 in that too), so every backend computes with the
same numbers and only its arithmetic differs. The logits are those of models *reloaded* from the written files, in fp32.
Nothing is downloaded.
"""

import json
import math
import pathlib
import shutil
import warnings

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
VOCAB = 97
GENERATED = 8
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

SHAPE = dict(
    vocab_size=VOCAB, hidden_size=64, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    attn_implementation="eager",
)

# Names are those of the folders; each value is a config, and how the folder is written.
MODELS = {
    "llama": dict(
        config=transformers.LlamaConfig(**SHAPE, tie_word_embeddings=False, rms_norm_eps=1e-5),
        shard_bytes=100_000,
    ),
    # rope scaling in the form in which Llama 3.1 is published; the original length is short, so that it matters here.
    "llama31": dict(
        config=transformers.LlamaConfig(**{**SHAPE, "num_hidden_layers": 3}, tie_word_embeddings=True,
                                        rms_norm_eps=1e-5),
        edit=dict(
            rope_theta=500000.0,
            rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                              original_max_position_embeddings=64),
        ),
        drop=["rope_parameters"],
    ),
    "mistral": dict(
        config=transformers.MistralConfig(**SHAPE, sliding_window=8, tie_word_embeddings=False, rms_norm_eps=1e-5),
    ),
    "qwen2": dict(
        config=transformers.Qwen2Config(**SHAPE, tie_word_embeddings=True, rms_norm_eps=1e-6),
    ),
    # heads * head_dim is not the hidden size.
    "qwen3": dict(
        config=transformers.Qwen3Config(**SHAPE, head_dim=32, tie_word_embeddings=False, rms_norm_eps=1e-6),
    ),
}

# LoraConfig arguments, the file's dtype, and for which models the adapter is made (all unless named).
ADAPTERS = {
    "attention_r1": dict(lora=dict(r=1, lora_alpha=2, target_modules=["q_proj", "v_proj"])),
    "all_r8": dict(lora=dict(r=8, lora_alpha=16, target_modules=ATTENTION + MLP)),
    "mlp_r3": dict(lora=dict(r=3, lora_alpha=4, target_modules=MLP), dtype=torch.float32),
    "all_r64_rslora": dict(
        lora=dict(r=64, lora_alpha=32, use_rslora=True, target_modules=ATTENTION + MLP), models=["llama"]),
    "all_r64": dict(lora=dict(r=64, lora_alpha=32, target_modules=ATTENTION + MLP), models=["qwen2"]),
    "head_r4": dict(
        lora=dict(r=4, lora_alpha=8, target_modules=["o_proj", "down_proj", "lm_head"]),
        models=["llama", "mistral", "qwen3"]),
    "head_only_r2": dict(lora=dict(r=2, lora_alpha=2, target_modules=["lm_head"]), models=["llama31", "qwen2"]),
    "patterns": dict(
        lora=dict(
            r=4, lora_alpha=8, target_modules=r".*\.(self_attn\.(q|k|o)_proj|mlp\.(gate|down)_proj)",
            rank_pattern={r"layers\.1\.self_attn\.(q|k)_proj": 7, "down_proj": 2,
                          r"^model\.layers\.0\.mlp\.gate_proj": 17},
            alpha_pattern={"k_proj": 3, r".*layers\.0.*down_proj": 1},
            use_rslora=True),
        dtype=torch.float16, models=["llama", "mistral", "qwen3"]),
    "last_layer_r5": dict(
        lora=dict(r=5, lora_alpha=20, target_modules=["v_proj", "up_proj"], layers_to_transform=[1],
                  layers_pattern="layers"),
        models=["llama", "llama31", "qwen2"]),
}


def as_bf16(tensor):
    return tensor.to(torch.bfloat16).to(torch.float32)


def redraw_model(model, generator):
    """Random weights at which attention is neither flat nor one-hot, and every bias and norm matters."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name:
            value = 1.0 + 0.2 * noise
        elif name.endswith("bias"):
            value = 0.5 * noise
        elif "embed_tokens" in name:
            value = noise / 2
        else:
            gain = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
            value = gain * noise / math.sqrt(p.shape[1])
        p.data.copy_(as_bf16(value))


def write_model(spec, folder, generator):
    model = transformers.AutoModelForCausalLM.from_config(spec["config"]).float().eval()
    redraw_model(model, generator)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=spec.get("shard_bytes", "1GB"))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key in spec.get("drop", []):
        config.pop(key)
    config.update(spec.get("edit", {}))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_model(folder, dtype=torch.float32):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager").eval()


def load_adapted(folder, adapter, dtype=torch.float32):
    base = load_model(folder, dtype)
    return peft.PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False).to(dtype).eval()


@torch.no_grad()
def logits_of(model, tokens):
    return model(input_ids=torch.tensor([tokens])).logits[0].float()


def effect(adapted, base):
    return ((adapted - base).norm() / base.norm()).item()


def redraw_adapter(model, scale, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" not in name:
            continue
        noise = torch.randn(p.shape, generator=generator)
        value = as_bf16(noise / math.sqrt(p.shape[1]) if "lora_A" in name else noise * scale)
        p.data.copy_(value.to(dtype).to(torch.float32))


def write_adapter(name, spec, model_folder, folder, probe, seed):
    """Draws factors whose effect on the logits is large, but not so large that the model's own part is lost in it."""
    base = logits_of(load_model(model_folder), probe)
    dtype = spec.get("dtype", torch.bfloat16)
    config = peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, lora_dropout=0.0, **spec["lora"])
    model = peft.get_peft_model(load_model(model_folder), config).eval()
    scale = 1 / 512
    while True:
        redraw_adapter(model, scale, dtype, seed)
        if effect(logits_of(model, probe), base) > 0.3:
            break
        scale *= 1.5
    model.peft_config["default"].base_model_name_or_path = f"lorad/tiny-{model_folder.parent.name}"
    # PEFT would put a copy of the base model's head into the file of an adapter on lm_head.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    weights = folder / "adapter_model.safetensors"
    save_file({k: v.to(dtype).contiguous() for k, v in load_file(weights).items()}, weights)
    config_path = folder / "adapter_config.json"
    config = json.loads(config_path.read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()  # PEFT keeps them in a set
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def continue_greedily(model, tokens):
    tokens = list(tokens)
    for _ in range(GENERATED):
        tokens.append(int(logits_of(model, tokens)[-1].argmax()))
    return tokens


def bf16_errors(model_folder, adapter, tokens, adapted, base):
    """How far transformers + PEFT in bfloat16 are from themselves in fp32, for judging the bounds of the tests."""
    half = logits_of(load_adapted(model_folder, adapter, torch.bfloat16), tokens)
    half_base = logits_of(load_model(model_folder, torch.bfloat16), tokens)
    worst_row = ((half - adapted).norm(dim=1) / adapted.norm(dim=1)).max()
    effect_error = ((half - half_base) - (adapted - base)).norm() / (adapted - base).norm()
    return f"in bf16: worst row {worst_row:.1e}, effect {effect_error:.1e}"


def write_golden(model_folder, adapters, path, generator):
    tensors = {}
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}"
    base_model = load_model(model_folder)
    for i, folder in enumerate(adapters):
        prompt = torch.randint(3, VOCAB, (17 + 4 * i,), generator=generator).tolist()
        adapted_model = load_adapted(model_folder, folder)
        tokens = continue_greedily(adapted_model, prompt)
        adapted, base = logits_of(adapted_model, tokens), logits_of(base_model, tokens)
        assert effect(adapted, base) > 0.1, (folder, effect(adapted, base))
        print(f"{folder.parent.parent.name:8} {folder.name:16} tokens {len(tokens):2}  "
              f"effect {effect(adapted, base):.3f}  logit rms {adapted.pow(2).mean().sqrt():.2f}  "
              f"{bf16_errors(model_folder, folder, tokens, adapted, base)}")
        tensors[f"tokens.{folder.name}"] = torch.tensor(tokens, dtype=torch.int32)
        tensors[f"logits.{folder.name}"] = adapted.contiguous()
        tensors[f"base.{folder.name}"] = base.contiguous()
        tensors[f"prompt.{folder.name}"] = torch.tensor([len(prompt)], dtype=torch.int32)
    save_file(tensors, path, metadata={"made_with": versions})


def main():
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message="Could not find a config file")  # there is no hub to ask
    for index, (name, spec) in enumerate(MODELS.items()):
        generator = torch.Generator().manual_seed(1000 + index)
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        write_model(spec, folder / "model", generator)
        probe = torch.randint(3, VOCAB, (24,), generator=generator).tolist()
        adapters = []
        for number, (adapter, adapter_spec) in enumerate(ADAPTERS.items()):
            if name not in adapter_spec.get("models", MODELS):
                continue
            adapters.append(folder / "adapters" / adapter)
            write_adapter(adapter, adapter_spec, folder / "model", adapters[-1], probe, 100 * index + number)
        write_golden(folder / "model", adapters, folder / "golden.safetensors", generator)


if __name__ == "__main__":
    main()
