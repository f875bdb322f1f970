// lorad-sim: the capacity planner. Its simulator runs the daemon's own engine in virtual time.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>

#include "memory/base/status_macros.h"
#include "tests/simulation/capacity_plan.h"
#include "tests/simulation/lorad_sim/setup.h"
#include "tests/simulation/random_case.h"
#include "tests/simulation/summary.h"
#include "tests/simulation/svg_plot.h"

namespace lorad::sim {
namespace {

constexpr char kDescription[] =
    "Simulates lorad under a workload, in virtual time: minutes of traffic in seconds, no model "
    "and "
    "no GPU.\nScheduler, page pool, prefix cache and adapter cache are the daemon's own code; what "
    "a "
    "step or a load\ntakes comes from a cost model.";
constexpr char kFooter[] =
    "Examples:\n"
    "  How does one server do under a load, and who of four tenants suffers if one floods it?\n"
    "    lorad-sim run --workload flood --rate 20 --adapters 100\n"
    "  How many servers, with what pool, give 99 of 100 requests their first token within a "
    "second?\n"
    "    lorad-sim plan --rate 60 --adapters 2000 --alpha 0.3 --pools 16GiB,32GiB,55GiB --ttft 1\n"
    "  What would twice the load, or another setting, have done to last night?\n"
    "    lorad-sim run --replay /var/log/lorad/arrivals --times 2 --cost my-machine.json\n"
    "  Does any invariant break in random cases? (A seed that fails is printed and replays.)\n"
    "    lorad-sim soak --seeds 100 --steps 1000000\n"
    "\n"
    "Cost models: h100 and h200 (Llama-3-8B in bf16) are computed from data sheets, cpu is fitted "
    "to "
    "runs of\nthe daemon with a model of 100 M parameters on 2 cores; a file says it for your "
    "machine "
    "(docs/operations.md).\n"
    "Exit codes: 0 done, 1 usage, 2 an invariant was broken, 3 plan: no answer within "
    "--most-servers.\n";

struct RunFlags {
  Setup setup;
  std::string json, service_csv, service_svg;
};

struct PlanFlags {
  Setup setup;
  std::vector<uint64_t> pools;
  int most_servers = 16;
  double share = 0.99;
  std::string csv, svg;
};

struct SoakFlags {
  uint64_t first_seed = 1;
  int seeds = 10;
  uint64_t steps = 100000;
};

std::string TenantName(size_t t) { return fmt::format("t{}", t); }

// Tokens served to each tenant, over time.
Plot ServicePlot(const SimulationResult& result) {
  const Measurements& m = result.measurements;
  Plot plot{.title = "Tokens served, prompt and output",
            .x_label = "seconds",
            .y_label = "tokens / s",
            .curves = {}};
  const size_t tenants = m.service().empty() ? 0 : m.service()[0].size();
  for (size_t t = 0; t < tenants; ++t) {
    Curve curve{.name = TenantName(t), .points = {}};
    for (size_t w = 0; w < m.service().size(); ++w) {
      curve.points.emplace_back(static_cast<double>(w) * m.window_s(),
                                static_cast<double>(m.service()[w][t]) / m.window_s());
    }
    plot.curves.push_back(std::move(curve));
  }
  return plot;
}

std::string ServiceCsv(const SimulationResult& result) {
  const Measurements& m = result.measurements;
  std::string csv = "seconds";
  const size_t tenants = m.service().empty() ? 0 : m.service()[0].size();
  for (size_t t = 0; t < tenants; ++t) csv += "," + TenantName(t);
  csv += "\n";
  for (size_t w = 0; w < m.service().size(); ++w) {
    csv += fmt::format("{:g}", static_cast<double>(w) * m.window_s());
    for (const int64_t tokens : m.service()[w]) csv += fmt::format(",{}", tokens);
    csv += "\n";
  }
  return csv;
}

// What the recorded server did beside what the simulated one does.
std::string Comparison(const Summary& recorded, const Summary& simulated) {
  std::string text =
      fmt::format("\n  {:<26}{:>12}{:>12}{:>12}\n", "", "recorded", "simulated", "ratio");
  const auto row = [&](const char* what, double was, double is) {
    text += fmt::format("  {:<26}{:>12.3f}{:>12.3f}{:>12}\n", what, was, is,
                        was > 0 ? fmt::format("{:.2f}", is / was) : "");
  };
  row("first token, p50, s", recorded.ttft_s.p50, simulated.ttft_s.p50);
  row("first token, p90, s", recorded.ttft_s.p90, simulated.ttft_s.p90);
  row("first token, p99, s", recorded.ttft_s.p99, simulated.ttft_s.p99);
  row("first token, mean, s", recorded.ttft_s.mean, simulated.ttft_s.mean);
  row("between tokens, mean, s", recorded.request_gap_s.mean, simulated.request_gap_s.mean);
  row("of a request, mean, s", recorded.request_s.mean, simulated.request_s.mean);
  row("of a request, p99, s", recorded.request_s.p99, simulated.request_s.p99);
  row("requests/s", recorded.requests_per_s, simulated.requests_per_s);
  row("output tokens/s", recorded.output_tokens_per_s, simulated.output_tokens_per_s);
  row("objective kept, %", 100 * recorded.attainment, 100 * simulated.attainment);
  return text;
}

absl::Status Run(const RunFlags& flags) {
  LORAD_ASSIGN_OR_RETURN(const Prepared p, Prepare(flags.setup));
  std::cout << p.description << "\n" << std::flush;
  const auto begun = std::chrono::steady_clock::now();
  LORAD_ASSIGN_OR_RETURN(const SimulationResult result, Simulate(p.options, p.requests, p.weights));
  const Summary summary = Summarize(result, p.requests, flags.setup.objective);
  std::cout << ToText(summary, flags.setup.objective);
  if (p.as_recorded.has_value()) {
    std::cout << Comparison(Summarize(*p.as_recorded, p.requests, flags.setup.objective), summary);
  }
  std::cerr << fmt::format("simulated {} steps in {:.2f} s, run {:016x}\n", result.steps,
                           Seconds(std::chrono::steady_clock::now() - begun), result.hash);
  if (!flags.json.empty()) LORAD_RETURN_IF_ERROR(WriteFile(flags.json, ToJson(summary)));
  if (!flags.service_csv.empty()) {
    LORAD_RETURN_IF_ERROR(WriteFile(flags.service_csv, ServiceCsv(result)));
  }
  if (flags.service_svg.empty()) return absl::OkStatus();
  return WriteFile(flags.service_svg, ToSvg(ServicePlot(result)));
}

double GiB(const CapacityRow& row, const CostModel& cost) {
  return static_cast<double>(row.pages) * cost.page_bytes / (1 << 30);
}

Plot CapacityPlot(const std::vector<CapacityRow>& rows, const CostModel& cost) {
  Plot plot{.title = "Requests that keep the objective",
            .x_label = "servers",
            .y_label = "%",
            .curves = {}};
  for (const CapacityRow& row : rows) {
    if (row.servers == 1) {
      plot.curves.push_back({.name = fmt::format("{:.1f} GiB", GiB(row, cost)), .points = {}});
    }
    plot.curves.back().points.emplace_back(row.servers, 100 * row.summary.attainment);
  }
  return plot;
}

std::string CapacityCsv(const std::vector<CapacityRow>& rows, const CostModel& cost) {
  std::string csv =
      "pool_gib,servers,attainment,ttft_p50_s,ttft_p99_s,gap_p99_s,requests_per_s,loads\n";
  for (const CapacityRow& row : rows) {
    const Summary& s = row.summary;
    csv += fmt::format("{:.3f},{},{:.5f},{:.4f},{:.4f},{:.4f},{:.3f},{}\n", GiB(row, cost),
                       row.servers, s.attainment, s.ttft_s.p50, s.ttft_s.p99, s.gap_s.p99,
                       s.requests_per_s, s.loads);
  }
  return csv;
}

// False: no pool was enough.
absl::StatusOr<bool> Plan(const PlanFlags& flags) {
  LORAD_ASSIGN_OR_RETURN(const Prepared p, Prepare(flags.setup));
  const CostModel& cost = p.options.server.cost;
  CapacityQuestion question{.options = p.options,
                            .pages = {},
                            .most_servers = flags.most_servers,
                            .objective = flags.setup.objective,
                            .share = flags.share};
  for (const uint64_t bytes : flags.pools) {
    Setup with_pool = flags.setup;
    with_pool.pool_bytes = bytes;
    LORAD_RETURN_IF_ERROR(Prepare(with_pool).status());
    question.pages.push_back(static_cast<uint32_t>(bytes / cost.page_bytes));
  }
  if (question.pages.empty()) question.pages = {p.options.server.pages};
  std::cout << p.description << "\n\n"
            << fmt::format("{:>10}{:>9}{:>9}{:>12}{:>12}{:>12}{:>12}{:>10}{:>9}\n", "pool GiB",
                           "servers", "kept, %", "first p50", "first p99", "gap p99", "requests/s",
                           "loads", "busy, %");
  LORAD_ASSIGN_OR_RETURN(
      const std::vector<CapacityRow> rows,
      PlanCapacity(question, p.requests, p.weights, [&](const CapacityRow& row) {
        const Summary& s = row.summary;
        std::cout << fmt::format(
                         "{:>10.1f}{:>9}{:>9.2f}{:>12.3f}{:>12.3f}{:>12.4f}{:>12.2f}{:>10}"
                         "{:>9.1f}{}\n",
                         GiB(row, cost), row.servers, 100 * s.attainment, s.ttft_s.p50,
                         s.ttft_s.p99, s.gap_s.p99, s.requests_per_s, s.loads, 100 * s.device_busy,
                         row.enough ? "  enough" : "")
                  << std::flush;
      }));
  if (!flags.csv.empty()) LORAD_RETURN_IF_ERROR(WriteFile(flags.csv, CapacityCsv(rows, cost)));
  if (!flags.svg.empty()) {
    LORAD_RETURN_IF_ERROR(WriteFile(flags.svg, ToSvg(CapacityPlot(rows, cost))));
  }
  return std::any_of(rows.begin(), rows.end(), [](const CapacityRow& r) { return r.enough; });
}

constexpr int kSoakRequests = 2000;  // in one case

// Cases of each seed until it has made so many steps. The first of a seed is the seed itself, so
// that one that fails runs again alone.
absl::Status Soak(const SoakFlags& flags) {
  const auto begun = std::chrono::steady_clock::now();
  uint64_t all_steps = 0, cases = 0;
  int overtaken = 0;
  for (uint64_t seed = flags.first_seed;
       seed < flags.first_seed + static_cast<uint64_t>(flags.seeds); ++seed) {
    uint64_t steps = 0;
    for (uint64_t round = 0; steps < flags.steps; ++round) {
      const RandomCase random_case = MakeRandomCase(seed + (round << 32), kSoakRequests);
      LORAD_ASSIGN_OR_RETURN(const SimulationResult result, RunRandomCase(random_case));
      steps += result.steps;
      ++cases;
      for (const SimulatedServer::Totals& server : result.servers) {
        overtaken = std::max(overtaken, server.most_overtaken);
      }
    }
    all_steps += steps;
    std::cout << fmt::format("seed {}: {} steps\n", seed, steps) << std::flush;
  }
  const double seconds = Seconds(std::chrono::steady_clock::now() - begun);
  std::cout << fmt::format(
      "{} steps in {} cases, no invariant broken, no request overtaken more than {} times; {:.0f} "
      "s, {:.1f} us a step\n",
      all_steps, cases, overtaken, seconds, 1e6 * seconds / static_cast<double>(all_steps));
  return absl::OkStatus();
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << "error: " << status.message() << "\n";
  return status.code() == absl::StatusCode::kInternal ? 2 : 1;
}

void AddRun(CLI::App* command, RunFlags* flags) {
  AddWorkloadFlags(command, &flags->setup);
  AddServerFlags(command, &flags->setup);
  AddObjectiveFlags(command, &flags->setup);
  command->add_option("--servers", flags->setup.servers, "Behind one router [1]")->group("Servers");
  command
      ->add_option("--pool-bytes", flags->setup.pool_bytes,
                   "Of each server, as the daemon's [as the cost model says]")
      ->transform(CLI::AsSizeValue(false))
      ->group("Servers");
  command->add_option("--json", flags->json, "Write the figures to this file")->group("Output");
  command
      ->add_option("--service-csv", flags->service_csv,
                   "Write the tokens served to each tenant in each second")
      ->group("Output");
  command->add_option("--service-svg", flags->service_svg, "Draw them")->group("Output");
}

void AddPlan(CLI::App* command, PlanFlags* flags) {
  AddWorkloadFlags(command, &flags->setup);
  AddServerFlags(command, &flags->setup);
  AddObjectiveFlags(command, &flags->setup);
  command->add_option("--share", flags->share, "Of requests that must keep the objective [0.99]")
      ->check(CLI::Range(0.0, 1.0))
      ->group("Objective");
  command
      ->add_option("--pools", flags->pools,
                   "Sizes of one server's pool, by comma [as the cost model says]")
      ->delimiter(',')
      ->transform(CLI::AsSizeValue(false))
      ->group("Servers");
  command->add_option("--most-servers", flags->most_servers, "Where to give up [16]")
      ->check(CLI::Range(1, 1000))
      ->group("Servers");
  command->add_option("--csv", flags->csv, "Write the table to this file")->group("Output");
  command->add_option("--svg", flags->svg, "Draw it")->group("Output");
}

int Main(int argc, char** argv) {
  CLI::App app(kDescription, "lorad-sim");
  app.require_subcommand(1);
  app.footer(kFooter);
  RunFlags run;
  CLI::App* run_command = app.add_subcommand("run", "Simulate one workload and report on it");
  AddRun(run_command, &run);
  PlanFlags plan;
  CLI::App* plan_command =
      app.add_subcommand("plan", "How many servers, with what pool, keep an objective");
  AddPlan(plan_command, &plan);
  SoakFlags soak;
  CLI::App* soak_command =
      app.add_subcommand("soak", "Random cases with every invariant checked at every step");
  soak_command->add_option("--first-seed", soak.first_seed, "[1]");
  soak_command->add_option("--seeds", soak.seeds, "How many [10]")->check(CLI::PositiveNumber);
  soak_command->add_option("--steps", soak.steps, "Of each seed, at least [100000]");
  CLI11_PARSE(app, argc, argv);
  if (run_command->parsed()) return ExitCode(Run(run));
  if (soak_command->parsed()) return ExitCode(Soak(soak));
  const absl::StatusOr<bool> enough = Plan(plan);
  if (!enough.ok()) return ExitCode(enough.status());
  return *enough ? 0 : 3;
}

}  // namespace
}  // namespace lorad::sim

int main(int argc, char** argv) { return lorad::sim::Main(argc, argv); }
