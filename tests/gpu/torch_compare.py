"""Times what PyTorch (and vLLM's Triton LoRA kernels, where they are installed) does at the shapes of bench_cuda:
linear layers of Llama 3 8B, and a low-rank correction with D distinct adapters. Same rules: CUDA graphs, cold weights,
best of several runs. Prints a table; --json writes the figures.
"""

import argparse
import json
import time

import torch

LAYERS = {"qkv": (6144, 4096), "output": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}
MODULES = {"qkv": [4096, 1024, 1024], "output": [4096], "gate_up": [14336, 14336], "down": [4096]}


def best_seconds(call, calls):
    """Seconds of one call(i): the best graph run of i = 0 .. calls - 1."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(calls):
            call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            call(i)
    best = float("inf")
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best / calls


def linear_cases():
    for name, (outputs, inputs) in LAYERS.items():
        copies = max(2, min(16, 256 * 2**20 // (outputs * inputs * 2) + 1))
        weights = [torch.randn(outputs, inputs, dtype=torch.bfloat16, device="cuda") for _ in range(copies)]
        for rows in (1, 4, 8, 16, 32, 64, 128, 512, 2048):
            x = torch.randn(rows, inputs, dtype=torch.bfloat16, device="cuda")
            seconds = best_seconds(lambda i: torch.nn.functional.linear(x, weights[i % copies]), copies)
            yield f"torch linear {name} rows {rows}", seconds, outputs * inputs * 2


def gathered_cases():
    """S-LoRA's idea in PyTorch: gather each row's factors, two batched products."""
    for name, (_, inputs) in LAYERS.items():
        for rank in (8, 16, 64):
            for adapters in (1, 8, 32):
                sets = max(2, min(32, int(256e6 / (adapters * 2 * rank * (inputs + sum(MODULES[name]))))))
                a = [torch.randn(adapters, rank * len(MODULES[name]), inputs, dtype=torch.bfloat16, device="cuda")
                     for _ in range(sets)]
                b = [[torch.randn(adapters, rank, out, dtype=torch.bfloat16, device="cuda") for out in MODULES[name]]
                     for _ in range(sets)]
                x = torch.randn(adapters, 1, inputs, dtype=torch.bfloat16, device="cuda")
                y = torch.zeros(adapters, 1, sum(MODULES[name]), dtype=torch.bfloat16, device="cuda")

                def call(i):
                    v = torch.bmm(x, a[i % sets].transpose(1, 2)).split(rank, dim=2)
                    begin = 0
                    for part, factor in zip(v, b[i % sets]):
                        end = begin + factor.shape[2]
                        y[:, :, begin:end].baddbmm_(part, factor)
                        begin = end

                size = adapters * 2 * rank * (len(MODULES[name]) * inputs + sum(MODULES[name]))
                yield f"torch bmm {name} rank {rank} adapters {adapters}", best_seconds(call, sets), size


def vllm_cases():
    """vLLM's shrink and expand, if vLLM is installed; its slots hold one rank for all."""
    try:
        from vllm.lora.ops.triton_ops import LoRAKernelMeta, lora_expand, lora_shrink
    except ImportError:
        return
    for name, (outputs, inputs) in LAYERS.items():
        parts = MODULES[name]
        for rank in (16, 64):
            for adapters in (1, 8, 32):
                a = [torch.randn(adapters, rank, inputs, dtype=torch.bfloat16, device="cuda") for _ in parts]
                b = [torch.randn(adapters, out, rank, dtype=torch.bfloat16, device="cuda") for out in parts]
                x = torch.randn(adapters, inputs, dtype=torch.bfloat16, device="cuda")
                v = torch.zeros(len(parts), adapters, rank, dtype=torch.float32, device="cuda")
                y = torch.zeros(adapters, outputs, dtype=torch.bfloat16, device="cuda")
                meta = LoRAKernelMeta.make(max_loras=adapters, max_num_tokens=adapters, device="cuda")
                meta.prepare_tensors(torch.arange(adapters, device="cuda"))

                def call(_):
                    lora_shrink(x, a, v, *meta.meta_args(adapters), 1.0)
                    lora_expand(v, b, y, *meta.meta_args(adapters), offset_start=0, add_inputs=True)

                size = adapters * 2 * rank * (len(parts) * inputs + sum(parts))
                yield f"vllm lora {name} rank {rank} adapters {adapters}", best_seconds(call, 4), size


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="write the figures to this file")
    args = parser.parse_args()
    results = []
    for cases in (linear_cases, gathered_cases, vllm_cases):
        try:
            for name, seconds, size in cases():
                results.append({"name": name, "us": seconds * 1e6, "gb_per_s": size / seconds * 1e-9})
                print(f"{name:<48} {seconds * 1e6:9.2f} us {size / seconds * 1e-9:9.0f} GB/s", flush=True)
        except Exception as error:  # an installed library of another version is no reason to lose the rest
            print(f"{cases.__name__}: {error}", flush=True)
    if args.json:
        with open(args.json, "w") as out:
            json.dump(results, out, indent=1)


if __name__ == "__main__":
    main()
