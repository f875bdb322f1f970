#include "tests/simulation/evidence/hardships.h"

#include <algorithm>
#include <utility>

namespace lorad::sim {
namespace {

constexpr double kSeconds = 120;  // of arrivals
constexpr double kGap = 0.015;    // seconds between tokens, where there is an objective

using Pick = std::function<bool(const SimRequest&)>;

// Of the first tokens of the requests that are picked, seconds.
Spread FirstTokens(const Measured& m, const std::vector<SimRequest>& requests, const Pick& pick) {
  std::vector<float> ttft_s;
  for (size_t i = 0; i < m.result.offered; ++i) {
    const RequestRecord& record = m.result.measurements.records()[i];
    if (record.ttft_s >= 0 && pick(requests[i])) ttft_s.push_back(record.ttft_s);
  }
  return SpreadOf(&ttft_s);
}

Figure FirstToken(const std::string& whose, const char* which, double Spread::*figure, Pick pick) {
  return {whose + " first token, " + which + " s",
          [figure, pick = std::move(pick)](const Measured& m, const std::vector<SimRequest>& r) {
            return FirstTokens(m, r, pick).*figure;
          }};
}

bool Any(const SimRequest&) { return true; }
bool OfFlood(const SimRequest& r) { return r.tenant == 0; }
bool OfOthers(const SimRequest& r) { return r.tenant != 0; }
bool OnHot(const SimRequest& r) { return r.adapter == 0; }
bool OnCold(const SimRequest& r) { return r.adapter != 0; }
bool IsLarge(const SimRequest& r) { return r.prompt_tokens > 4096; }

Figure Mean() { return FirstToken("all:", "mean", &Spread::mean, Any); }

Figure OfClass(Priority priority, const char* which, double Spread::*figure) {
  const char* const names[kPriorities] = {"interactive:", "standard:", "batch:"};
  return FirstToken(names[static_cast<size_t>(priority)], which, figure,
                    [priority](const SimRequest& r) { return r.priority == priority; });
}

Figure Request() {
  return {"a request, mean s", [](const Measured& m, const std::vector<SimRequest>&) {
            return m.summary.request_s.mean;
          }};
}

Figure Pause() {
  return {"longest pause of an answer, p99 s",
          [](const Measured& m, const std::vector<SimRequest>&) {
            std::vector<float> pauses;
            for (const RequestRecord& r : m.result.measurements.records()) {
              if (r.ttft_s >= 0) pauses.push_back(r.gap_max_s);
            }
            return SpreadOf(&pauses).p99;
          }};
}

Figure Preemptions() {
  return {"preemptions of one request, most",
          [](const Measured& m, const std::vector<SimRequest>&) {
            int most = 0;
            for (const RequestRecord& r : m.result.measurements.records()) {
              most = std::max(most, r.preemptions);
            }
            return static_cast<double>(most);
          }};
}

Figure LoadsPerRequest() {
  return {"loads a request", [](const Measured& m, const std::vector<SimRequest>& r) {
            return static_cast<double>(m.summary.loads) / static_cast<double>(r.size());
          }};
}

SimulationOptions Tight(uint32_t pages, std::vector<int> ranks = {8, 16, 32, 64}) {
  SimulationOptions options = Machine();
  options.server.ranks = std::move(ranks);
  options.server.pages = pages;
  options.server.engine.policy.reserve_pages = pages / 100;
  return options;
}

SimulationOptions WithPlaces(SimulationOptions options, int places) {
  options.server.engine.policy.max_sequences = places;
  return options;
}

SimulationOptions PromptOnly(SimulationOptions options) {
  options.server.engine.policy.admission = AdmissionMode::kPromptOnly;
  return options;
}

// So many adapters of rank 64 in a step.
SimulationOptions WithSlots(int slots) {
  SimulationOptions options = Tight(20000, {64});
  options.server.engine.policy.max_adapter_bytes =
      static_cast<uint64_t>(slots) * options.server.cost.AdapterBytes(64);
  return options;
}

StreamOptions Stream(double rate, Priority priority, uint32_t seed) {
  return {.arrivals = {.adapters = 100, .rate = rate, .duration_s = kSeconds, .seed = seed},
          .priority = priority};
}

std::vector<SimRequest> Merged(std::vector<StreamOptions> streams) {
  Workload workload;
  workload.streams = std::move(streams);
  return *MakeRequests(workload);
}

std::vector<SimRequest> FloodOfLongOutputs() {
  Workload workload = *MakeWorkload("flood", {.rate = 65, .duration_s = 30, .adapters = 40});
  workload.streams[0].arrivals.output = {1000, 2000};
  return *MakeRequests(workload);
}

std::vector<SimRequest> LargeAmongSmall() {
  StreamOptions small = Stream(45, Priority::kStandard, 42);
  small.arrivals.adapters = 4;
  small.arrivals.input = small.arrivals.output = {8, 256};
  StreamOptions large = Stream(0.2, Priority::kStandard, 7);
  large.arrivals.adapters = 4;
  large.arrivals.input = {8192, 8193};
  large.arrivals.output = {64, 65};
  return Merged({small, large});
}

std::vector<SimRequest> LongOutputs(double slack) {
  return Requests("slora", {.rate = 12,
                            .duration_s = kSeconds,
                            .adapters = 20,
                            .input = {8, 512},
                            .output = {256, 1024},
                            .slack = slack});
}

std::vector<Hardship> OfTenantsAndClasses() {
  return {
      {"flood",
       "four tenants, the first sends ten times what each other one does, 1.4 times what the "
       "machine can do",
       Machine(),
       Requests("flood", {.rate = 65, .duration_s = kSeconds, .adapters = 40}),
       {FirstToken("others:", "p99", &Spread::p99, OfOthers),
        FirstToken("flooding tenant:", "mean", &Spread::mean, OfFlood)}},
      {"flood of long outputs",
       "the same for 30 s, and the flooding outputs are 1000 to 1999 tokens",
       Machine(),
       FloodOfLongOutputs(),
       {FirstToken("others:", "p99", &Spread::p99, OfOthers),
        FirstToken("flooding tenant:", "mean", &Spread::mean, OfFlood)}},
      {"classes",
       "a fifth interactive, two fifths standard, two fifths batch, 1.4 times what the machine can "
       "do",
       Machine(),
       Requests("priorities", {.rate = 65, .duration_s = kSeconds}),
       {OfClass(Priority::kInteractive, "p99", &Spread::p99),
        OfClass(Priority::kBatch, "p99", &Spread::p99)}},
      {"urgent crowd",
       "interactive requests alone are more than the machine can do; 4 batch a second",
       Machine(),
       Merged({Stream(60, Priority::kInteractive, 42), Stream(4, Priority::kBatch, 7)}),
       {OfClass(Priority::kBatch, "p99", &Spread::p99)}},
      {"standard crowd",
       "standard ones alone are more than the machine can do, none is interactive; a batch request "
       "every 10 s",
       Machine(),
       Merged({Stream(60, Priority::kStandard, 42), Stream(0.1, Priority::kBatch, 7)}),
       {OfClass(Priority::kStandard, "mean", &Spread::mean),
        OfClass(Priority::kBatch, "longest", &Spread::max)}}};
}

// Batch work of long outputs has every place when somebody urgent comes.
std::vector<SimRequest> UrgentAmongBatch() {
  StreamOptions batch = Stream(30, Priority::kBatch, 42);
  batch.arrivals.output = {1000, 2000};
  return Merged({batch, Stream(2, Priority::kInteractive, 7)});
}

// Every tenth client reads every two seconds.
std::vector<SimRequest> SlowReaders() {
  StreamOptions some = Stream(14, Priority::kStandard, 42);
  some.slow_share = 0.1;
  some.read_every_s = 2;
  return Merged({some});
}
bool ReadsWell(const SimRequest& r) { return r.read_every_s == 0; }

// Of the requests whose tokens came, on average, further apart than the objective says.
Figure TooFarApart() {
  return {"tokens too far apart, % of requests",
          [](const Measured& m, const std::vector<SimRequest>&) {
            double late = 0, all = 0;
            for (const RequestRecord& r : m.result.measurements.records()) {
              if (r.ttft_s < 0) continue;
              ++all;
              late += r.gap_mean_s > kGap ? 1 : 0;
            }
            return 100 * late / all;
          }};
}

std::vector<Hardship> OfPlaces() {
  return {{"batch everywhere",
           "batch outputs of 1000 to 1999 tokens, more than the machine can do, and 2 interactive "
           "requests a second",
           Machine(),
           UrgentAmongBatch(),
           {OfClass(Priority::kInteractive, "p99", &Spread::p99),
            OfClass(Priority::kBatch, "mean", &Spread::mean)}},
          {"slow readers",
           "32 places; every tenth client reads every two seconds",
           WithPlaces(Machine(), 32),
           SlowReaders(),
           {FirstToken("the others:", "mean", &Spread::mean, ReadsWell)}},
          {"objective",
           "*flood* in steps of up to 1024 tokens, chunks of 512, and an objective of 15 ms "
           "between tokens",
           WithGap(LargeSteps(Machine()), kGap),
           Requests("flood", {.rate = 65, .duration_s = kSeconds, .adapters = 40}),
           {TooFarApart(), FirstToken("others:", "p99", &Spread::p99, OfOthers), Request()}}};
}

std::vector<Hardship> OfAdapters() {
  return {
      {"hot adapter",
       "twelve adapters of 336 MB, nine of ten requests on the first, and a pool for two or three",
       Tight(600, {64}),
       Requests("hot", {.rate = 16,
                        .duration_s = kSeconds,
                        .adapters = 12,
                        .input = {8, 256},
                        .output = {8, 256},
                        .tenants = 1}),
       {Mean(), FirstToken("hot adapter:", "mean", &Spread::mean, OnHot),
        FirstToken("cold ones:", "longest", &Spread::max, OnCold)}},
      {"slots",
       "six adapters, all wanted all the time, and at most three in a step",
       WithSlots(3),
       Requests("slora", {.rate = 14, .duration_s = kSeconds, .adapters = 6}),
       {Mean(), FirstToken("all:", "longest", &Spread::max, Any)}},
      {"few places",
       "32 places, always full, 200 adapters of 336 MB and a pool for some thirty",
       WithPlaces(Tight(6000, {64}), 32),
       Requests("slora", {.rate = 12, .duration_s = kSeconds, .adapters = 200, .alpha = 0.5}),
       {Mean(), LoadsPerRequest()}},
      {"2,000 adapters",
       "a full machine",
       Machine(),
       Requests("slora", {.rate = 40, .duration_s = kSeconds, .adapters = 2000}),
       {Mean()}}};
}

std::vector<Hardship> OfMemory() {
  return {{"large among small",
           "prompts of 8192 tokens every 5 s among small ones that fill a pool for 12800 tokens",
           Tight(800, {8}),
           LargeAmongSmall(),
           {Mean(), FirstToken("large ones:", "longest", &Spread::max, IsLarge)}},
          {"long outputs",
           "256 to 1023 tokens, more than the pool holds; clients ask for what they use",
           Tight(4000),
           LongOutputs(0),
           {Request(), FirstToken("all:", "longest", &Spread::max, Any), Pause()}},
          {"long outputs, half used",
           "the same, and clients ask for twice what they use",
           Tight(4000),
           LongOutputs(1),
           {Request(), Pause()}},
          {"long outputs, prompt-only",
           "as *long outputs*, all with `--admission prompt-only`",
           PromptOnly(Tight(4000)),
           LongOutputs(0),
           {Request(), Pause(), Preemptions()}},
          {"bursts",
           "5 times as many arrivals for 5 s of each 30 s",
           Machine(),
           Requests("bursts", {.rate = 40, .duration_s = kSeconds}),
           {FirstToken("all:", "p99", &Spread::p99, Any)}}};
}

}  // namespace

std::vector<Hardship> Hardships() {
  std::vector<Hardship> all = OfTenantsAndClasses();
  for (auto of : {OfPlaces, OfAdapters, OfMemory}) {
    for (Hardship& h : of()) all.push_back(std::move(h));
  }
  return all;
}

}  // namespace lorad::sim
