#include "tests/simulation/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace lorad::sim {
namespace {

constexpr const char* kOutcomeNames[kOutcomes] = {"pending",   "finished", "refused",
                                                  "cancelled", "deadline", "failed"};

double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }

Spread GapSpread(const LogHistogram& gaps) {
  return {.p50 = gaps.Percentile(0.5),
          .p90 = gaps.Percentile(0.9),
          .p99 = gaps.Percentile(0.99),
          .max = gaps.max()};
}

// Requests of one tenant, or of all.
struct Tally {
  size_t offered = 0, finished = 0, kept = 0, stayed = 0, refused = 0;
  std::vector<float> ttft_s;

  void Add(const RequestRecord& record, const Objective& objective) {
    ++offered;
    finished += record.outcome == Outcome::kFinished ? 1 : 0;
    kept += Keeps(record, objective) ? 1 : 0;
    refused += record.outcome == Outcome::kRefused ? 1 : 0;
    stayed += record.outcome == Outcome::kCancelled ? 0 : 1;
    if (record.ttft_s >= 0) ttft_s.push_back(record.ttft_s);
  }
  double attainment() const {
    return Share(static_cast<double>(kept), static_cast<double>(stayed));
  }
};

void AddTenants(const SimulationResult& result, std::vector<Tally> tallies, Summary* s) {
  for (Tally& tally : tallies) {
    s->tenants.push_back({.offered = tally.offered,
                          .finished = tally.finished,
                          .attainment = tally.attainment(),
                          .ttft_s = SpreadOf(&tally.ttft_s)});
  }
  const Measurements& m = result.measurements;
  for (size_t w = 0; w < m.service().size(); ++w) {
    if (static_cast<double>(w + 1) * m.window_s() > result.arrivals_s) break;
    for (size_t t = 0; t < s->tenants.size(); ++t) {
      s->tenants[t].tokens += static_cast<double>(m.service()[w][t]);
    }
  }
}

void AddServers(const SimulationResult& result, Summary* s) {
  uint64_t queried = 0, cached = 0, batch = 0, distinct = 0;
  for (const SimulatedServer::Totals& t : result.servers) {
    s->steps += t.steps;
    s->evictions += t.evictions;
    s->preemptions += t.preemptions;
    s->most_overtaken = std::max(s->most_overtaken, t.most_overtaken);
    queried += t.queried_tokens;
    cached += t.cached_tokens;
    batch += t.batch;
    distinct += t.adapters;
  }
  for (const SimulatedLoads::Stats& l : result.loads) {
    s->loads += l.loads;
    s->host_hits += l.host_hits;
  }
  const auto steps = static_cast<double>(s->steps);
  s->found_tokens = Share(static_cast<double>(cached), static_cast<double>(queried));
  s->batch = Share(static_cast<double>(batch), steps);
  s->distinct = Share(static_cast<double>(distinct), steps);
  s->device_busy = Share(result.busy_s, result.end_s * static_cast<double>(result.servers.size()));
}

nlohmann::json Json(const Spread& s) {
  return {{"mean", s.mean}, {"p50", s.p50}, {"p90", s.p90}, {"p99", s.p99}, {"max", s.max}};
}

std::string Row(const char* what, const Spread& s) {
  return fmt::format("  {:<22}{:>10.3f}{:>10.3f}{:>10.3f}{:>10.3f}\n", what, s.p50, s.p90, s.p99,
                     s.max);
}

}  // namespace

Spread SpreadOf(std::vector<float>* samples) {
  if (samples->empty()) return {};
  std::sort(samples->begin(), samples->end());
  const auto at = [&](double share) {
    const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(samples->size())));
    return static_cast<double>((*samples)[std::max<size_t>(rank, 1) - 1]);
  };
  return {.mean = std::accumulate(samples->begin(), samples->end(), 0.0) /
                  static_cast<double>(samples->size()),
          .p50 = at(0.5),
          .p90 = at(0.9),
          .p99 = at(0.99),
          .max = samples->back()};
}

bool Keeps(const RequestRecord& record, const Objective& objective) {
  return record.outcome == Outcome::kFinished && record.ttft_s <= objective.ttft_s &&
         record.gap_mean_s <= objective.gap_s;
}

Summary Summarize(const SimulationResult& result, const std::vector<SimRequest>& requests,
                  const Objective& objective) {
  Summary s;
  s.offered = result.offered;
  s.seconds = result.arrivals_s;
  s.end_s = result.end_s;
  s.unfairness = result.unfairness;
  Tally all;
  std::vector<Tally> tenants;
  std::vector<float> request_s, request_gap_s;
  size_t in_time = 0;
  for (size_t i = 0; i < result.offered; ++i) {
    const RequestRecord& record = result.measurements.records()[i];
    const auto tenant = static_cast<size_t>(requests[i].tenant);
    if (tenant >= tenants.size()) tenants.resize(tenant + 1);
    ++s.outcomes[static_cast<size_t>(record.outcome)];
    if (record.gap_mean_s > 0) request_gap_s.push_back(record.gap_mean_s);
    all.Add(record, objective);
    tenants[tenant].Add(record, objective);
    if (record.outcome != Outcome::kFinished) continue;
    request_s.push_back(record.total_s);
    in_time += requests[i].start_s + record.total_s <= s.seconds ? 1 : 0;
  }
  s.requests_per_s = Share(static_cast<double>(in_time), s.seconds);
  s.goodput = Share(static_cast<double>(all.kept), s.seconds);
  s.attainment = all.attainment();
  s.accepted_attainment =
      Share(static_cast<double>(all.kept), static_cast<double>(all.stayed - all.refused));
  s.output_tokens_per_s = Share(
      static_cast<double>(result.measurements.output_tokens_before(s.seconds)),
      std::floor(s.seconds / result.measurements.window_s()) * result.measurements.window_s());
  s.ttft_s = SpreadOf(&all.ttft_s);
  s.gap_s = GapSpread(result.measurements.gaps());
  s.request_gap_s = SpreadOf(&request_gap_s);
  s.request_s = SpreadOf(&request_s);
  AddServers(result, &s);
  AddTenants(result, std::move(tenants), &s);
  return s;
}

std::string ToText(const Summary& s, const Objective& objective) {
  std::string text = fmt::format("{} requests in {:.1f} s, the last one ended at {:.1f} s\n ",
                                 s.offered, s.seconds, s.end_s);
  for (int i = 1; i < kOutcomes; ++i) {
    if (s.outcomes[static_cast<size_t>(i)] == 0) continue;
    text += fmt::format(" {} {}", kOutcomeNames[i], s.outcomes[static_cast<size_t>(i)]);
  }
  text +=
      fmt::format("\n\n  {:<22}{:>10}{:>10}{:>10}{:>10}\n", "seconds", "p50", "p90", "p99", "max");
  text += Row("to the first token", s.ttft_s);
  text += Row("between tokens", s.gap_s);
  text += Row("of a request", s.request_s);
  text += fmt::format(
      "\n  throughput            {:>10.2f} requests/s {:>10.1f} output tokens/s\n"
      "  objective kept        {:>10.1f} % {:>17.2f} requests/s (first token in {} s{})\n"
      "  devices busy          {:>10.1f} %\n"
      "  a step                {:>10.1f} sequences {:>11.1f} adapters\n"
      "  adapter loads         {:>10} {:>20} from host memory, {} evictions\n"
      "  prompts found         {:>10.1f} % of their tokens\n"
      "  preemptions           {:>10}\n"
      "  overtaken at most     {:>10} times by later ones of its tenant and class\n",
      s.requests_per_s, s.output_tokens_per_s, 100 * s.attainment, s.goodput, objective.ttft_s,
      objective.gap_s == kNever ? "" : fmt::format(", {} s between tokens", objective.gap_s),
      100 * s.device_busy, s.batch, s.distinct, s.loads, s.host_hits, s.evictions,
      100 * s.found_tokens, s.preemptions, s.most_overtaken);
  if (s.tenants.size() < 2) return text;
  text += fmt::format("\n  {:<8}{:>10}{:>10}{:>12}{:>12}{:>12}{:>12}\n", "tenant", "requests",
                      "finished", "tokens/s", "kept, %", "first p50", "first p99");
  for (size_t t = 0; t < s.tenants.size(); ++t) {
    const Summary::Tenant& row = s.tenants[t];
    text +=
        fmt::format("  {:<8}{:>10}{:>10}{:>12.1f}{:>12.1f}{:>12.3f}{:>12.3f}\n",
                    fmt::format("t{}", t), row.offered, row.finished, Share(row.tokens, s.seconds),
                    100 * row.attainment, row.ttft_s.p50, row.ttft_s.p99);
  }
  return text;
}

std::string ToJson(const Summary& s) {
  nlohmann::json json = {{"offered", s.offered},
                         {"seconds", s.seconds},
                         {"end_s", s.end_s},
                         {"requests_per_s", s.requests_per_s},
                         {"output_tokens_per_s", s.output_tokens_per_s},
                         {"goodput", s.goodput},
                         {"attainment", s.attainment},
                         {"accepted_attainment", s.accepted_attainment},
                         {"ttft_s", Json(s.ttft_s)},
                         {"gap_s", Json(s.gap_s)},
                         {"request_gap_s", Json(s.request_gap_s)},
                         {"request_s", Json(s.request_s)},
                         {"device_busy", s.device_busy},
                         {"batch", s.batch},
                         {"distinct_adapters", s.distinct},
                         {"found_tokens", s.found_tokens},
                         {"steps", s.steps},
                         {"loads", s.loads},
                         {"host_hits", s.host_hits},
                         {"evictions", s.evictions},
                         {"preemptions", s.preemptions},
                         {"most_overtaken", s.most_overtaken}};
  for (int i = 1; i < kOutcomes; ++i) {
    json["outcomes"][kOutcomeNames[i]] = s.outcomes[static_cast<size_t>(i)];
  }
  for (const Summary::Tenant& t : s.tenants) {
    json["tenants"].push_back({{"offered", t.offered},
                               {"finished", t.finished},
                               {"tokens", t.tokens},
                               {"attainment", t.attainment},
                               {"ttft_s", Json(t.ttft_s)}});
  }
  return json.dump(2) + "\n";
}

}  // namespace lorad::sim
