#include "tests/simulation/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "absl/strings/str_join.h"

namespace lorad::sim {
namespace {

constexpr double kFlood = 10;  // times what each other tenant sends

// Uniform in [0, 1), the same on every machine (the standard's distributions are not).
double Draw(std::mt19937_64* random) { return static_cast<double>((*random)() >> 11) * 0x1.0p-53; }

// Time runs so that the first `burst_s` of each period take in their larger part of the arrivals.
double WithBursts(const StreamOptions& o, double t) {
  if (o.burst_every_s <= 0 || o.burst_s <= 0 || o.burst_s >= o.burst_every_s) return t;
  const double calm_s = o.burst_every_s - o.burst_s;
  const double in_burst =
      o.burst_every_s * o.burst_factor * o.burst_s / (o.burst_factor * o.burst_s + calm_s);
  const double period = std::floor(t / o.burst_every_s) * o.burst_every_s;
  const double within = t - period;
  return period + (within < in_burst
                       ? within / in_burst * o.burst_s
                       : o.burst_s + (within - in_burst) / (o.burst_every_s - in_burst) * calm_s);
}

void AddStream(const StreamOptions& o, size_t number, std::vector<SimRequest>* all) {
  std::mt19937_64 random(o.arrivals.seed * 1000003ull + number);
  std::mt19937_64 readers(~(o.arrivals.seed * 1000003ull + number));
  for (const bench::PlannedRequest& planned : bench::OpenLoopTrace(o.arrivals)) {
    SimRequest r;
    r.start_s = o.start_s + WithBursts(o, planned.start_s);
    // The draws are made whether they are used or not, so that an option changes only its own.
    const double base = Draw(&random), tenant = Draw(&random), shared = Draw(&random);
    const double cancel = Draw(&random), cancel_after = Draw(&random);
    r.adapter = base < o.base_share ? -1 : o.first_adapter + planned.adapter;
    r.tenant = o.first_tenant + static_cast<int>(tenant * o.tenants);
    r.shared_tokens = shared < o.shared_share ? o.shared_tokens : 0;
    r.prompt_tokens = r.shared_tokens + planned.input_tokens;
    r.output_tokens = planned.output_tokens;
    r.max_tokens = static_cast<int>(std::ceil(planned.output_tokens * (1 + o.slack)));
    r.priority = o.priority;
    if (cancel < o.cancel_share) r.cancel_s = r.start_s + cancel_after * o.cancel_within_s;
    if (r.start_s <= o.cancel_all_s) r.cancel_s = std::min(r.cancel_s, o.cancel_all_s);
    if (Draw(&readers) < o.slow_share) r.read_every_s = o.read_every_s;
    if (o.deadline_s != kNever) r.deadline_s = r.start_s + o.deadline_s;
    all->push_back(r);
  }
}

StreamOptions Plain(const WorkloadKnobs& k, double rate, uint32_t number) {
  return {.arrivals = {.adapters = k.adapters,
                       .alpha = k.alpha,
                       .rate = rate,
                       .cv = k.cv,
                       .duration_s = k.duration_s,
                       .input = k.input,
                       .output = k.output,
                       .seed = k.seed + number * 7919},
          .slack = k.slack,
          .deadline_s = k.deadline_s};
}

// One stream a tenant, on adapters of its own; the first tenant sends kFlood times the others'
// requests.
void Flood(const WorkloadKnobs& k, Workload* w) {
  const int each = std::max(1, k.adapters / k.tenants);
  const double rate = k.rate / (kFlood + k.tenants - 1);
  for (int t = 0; t < k.tenants; ++t) {
    StreamOptions o = Plain(k, t == 0 ? kFlood * rate : rate, static_cast<uint32_t>(t));
    o.arrivals.adapters = each;
    o.first_adapter = t * each;
    o.first_tenant = t;
    w->streams.push_back(o);
  }
}

// Adapter 0 is always wanted by somebody who has just come; the others by few.
void Hot(const WorkloadKnobs& k, Workload* w) {
  StreamOptions hot = Plain(k, 0.9 * k.rate, 0);
  hot.arrivals.adapters = 1;
  StreamOptions others = Plain(k, 0.1 * k.rate, 1);
  others.first_adapter = 1;
  others.arrivals.adapters = std::max(1, k.adapters - 1);
  others.first_tenant = 1;
  w->streams = {hot, others};
}

void Priorities(const WorkloadKnobs& k, Workload* w) {
  const double shares[kPriorities] = {0.2, 0.4, 0.4};
  for (int p = 0; p < kPriorities; ++p) {
    StreamOptions o = Plain(k, shares[p] * k.rate, static_cast<uint32_t>(p));
    o.priority = static_cast<Priority>(p);
    w->streams.push_back(o);
  }
}

}  // namespace

int Workload::adapters() const {
  int n = 0;
  for (const StreamOptions& o : streams) n = std::max(n, o.first_adapter + o.arrivals.adapters);
  return n;
}

int Workload::tenants() const {
  int n = 1;
  for (const StreamOptions& o : streams) n = std::max(n, o.first_tenant + o.tenants);
  return n;
}

double Workload::duration_s() const {
  double end = 0;
  for (const StreamOptions& o : streams) end = std::max(end, o.start_s + o.arrivals.duration_s);
  return end;
}

absl::StatusOr<std::vector<SimRequest>> MakeRequests(const Workload& workload) {
  std::vector<SimRequest> all;
  for (size_t i = 0; i < workload.streams.size(); ++i) {
    const StreamOptions& o = workload.streams[i];
    if (absl::Status status = bench::Validate(o.arrivals); !status.ok()) return status;
    AddStream(o, i, &all);
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const SimRequest& a, const SimRequest& b) { return a.start_s < b.start_s; });
  return all;
}

std::vector<WorkloadName> WorkloadNames() {
  return {
      {"slora", "S-LoRA's: power-law popularity, Gamma gaps, one tenant"},
      {"bursts", "the same, 5 times as fast for 5 s of each 30 s"},
      {"flood", "tenants on adapters of their own, the first sends 10 times what each other does"},
      {"hot", "an adversary keeps adapter 0 hot: 9 of 10 requests, the others spread"},
      {"cancel", "a fifth of the clients leaves early, and halfway all at once"},
      {"shared", "3 of 4 prompts begin with their adapter's system prompt of 400 tokens"},
      {"priorities", "a fifth interactive, two fifths standard, two fifths batch"}};
}

absl::StatusOr<Workload> MakeWorkload(std::string_view name, const WorkloadKnobs& k) {
  Workload w;
  for (const WorkloadName& known : WorkloadNames()) {
    if (name == known.name) w.explanation = known.explanation;
  }
  w.name = std::string(name);
  if (k.tenants < 1) return absl::InvalidArgumentError("--tenants: at least 1");
  if (name == "flood") {
    Flood(k, &w);
  } else if (name == "hot") {
    Hot(k, &w);
  } else if (name == "priorities") {
    Priorities(k, &w);
  } else if (!w.explanation.empty()) {
    StreamOptions o = Plain(k, k.rate, 0);
    o.tenants = name == "slora" ? 1 : k.tenants;
    if (name == "bursts") {
      o.burst_every_s = 30;
      o.burst_s = 5;
      o.burst_factor = 5;
    } else if (name == "cancel") {
      o.cancel_share = 0.2;
      o.cancel_all_s = k.duration_s / 2;
    } else if (name == "shared") {
      o.shared_share = 0.75;
      o.shared_tokens = 400;
    }
    w.streams = {o};
  } else {
    std::vector<std::string> names;
    for (const WorkloadName& known : WorkloadNames()) names.push_back(known.name);
    return absl::NotFoundError(
        fmt::format("there is no workload \"{}\"; there are {}", name, absl::StrJoin(names, ", ")));
  }
  return w;
}

}  // namespace lorad::sim
