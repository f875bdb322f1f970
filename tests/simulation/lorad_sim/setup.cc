#include "tests/simulation/lorad_sim/setup.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <map>

#include "absl/strings/str_join.h"
#include "memory/base/status_macros.h"
#include "tests/simulation/engine_objective.h"
#include "tests/simulation/policy_rules.h"
#include "tests/simulation/replay.h"

namespace lorad::sim {
namespace {

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const WorkloadName& w : WorkloadNames()) names.push_back(w.name);
  return names;
}

absl::Status ParseRange(const std::string& text, const char* flag, bench::Range* range) {
  if (std::sscanf(text.c_str(), "%d:%d", &range->low, &range->high) == 2) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("{}: {} is not LOW:HIGH", flag, text));
}

// Every request must fit into a pool, with its adapter, else it is refused whatever the load.
absl::Status CheckRoom(const std::vector<SimRequest>& requests, const ServerOptions& server) {
  uint32_t most = 0;
  for (const SimRequest& r : requests) {
    const auto tokens = static_cast<size_t>(r.prompt_tokens) + static_cast<size_t>(r.max_tokens);
    uint32_t pages = PagesFor(tokens, server.cost.page_tokens);
    if (r.adapter >= 0) pages += ImagePages(server, r.adapter);
    most = std::max(most, pages);
  }
  if (most <= server.pages) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "--pool-bytes: {} pages of {} bytes; the largest request needs {} with its adapter",
      server.pages, server.cost.page_bytes, most));
}

absl::Status MakeWorkload(const Setup& setup, Prepared* p) {
  WorkloadKnobs knobs = setup.knobs;
  LORAD_RETURN_IF_ERROR(ParseRange(setup.input, "--input", &knobs.input));
  LORAD_RETURN_IF_ERROR(ParseRange(setup.output, "--output", &knobs.output));
  LORAD_ASSIGN_OR_RETURN(const Workload workload, sim::MakeWorkload(setup.workload, knobs));
  p->weights = workload.weights;
  LORAD_ASSIGN_OR_RETURN(p->requests, MakeRequests(workload));
  p->description = fmt::format("{}: {}; {} requests/s for {} s on {} adapters", workload.name,
                               workload.explanation, knobs.rate, knobs.duration_s, knobs.adapters);
  return absl::OkStatus();
}

absl::Status ReplayWorkload(const Setup& setup, Prepared* p) {
  LORAD_ASSIGN_OR_RETURN(Recording recording, ReadRecording(setup.replay, setup.times));
  p->description =
      fmt::format("{} recorded requests{}", recording.requests.size(),
                  setup.times == 1 ? "" : fmt::format(", {} times as fast", setup.times));
  if (recording.unreadable > 0) {
    p->description += fmt::format("; {} lines could not be read", recording.unreadable);
  }
  p->requests = std::move(recording.requests);
  p->weights = std::move(recording.weights);
  p->options.server.adapter_bytes = std::move(recording.adapter_bytes);
  if (setup.times == 1) p->as_recorded.emplace(std::move(recording.as_recorded));
  return absl::OkStatus();
}

}  // namespace

void AddWorkloadFlags(CLI::App* app, Setup* s) {
  app->add_option("--workload", s->workload, absl::StrJoin(Names(), ", ") + " [slora]")
      ->check(CLI::IsMember(Names()))
      ->group("Workload");
  app->add_option("--rate", s->knobs.rate, "Requests a second [8]")->group("Workload");
  app->add_option("--duration", s->knobs.duration_s, "Seconds in which requests come [120]")
      ->group("Workload");
  app->add_option("--adapters", s->knobs.adapters, "Adapters that are asked for [100]")
      ->group("Workload");
  app->add_option("--alpha", s->knobs.alpha,
                  "Their popularity: 1 is uniform, less favours the first ones [1]")
      ->group("Workload");
  app->add_option("--cv", s->knobs.cv,
                  "Coefficient of variation of the gaps: 1 is Poisson, more comes in clumps [1]")
      ->group("Workload");
  app->add_option("--input", s->input, "Prompt tokens LOW:HIGH, HIGH excluded [8:512]")
      ->group("Workload");
  app->add_option("--output", s->output, "Output tokens LOW:HIGH, HIGH excluded [8:512]")
      ->group("Workload");
  app->add_option("--slack", s->knobs.slack,
                  "Clients allow this share of tokens more than come (max_tokens) [0]")
      ->group("Workload");
  app->add_option("--deadline", s->knobs.deadline_s, "Each request's deadline, seconds [none]")
      ->group("Workload");
  app->add_option("--tenants", s->knobs.tenants, "Of the workloads that have several [4]")
      ->group("Workload");
  app->add_option("--seed", s->knobs.seed, "[42]")->group("Workload");
  app->add_option("--replay", s->replay,
                  "Instead of all these: the arrivals that a server recorded with "
                  "--record-arrivals; may be given several times")
      ->group("Workload");
  app->add_option("--times", s->times, "Replay the arrivals so many times as fast [1]")
      ->check(CLI::PositiveNumber)
      ->group("Workload");
}

void AddServerFlags(CLI::App* app, Setup* s) {
  app->add_option("--cost", s->cost,
                  "Model and machine: " + absl::StrJoin(CostPresets(), ", ") +
                      ", or a JSON file of coefficients [h100]")
      ->group("Servers");
  app->add_option("--routing", s->routing,
                  "affine (an adapter's requests go to few servers), hashed (to one, whatever its "
                  "load) or least-loaded [affine]")
      ->check(CLI::IsMember({"affine", "hashed", "least-loaded"}))
      ->group("Servers");
  app->add_option("--host-cache-bytes", s->host_cache_bytes,
                  "Packed adapters in host memory, each server [as the cost model says]")
      ->transform(CLI::AsSizeValue(false))
      ->group("Servers");
  app->add_option("--ranks", s->ranks, "Ranks of the adapters, in turn [8,16,32,64]")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->group("Servers");
  app->add_flag("--warm", s->warm, "Adapters lie in host memory at the start, as many as fit")
      ->group("Servers");
  app->add_option("--prefix-cache", s->prefix_cache, "[true]")->group("Servers");
  app->add_option("--max-running", s->policy.max_sequences, "As the daemon's [256]")
      ->check(CLI::Range(1, 65536))
      ->group("Servers");
  app->add_option("--max-waiting", s->max_waiting, "As the daemon's [1024]")->group("Servers");
  app->add_option("--max-step-tokens", s->policy.max_step_tokens, "As the daemon's [512]")
      ->check(CLI::Range(1, 65536))
      ->group("Servers");
  app->add_option("--max-chunk-tokens", s->policy.max_chunk_tokens, "As the daemon's [256]")
      ->check(CLI::Range(1, 65536))
      ->group("Servers");
  app->add_option("--admission", s->policy.admission,
                  "Who is let in: no-evict (all of the output it may make has room), optimistic "
                  "(what it is expected to make) or prompt (its prompt has) [no-evict]")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, AdmissionMode>{{"no-evict", AdmissionMode::kNoEvict},
                                               {"optimistic", AdmissionMode::kOptimistic},
                                               {"prompt", AdmissionMode::kPromptOnly}}))
      ->group("Servers");
  std::vector<std::string> rules = {"fcfs"};
  for (const PolicyRule& rule : PolicyRules()) rules.push_back(rule.name);
  app->add_option("--without", s->without,
                  "Rules of the scheduler to switch off, by comma: " + absl::StrJoin(rules, ", ") +
                      " (fcfs: all of them)")
      ->delimiter(',')
      ->check(CLI::IsMember(rules))
      ->group("Servers");
  app->add_option("--check", s->check, "Check invariants and outputs on the way [true]")
      ->group("Servers");
}

void AddObjectiveFlags(CLI::App* app, Setup* s) {
  app->add_option("--ttft", s->objective.ttft_s,
                  "Objective: the first token in so many seconds [6, S-LoRA's]")
      ->group("Objective");
  app->add_option(
         "--gap", s->objective.gap_s,
         "Objective: the others so far apart on average, seconds; servers make steps shorter "
         "for it, as by the daemon's --objective CLASS,itl=TIME [any]")
      ->group("Objective");
  app->add_flag("--refuse", s->refuse,
                "Servers refuse at once who would miss --ttft, as the daemon does with an "
                "--objective that says refuse")
      ->group("Objective");
}

absl::StatusOr<Prepared> Prepare(const Setup& setup) {
  Prepared p;
  ServerOptions& server = p.options.server;
  LORAD_ASSIGN_OR_RETURN(server.cost, FindCostModel(setup.cost));
  if (setup.host_cache_bytes > 0) server.cost.host_tier_bytes = setup.host_cache_bytes;
  server.pages = setup.pool_bytes > 0
                     ? static_cast<uint32_t>(setup.pool_bytes / server.cost.page_bytes)
                     : server.cost.pages;
  server.engine.policy = setup.policy;
  server.engine.policy.max_adapter_loads = server.cost.copy_bytes_per_s > 0 ? 4 : 2;
  server.engine.policy.reserve_pages = server.pages / 100;
  for (const std::string& rule : setup.without) SwitchOff(rule, &server.engine.policy);
  server.engine.max_waiting = setup.max_waiting;
  SetObjective(setup.objective, &server.engine);
  if (setup.refuse) RefuseLate(setup.objective, &server.engine);
  server.ranks = setup.ranks;
  server.warm = setup.warm;
  server.prefix_cache = setup.prefix_cache;
  server.check_outputs = setup.check;
  if (!setup.check) server.validate_every = 0;
  if (setup.servers < 1 || setup.servers > 1000) {
    return absl::InvalidArgumentError("--servers: from 1 to 1000");
  }
  p.options.servers = setup.servers;
  p.options.routing = *RoutingByName(setup.routing);

  LORAD_RETURN_IF_ERROR(setup.replay.empty() ? MakeWorkload(setup, &p) : ReplayWorkload(setup, &p));
  LORAD_RETURN_IF_ERROR(CheckRoom(p.requests, server));
  return p;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream out(path);
  out << text;
  out.close();
  if (out) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("cannot write {}", path));
}

}  // namespace lorad::sim
