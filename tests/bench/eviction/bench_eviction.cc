#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "tests/bench/eviction/replay.h"
#include "tests/bench/eviction/trace.h"

namespace lorad::bench {
namespace {

// Llama-3-8B in bf16 on an H100: 0.64 us a token and layer, PCIe gen5 at 55 GB/s, pages of 2 MiB,
// adapters on all seven projections (84 MB at rank 16: 2.5 pages a rank).
constexpr Machine kH100{"H100", 32 * 0.64e-6, 2097152 / 55e9, 0.025, 2.5};
// The 100 M model of docs/benchmarks on 2 cores: ...
constexpr Machine kCpu{"CPU", 0.7e-3, 393216 / 1e9, 0.030, 5.21e6 / 16 / 393216};

struct Case {
  std::string name;
  const Machine* machine;
  uint32_t pages;
  std::vector<TracedRequest> trace;
};

void Run(const Case& c) {
  std::vector<Policy> policies = {
      {.name = "unified"},
      {.name = "shared LRU", .lru = true},
      {.name = "split 10/90 LRU", .lru = true, .adapter_share = 0.1},
      {.name = "split 30/70 LRU", .lru = true, .adapter_share = 0.3},
      {.name = "split 50/50 LRU", .lru = true, .adapter_share = 0.5},
      {.name = "drop at once", .drop_at_once = true},
  };
  if (getenv("ONLY")) policies.resize(1);
  const Result best = Replay(c.trace, *c.machine, 4'000'000, {.name = "unbounded", .lru = true});
  if (!getenv("ONLY")) fmt::print(
      "\n{} ({} requests, {} pages; with an endless pool: hit {:.2f} {:.2f}, load {:.2f} s, "
      "prefill {:.2f} s)\n",
      c.name, c.trace.size(), c.pages, double(best.adapter_hits) / best.adapter_lookups,
      double(best.hit_tokens) / best.prompt_tokens, best.load_s, best.prefill_s);
  double ours = 0;
  for (const Policy& policy : policies) {
    if (std::lround(c.pages * policy.adapter_share) != 0 &&
        std::lround(c.pages * policy.adapter_share) <
            std::ceil(64 * c.machine->adapter_pages_per_rank))
      continue;
    const Result r = Replay(c.trace, *c.machine, c.pages, policy);
    const double reload = r.load_s - best.load_s, recompute = r.prefill_s - best.prefill_s;
    if (ours == 0) ours = reload + recompute;
    if (getenv("ONLY")) fmt::print("{},{:.2f}\n", c.name, reload + recompute); else fmt::print(
        "  {:<16} adapters {:5.3f}  tokens {:5.3f}  reload {:8.2f}  recompute {:8.2f}  total "
        "{:8.2f}  x {:6.2f}  wait {:.0f}\n",
        policy.name, double(r.adapter_hits) / r.adapter_lookups,
        double(r.hit_tokens) / r.prompt_tokens, reload, recompute, reload + recompute,
        (reload + recompute) / ours, r.wait_s);
  }
}

void Main() {
  for (const Machine* m : {&kH100, &kCpu}) {
    const bool h = m == &kH100;
    const double rate = h ? 8 : 2;
    for (const bool tight : {true, false}) {
      const uint32_t pages = h ? (tight ? 6000u : 16000u) : (tight ? 1200u : 3500u);
      for (const double alpha : {0.1, 0.3, 1.0}) {
        TraceOptions o{.arrivals = {.adapters = h ? 400 : 100,
                                    .alpha = alpha,
                                    .rate = rate,
                                    .duration_s = 600,
                                    .input = {8, 512},
                                    .output = {8, 512}}};
        if (!h) o.arrivals.output = {8, 256};
        Run({fmt::format("{} {} S-LoRA alpha {}", m->name, tight ? "tight" : "loose", alpha), m,
             pages, MakeTrace(o, m->step_s)});
        o.system_tokens = 400;
        o.conversations = 0.25;
        o.scans = 0.05;
        o.arrivals.rate = rate / 2;
        Run({fmt::format("{} {} mixed alpha {}", m->name, tight ? "tight" : "loose", alpha), m,
             pages, MakeTrace(o, m->step_s)});
      }
      for (double alpha : {0.1, 0.3}) {
        TraceOptions o{.arrivals = {.adapters = h ? 400 : 100, .alpha = alpha, .rate = rate, .duration_s = 400, .input={8,512}, .output={8,h?512:256}}};
        TraceOptions o2 = o; o2.system_tokens=400; o2.conversations = 0.25; o2.scans = 0.05; o2.arrivals.rate = rate/2; o2.arrivals.seed = 7;
        Run({fmt::format("{} {} late mixed {}", m->name, tight ? "tight" : "loose", alpha), m, pages, Shift(o, o2, m->step_s)});
        o2.system_tokens = 0; o2.scans = 0; o2.conversations = 0.5; o2.arrivals.rate = rate/4;
        Run({fmt::format("{} {} late conv {}", m->name, tight ? "tight" : "loose", alpha), m, pages, Shift(o, o2, m->step_s)});
      }
      TraceOptions first{.arrivals = {.adapters = h ? 400 : 100,
                                      .alpha = 1,
                                      .rate = rate,
                                      .duration_s = 300,
                                      .input = {8, 128},
                                      .output = {8, 128}}};
      TraceOptions second{.arrivals = {.adapters = h ? 20 : 10,
                                       .alpha = 1,
                                       .rate = rate / 4,
                                       .duration_s = 300,
                                       .input = {8, 512},
                                       .output = {8, 256}}};
      second.system_tokens = 400;
      second.conversations = 0.8;
      second.more_turns = 0.85;
      Run({fmt::format("{} {} shift", m->name, tight ? "tight" : "loose"), m, pages,
           Shift(first, second, m->step_s)});
    }
  }
}

}  // namespace
}  // namespace lorad::bench

int main() { lorad::bench::Main(); }
