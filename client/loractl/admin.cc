// loractl model, health, drain.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "client/loractl/json.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

ExitCode ShowModel(Session* session) {
  const auto model = session->client().GetModel(session->call());
  if (!model.ok()) return session->Fail(model.status());
  const Terminal& terminal = session->terminal;
  if (session->json) {
    terminal.out() << ToJson(*model) << "\n";
    return kOk;
  }
  const v1::Model& m = *model;
  const v1::Limits& l = m.limits();
  const std::vector<std::string> modules(m.adaptable_modules().begin(),
                                         m.adaptable_modules().end());
  const std::vector<std::pair<std::string_view, std::string>> rows = {
      {"model", fmt::format("{} ({})", m.name(), m.architecture())},
      {"parameters", fmt::format("{}, {} in {}", Count(static_cast<double>(m.parameters())),
                                 Bytes(m.weight_bytes()), m.weight_dtype())},
      {"shape",
       fmt::format("{} layers, hidden {}, feed-forward {}, {} heads / {} kv of {}", m.layers(),
                   m.hidden_size(), m.ffn_size(), m.heads(), m.kv_heads(), m.head_dim())},
      {"vocabulary", fmt::format("{}", m.vocab_size())},
      {"context", fmt::format("{} tokens", m.max_context_tokens())},
      {"adaptable", Join(modules, ", ")},
      {"backend", fmt::format("{} ({}){}", m.backend(), m.backend_detail(),
                              m.tensor_parallel_ranks() > 1
                                  ? fmt::format(", {} ranks", m.tensor_parallel_ranks())
                                  : "")},
      {"limits",
       fmt::format("{} running, {} waiting, {} tokens a step, rank {}, {} adapters, upload {}",
                   l.max_running_requests(), l.max_waiting_requests(), l.max_step_tokens(),
                   l.max_rank(), l.max_adapters(), Bytes(l.max_upload_bytes()))},
      {"keeps",
       fmt::format("{} replaced versions of an adapter, prefix cache {}, {} pages pinned",
                   l.keep_versions(), l.prefix_cache() ? "on" : "off", l.max_pinned_pages())},
      {"server", fmt::format("{}, started {}", m.server_version(), Ago(m.start_time()))},
  };
  for (const auto& [label, value] : rows) {
    terminal.out() << terminal.Paint(Color::kDim, fmt::format("{:<11}", label)) << value << "\n";
  }
  return kOk;
}

ExitCode Health(const std::string& service, Session* session) {
  const auto serving = session->client().IsServing(service, session->call());
  if (!serving.ok()) return session->Fail(serving.status());
  const std::string_view word = *serving ? "SERVING" : "NOT_SERVING";
  session->terminal.out() << (session->json ? fmt::format("{{\"status\":\"{}\"}}", word)
                                            : std::string(word))
                          << "\n";
  return *serving ? kOk : kUnavailable;
}

ExitCode Drain(double wait_s, Session* session) {
  std::optional<std::chrono::milliseconds> wait;
  if (wait_s > 0) wait = std::chrono::milliseconds(static_cast<int64_t>(wait_s * 1000));
  const auto drained = session->client().Drain(wait, session->call());
  if (!drained.ok()) return session->Fail(drained.status());
  if (session->json) {
    session->terminal.out() << ToJson(*drained) << "\n";
  } else {
    session->terminal.out() << fmt::format("{} requests ended, {} still running\n",
                                           drained->finished_requests(),
                                           drained->remaining_requests());
  }
  return drained->remaining_requests() == 0 ? kOk : kDeadline;
}

}  // namespace

void AddAdmin(CLI::App* app, Session* session) {
  CLI::App* model = app->add_subcommand("model", "The base model, its backend and the limits");
  model->callback([session] { session->run = [session] { return ShowModel(session); }; });

  auto service = std::make_shared<std::string>();
  CLI::App* health =
      app->add_subcommand("health", "Whether the server takes requests (exit code 0 or 3)");
  health->add_option("service", *service, "One service, as lorad.v1.Inference [the server]");
  health->callback([=] { session->run = [=] { return Health(*service, session); }; });

  auto wait_s = std::make_shared<double>(0);
  CLI::App* drain = app->add_subcommand(
      "drain", "Admit no more requests and wait for the running ones; only a restart ends it");
  drain->add_option("--wait", *wait_s, "Wait so many seconds at most [until all have ended]");
  drain->footer("Exit code 4: requests were still running when the wait was over.");
  drain->callback([=] { session->run = [=] { return Drain(*wait_s, session); }; });
}

}  // namespace lorad::loractl
