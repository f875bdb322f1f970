// lorad-bench: load for a running server.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>

#include "client/error.h"
#include "client/priority_name.h"
#include "tests/bench/lorad_bench/load.h"
#include "tests/bench/lorad_bench/report.h"
#include "tests/bench/lorad_bench/synthetic_adapter.h"

namespace lorad::bench {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  lorad-bench run --synthetic 8 --ranks 8,16 --clients 32 --duration 30 --warmup 5\n"
    "  lorad-bench run --adapters pirate,json,base --rate 4 --cv 1 --alpha 0.3 --duration 120\n"
    "  lorad-bench scenario --clients 32 --distinct 0,1,8,32 --rounds 5 --json ratios.json\n"
    "  lorad-bench clean --synthetic 32\n"
    "\n"
    "Open loop (--rate) is S-LoRA's synthetic workload, number for number: power-law popularity "
    "(alpha = 1 is\n"
    "uniform), Gamma gaps, uniform lengths in [low, high), prompts of one repeated token, seed 42. "
    "On a server\n"
    "that caches prefixes such prompts cost little: compare --prompts random.\n"
    "Exit codes: 0 done, 1 usage, 2 the server cannot run this, 3 requests failed.\n";

struct Options {
  std::string address = kDefaultAddress;
  int connections = 4;
  std::string tenant, priority;
  std::string json_path, prompts = "repeat", popularity = "power", prefix = "bench";
  std::vector<std::string> adapters;
  int synthetic = 0;
  std::vector<int> ranks = {16};
  std::string input = "8:512", output = "8:512";
  LoadOptions load;
  std::vector<int> distinct = {0, 1, 8, 32};
  int rounds = 3;
  bool touch = false;
  std::string command;
};

absl::Status ParseRange(const std::string& text, const char* name, Range* range) {
  if (std::sscanf(text.c_str(), "%d:%d", &range->low, &range->high) == 2) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format("--{}: {} is not LOW:HIGH", name, text));
}

// Lengths that the model cannot serve would only measure refusals.
absl::Status CheckContext(const LoadOptions& load, const v1::Model& model) {
  const int longest = load.workload.input.high - 1 + load.workload.output.high - 1;
  if (longest <= model.max_context_tokens()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "--input and --output reach {} tokens together; the model's context is {}: give smaller "
      "ranges, as --input 8:{} --output 8:{}",
      longest, model.max_context_tokens(), model.max_context_tokens() / 2,
      model.max_context_tokens() / 2));
}

class Bench {
 public:
  explicit Bench(Options* options)
      : options_(*options),
        client_({.address = options->address,
                 .connections = options->connections,
                 .tenant = options->tenant}) {}

  absl::Status Run() {
    if (const auto status = Prepare(); !status.ok()) return status;
    if (const auto status = ChooseAdapters(options_.synthetic); !status.ok()) return status;
    options_.load.adapters = names_;
    const auto result = RunLoad(&client_, options_.load);
    if (!result.ok()) return result.status();
    std::cout << ToText(*result);
    failed_ = !result->errors.empty();
    header_.mode = options_.load.clients > 0 ? "closed" : "open";
    return WriteJson(ToJson(header_, options_.load, *result));
  }

  // Closed loop at each number of distinct adapters, all rounds of all of them interleaved.
  absl::Status Scenario() {
    if (options_.load.clients == 0) options_.load.clients = 32;
    options_.load.popularity = Popularity::kRoundRobin;
    if (const auto status = Prepare(); !status.ok()) return status;
    const int most = *std::max_element(options_.distinct.begin(), options_.distinct.end());
    if (const auto status = ChooseAdapters(most); !status.ok()) return status;
    if (static_cast<int>(names_.size()) < most) {
      return absl::InvalidArgumentError(
          fmt::format("--distinct {} but only {} --adapters", most, names_.size()));
    }
    options_.load.adapters = names_;  // for the report
    if (const auto status = Touch(); !status.ok()) return status;
    std::vector<ScenarioRow> rows;
    for (const int n : options_.distinct) {
      rows.push_back({.name = n == 0 ? "base" : fmt::format("{} adapter{}", n, n == 1 ? "" : "s"),
                      .rounds = {}});
    }
    for (int round = 0; round < options_.rounds; ++round) {
      for (size_t i = 0; i < rows.size(); ++i) {
        LoadOptions load = options_.load;
        const auto n = static_cast<size_t>(options_.distinct[i]);
        load.adapters.assign(names_.begin(), names_.begin() + static_cast<std::ptrdiff_t>(n));
        if (n == 0) load.adapters = {""};
        const auto result = RunLoad(&client_, load);
        if (!result.ok()) return result.status();
        rows[i].rounds.push_back(*result);
        failed_ = failed_ || !result->errors.empty();
        std::cerr << fmt::format("round {} of {}: {:<12} {:9.1f} tokens/s\n", round + 1,
                                 options_.rounds, rows[i].name, result->output_tokens_per_s());
      }
    }
    std::cout << ToText(rows);
    header_.mode = "scenario";
    return WriteJson(ToJson(header_, options_.load, rows));
  }

  absl::Status Clean() {
    for (int i = 0; i < options_.synthetic; ++i) {
      const auto status = client_.DeleteAdapter(fmt::format("{}-{}", options_.prefix, i), true);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  bool failed() const { return failed_; }

 private:
  // Everything that depends on the options and the served model alone.
  absl::Status Prepare() {
    LoadOptions& load = options_.load;
    for (const auto& status : {ParseRange(options_.input, "input", &load.workload.input),
                               ParseRange(options_.output, "output", &load.workload.output)}) {
      if (!status.ok()) return status;
    }
    load.priority = PriorityNamed(options_.priority);
    if (options_.popularity == "round-robin") load.popularity = Popularity::kRoundRobin;
    auto model = client_.GetModel();
    if (!model.ok()) return model.status();
    if (const auto status = CheckContext(load, *model); !status.ok()) return status;
    header_.model = *std::move(model);
    header_.command = options_.command;
    if (options_.prompts == "random") {
      load.random_prompt_vocab = header_.model.vocab_size();
      return absl::OkStatus();
    }
    v1::TokenizeRequest request;
    request.set_text("Hello");
    request.set_add_special_tokens(false);
    const auto tokens = client_.Tokenize(request);
    if (!tokens.ok()) return tokens.status();
    if (tokens->token_ids_size() > 0) load.prompt_token = tokens->token_ids(0);
    return absl::OkStatus();
  }

  // One token of each adapter, so that as many as fit are resident before anything is measured.
  absl::Status Touch() {
    if (!options_.touch) return absl::OkStatus();
    for (const std::string& name : names_) {
      v1::GenerateRequest request;
      request.set_adapter(name);
      request.mutable_prompt()->mutable_token_ids()->add_ids(0);
      request.set_max_tokens(1);
      const auto finish = client_.Generate(request, nullptr);
      if (!finish.ok()) return finish.status();
    }
    return absl::OkStatus();
  }

  // The adapters named, else `synthetic` made ones, else the base model.
  absl::Status ChooseAdapters(int synthetic) {
    if (!options_.adapters.empty()) {
      names_ = options_.adapters;
      std::replace(names_.begin(), names_.end(), std::string("base"), std::string());
    } else if (synthetic > 0) {
      auto names = EnsureAdapters(
          &client_, header_.model, options_.prefix, synthetic, options_.ranks,
          [](int missing) { std::cerr << "uploading " << missing << " adapters\n"; });
      if (!names.ok()) return names.status();
      names_ = *std::move(names);
    } else {
      names_ = {""};
    }
    return absl::OkStatus();
  }

  absl::Status WriteJson(const std::string& text) {
    if (options_.json_path.empty()) return absl::OkStatus();
    std::ofstream out(options_.json_path);
    out << text;
    out.close();
    if (out) return absl::OkStatus();
    return absl::InvalidArgumentError(fmt::format("--json: cannot write {}", options_.json_path));
  }

  Options& options_;
  Client client_;
  ReportHeader header_;
  std::vector<std::string> names_;
  bool failed_ = false;
};

void AddLoadOptions(CLI::App* app, Options* o) {
  WorkloadOptions& w = o->load.workload;
  app->add_option("--adapters", o->adapters,
                  "Adapters of the server, by comma; base is the base model")
      ->delimiter(',');
  app->add_option("--ranks", o->ranks, "Ranks of the synthetic adapters, in turn [16]")
      ->delimiter(',');
  app->add_option("--clients", o->load.clients,
                  "Closed loop: so many clients, one request at a time");
  app->add_option("--duration", w.duration_s, "Seconds [60; scenario: 10 each]");
  app->add_option("--warmup", o->load.warmup_s,
                  "Closed loop: seconds at the start not measured [0; scenario: 2]");
  app->add_option("--input", o->input, "Prompt lengths LOW:HIGH, HIGH excluded [8:512]");
  app->add_option("--output", o->output,
                  "Output lengths LOW:HIGH, HIGH excluded [8:512; scenario: 96:160]");
  app->add_option("--prompts", o->prompts,
                  "repeat (one token) or random [repeat; scenario: random]")
      ->check(CLI::IsMember({"repeat", "random"}));
  app->add_option("--seed", w.seed, "[42]");
  app->add_option("--priority", o->priority,
                  "Of all requests: interactive, standard or batch [standard]")
      ->check(CLI::IsMember(PriorityNames()));
  app->add_option("--deadline", o->load.deadline_s,
                  "Seconds after which a request is of no use [none]");
  app->add_option("--json", o->json_path, "Write the results to this file too");
}

void AddRun(CLI::App* app, Options* o) {
  AddLoadOptions(app, o);
  WorkloadOptions& w = o->load.workload;
  app->add_option("--synthetic", o->synthetic,
                  "Use so many synthetic adapters; missing ones are uploaded");
  app->add_option("--rate", w.rate, "Open loop: requests a second [2]");
  app->add_option("--cv", w.cv, "Open loop: coefficient of variation of the gaps [1]");
  app->add_option("--alpha", w.alpha,
                  "Popularity: 1 is uniform, less favours the first adapters [1]");
  app->add_option("--popularity", o->popularity, "Closed loop: power or round-robin [power]")
      ->check(CLI::IsMember({"power", "round-robin"}));
  app->add_option("--grace", o->load.grace_s,
                  "Open loop: wait so long for the last ones, seconds [120]");
}

int Finish(const absl::Status& status, bool failed) {
  if (status.ok()) return failed ? 3 : 0;
  std::cerr << "error: " << DescribeError(status) << "\n";
  return status.code() == absl::StatusCode::kInvalidArgument ? 1 : 2;
}

int Main(int argc, char** argv) {
  Options run, scenario, clean;
  CLI::App app("Load generator for lorad.", "lorad-bench");
  std::string address = kDefaultAddress;
  int connections = 4;
  std::string prefix = "bench", tenant;
  app.fallthrough();
  app.require_subcommand(1);
  app.footer(kFooter);
  app.add_option("--address", address, "Server, host:port [127.0.0.1:7433]")
      ->envname("LORAD_ADDRESS");
  app.add_option("--connections", connections, "TCP connections [4]")->check(CLI::Range(1, 64));
  app.add_option("--tenant", tenant, "Tenant that the requests speak for [the operator]")
      ->envname("LORAD_TENANT");
  app.add_option("--prefix", prefix, "Name of the synthetic adapters: PREFIX-0, ... [bench]");
  CLI::App* run_command =
      app.add_subcommand("run", "One workload: open loop (--rate) or closed (--clients)");
  AddRun(run_command, &run);

  scenario.load.workload.duration_s = 10;
  scenario.load.warmup_s = 2;
  scenario.input = "16:48";
  scenario.output = "96:160";
  scenario.prompts = "random";
  CLI::App* scenario_command = app.add_subcommand(
      "scenario",
      "The same closed-loop load on more and more adapters, interleaved; prints ratios");
  AddLoadOptions(scenario_command, &scenario);
  scenario_command
      ->add_option("--distinct", scenario.distinct,
                   "Numbers of adapters; 0 is the base model [0,1,8,32]")
      ->delimiter(',');
  scenario_command->add_flag("--touch", scenario.touch,
                             "First use each adapter once, so that those that fit are resident");
  scenario_command->add_option("--rounds", scenario.rounds, "Times that each is run [3]")
      ->check(CLI::PositiveNumber);

  CLI::App* clean_command = app.add_subcommand("clean", "Delete the first --synthetic N adapters");
  clean_command->add_option("--synthetic", clean.synthetic, "How many")->required();
  CLI11_PARSE(app, argc, argv);

  Options* chosen = run_command->parsed() ? &run : scenario_command->parsed() ? &scenario : &clean;
  chosen->address = address;
  chosen->connections = connections;
  chosen->prefix = prefix;
  chosen->tenant = tenant;
  for (int i = 0; i < argc; ++i) chosen->command += (i > 0 ? " " : "") + std::string(argv[i]);
  Bench bench(chosen);
  const absl::Status status = clean_command->parsed()      ? bench.Clean()
                              : scenario_command->parsed() ? bench.Scenario()
                                                           : bench.Run();
  return Finish(status, bench.failed());
}

}  // namespace
}  // namespace lorad::bench

int main(int argc, char** argv) { return lorad::bench::Main(argc, argv); }
