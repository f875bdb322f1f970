#include "tests/bench/lorad_bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace lorad::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string Row(const char* name, const Percentiles& p) {
  return fmt::format("  {:<18}{:>9.1f}{:>9.1f}{:>9.1f}{:>9.1f}{:>9.1f}{:>10}\n", name, 1e3 * p.mean,
                     1e3 * p.p50, 1e3 * p.p90, 1e3 * p.p99, 1e3 * p.max, p.count);
}

Json ToJson(const Percentiles& p) {
  return {{"count", p.count}, {"mean", p.mean}, {"p50", p.p50},
          {"p90", p.p90},     {"p99", p.p99},   {"max", p.max}};
}

Json ResultJson(const LoadResult& r) {
  Json json = {{"seconds", r.seconds},
               {"started", r.started},
               {"finished", r.finished},
               {"requests_per_s", r.requests_per_s()},
               {"input_tokens_per_s", r.input_tokens_per_s()},
               {"output_tokens_per_s", r.output_tokens_per_s()},
               {"cached_tokens", r.cached_tokens},
               {"ttft_s", ToJson(r.ttft_s)},
               {"token_gap_s", ToJson(r.token_gap_s)},
               {"request_s", ToJson(r.request_s)},
               {"longest_pause_s", r.longest_pause_s},
               {"attainment_ttft_6s", r.attainment},
               {"server_queue_s", r.server_queue_s},
               {"server_adapter_load_s", r.server_load_s},
               {"client_cores", r.client_cores},
               {"errors", Json::object()}};
  for (const auto& [code, count] : r.errors) json["errors"][code] = count;
  if (!r.first_error.empty()) json["first_error"] = r.first_error;
  return json;
}

Json HeaderJson(const ReportHeader& header, const LoadOptions& o) {
  const WorkloadOptions& w = o.workload;
  return {{"tool", "lorad-bench"},
          {"mode", header.mode},
          {"command", header.command},
          {"server", header.model.server_version()},
          {"model", header.model.name()},
          {"backend", header.model.backend()},
          {"backend_detail", header.model.backend_detail()},
          {"workload",
           {{"clients", o.clients},
            {"adapters", o.adapters.size()},
            {"popularity", o.popularity == Popularity::kPower ? "power" : "round-robin"},
            {"alpha", w.alpha},
            {"rate", w.rate},
            {"cv", w.cv},
            {"duration_s", w.duration_s},
            {"warmup_s", o.warmup_s},
            {"input", {w.input.low, w.input.high}},
            {"output", {w.output.low, w.output.high}},
            {"prompts", o.random_prompt_vocab > 0 ? "random" : "repeated token"},
            {"priority", v1::Priority_Name(o.priority)},
            {"deadline_s", o.deadline_s},
            {"seed", w.seed}}}};
}

}  // namespace

std::string ToText(const LoadResult& r) {
  std::string out = fmt::format(
      "{} requests finished in {:.1f} s ({} started)\n"
      "  throughput        {:.2f} requests/s, {:.1f} tokens/s out, {:.1f} tokens/s in\n"
      "  attainment        {:.1f} % with a first token in less than {:.0f} s\n\n"
      "  ms                     mean      p50      p90      p99      max     count\n",
      r.finished, r.seconds, r.started, r.requests_per_s(), r.output_tokens_per_s(),
      r.input_tokens_per_s(), 100 * r.attainment, kAttainmentTtftS);
  out += Row("first token", r.ttft_s) + Row("between tokens", r.token_gap_s) +
         Row("whole request", r.request_s);
  out += fmt::format(
      "\n  longest pause {:.1f} ms; server: mean queue {:.1f} ms, of it adapter load {:.1f} ms; {} "
      "cached "
      "prompt tokens; client used {:.2f} cores\n",
      1e3 * r.longest_pause_s, 1e3 * r.server_queue_s, 1e3 * r.server_load_s, r.cached_tokens,
      r.client_cores);
  for (const auto& [code, count] : r.errors) out += fmt::format("  {} x {}\n", count, code);
  if (!r.first_error.empty()) out += fmt::format("  first error: {}\n", r.first_error);
  return out;
}

const LoadResult& ScenarioRow::Best() const {
  return *std::max_element(rounds.begin(), rounds.end(), [](const auto& a, const auto& b) {
    return a.output_tokens_per_s() < b.output_tokens_per_s();
  });
}

Ratio RatioTo(const ScenarioRow& base, const ScenarioRow& row) {
  const auto divide = [](double a, double b) { return b > 0 ? a / b : 0; };
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(base.rounds.size(), row.rounds.size()); ++i) {
    ratios.push_back(
        divide(row.rounds[i].output_tokens_per_s(), base.rounds[i].output_tokens_per_s()));
  }
  std::sort(ratios.begin(), ratios.end());
  const size_t n = ratios.size();
  Ratio ratio;
  if (n > 0) ratio.median = (ratios[(n - 1) / 2] + ratios[n / 2]) / 2;
  ratio.best = divide(row.Best().output_tokens_per_s(), base.Best().output_tokens_per_s());
  return ratio;
}

std::string ToText(const std::vector<ScenarioRow>& rows) {
  std::string out =
      fmt::format("{:<16}{:>10}{:>8}{:>8}{:>11}{:>11}{:>10}{:>8}{:>7}\n", "workload", "tokens/s",
                  "ratio", "median", "gap p50 ms", "gap p99 ms", "ttft p50", "failed", "cores");
  for (const ScenarioRow& row : rows) {
    const LoadResult& best = row.Best();
    const Ratio ratio = RatioTo(rows.front(), row);
    int64_t failed = 0;
    for (const LoadResult& r : row.rounds) {
      for (const auto& [code, count] : r.errors) failed += count;
    }
    out += fmt::format("{:<16}{:>10.1f}{:>8.3f}{:>8.3f}{:>11.2f}{:>11.2f}{:>10.1f}{:>8}{:>7.2f}\n",
                       row.name, best.output_tokens_per_s(), ratio.best, ratio.median,
                       1e3 * best.token_gap_s.p50, 1e3 * best.token_gap_s.p99,
                       1e3 * best.ttft_s.p50, failed, best.client_cores);
  }
  return out +
         "ratio: best round over the first workload's best; median: of the rounds' own ratios.\n";
}

std::string ToJson(const ReportHeader& header, const LoadOptions& options,
                   const LoadResult& result) {
  Json json = HeaderJson(header, options);
  json["result"] = ResultJson(result);
  return json.dump(2) + "\n";
}

std::string ToJson(const ReportHeader& header, const LoadOptions& options,
                   const std::vector<ScenarioRow>& rows) {
  Json json = HeaderJson(header, options);
  json["rows"] = Json::array();
  for (const ScenarioRow& row : rows) {
    const Ratio ratio = RatioTo(rows.front(), row);
    Json rounds = Json::array();
    for (const LoadResult& r : row.rounds) rounds.push_back(ResultJson(r));
    json["rows"].push_back({{"name", row.name},
                            {"ratio_best", ratio.best},
                            {"ratio_median", ratio.median},
                            {"rounds", rounds}});
  }
  return json.dump(2) + "\n";
}

}  // namespace lorad::bench
