// loractl adapters: list, get, versions; the other commands are in adapter_*.cc.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "client/loractl/adapter_commands.h"
#include "client/loractl/adapter_views.h"
#include "client/loractl/json.h"

namespace lorad::loractl {
namespace {

constexpr char kFooter[] =
    "Examples:\n"
    "  loractl adapters upload ./pirate                     # becomes adapters/pirate\n"
    "  loractl adapters upload ./out --id pirate --replace  # a new version of it\n"
    "  loractl adapters create pirate /srv/lora/pirate      # files that lie on the server\n"
    "  loractl adapters list -l team=sea --wide\n"
    "  loractl adapters list --state RESIDENT --json | jq -r '.[].name'\n"
    "  loractl adapters versions pirate                     # then: rollback pirate\n"
    "  loractl adapters pin pirate                          # never wait for it to load\n"
    "  loractl adapters sync /srv/adapters --prune          # make the server equal a directory\n"
    "  loractl --tenant acme adapters upload ./pirate       # becomes adapters/acme/pirate";

struct ListOptions {
  std::string state;
  std::vector<std::string> labels;
  bool wide = false;
};

ExitCode List(const ListOptions& options, Session* session) {
  AdapterFilter filter;
  if (!options.state.empty() && !v1::Adapter::State_Parse(options.state, &filter.state)) {
    return session->Usage(fmt::format("--state: no such state: {}", options.state));
  }
  auto labels = ParseLabels(options.labels);
  if (!labels.ok()) return session->Usage(std::string(labels.status().message()));
  filter.labels = *std::move(labels);
  const auto adapters = session->client().ListAdapters(filter, session->call());
  if (!adapters.ok()) return session->Fail(adapters.status());
  if (session->json) {
    session->terminal.out() << ToJsonArray(*adapters) << "\n";
  } else if (adapters->empty()) {
    session->terminal.err() << "no adapters\n";
  } else {
    session->terminal.out() << AdapterTable(*adapters, options.wide, session->terminal);
  }
  return kOk;
}

ExitCode Get(const std::vector<std::string>& names, Session* session) {
  for (const std::string& name : names) {
    const ExitCode code = Show(session->client().GetAdapter(name, session->call()), session);
    if (code != kOk) return code;
  }
  return kOk;
}

ExitCode Versions(const std::string& name, Session* session) {
  const auto versions = session->client().ListAdapterVersions(name, session->call());
  if (!versions.ok()) return session->Fail(versions.status());
  session->terminal.out() << (session->json ? ToJsonArray(*versions) + "\n"
                                            : VersionTable(*versions, session->terminal));
  return kOk;
}

}  // namespace

ExitCode Show(const absl::StatusOr<v1::Adapter>& adapter, Session* session) {
  if (!adapter.ok()) return session->Fail(adapter.status());
  session->terminal.out() << (session->json ? ToJson(*adapter) + "\n"
                                            : AdapterDetails(*adapter, session->terminal));
  return kOk;
}

void AddAdapters(CLI::App* app, Session* session) {
  CLI::App* group = app->add_subcommand("adapters", "The adapters that the server keeps");
  group->require_subcommand(1);
  group->footer(kFooter);

  auto list_options = std::make_shared<ListOptions>();
  CLI::App* list = group->add_subcommand("list", "All adapters");
  list->add_option("--state", list_options->state, "Only STORED, LOADING or RESIDENT ones");
  AddLabelFilter(list, &list_options->labels);
  list->add_flag("-w,--wide", list_options->wide,
                 "Print image, pages, requests, aliases and labels too");
  list->footer(
      "STORED is what the files take on disk, STAGED what waits in host memory for a GPU (only if\n"
      "any does), RESIDENT what lies in the pool now.");
  list->callback([=] { session->run = [=] { return List(*list_options, session); }; });

  auto names = std::make_shared<std::vector<std::string>>();
  CLI::App* get = group->add_subcommand("get", "All about adapters: settings, etag, sizes, use");
  get->add_option("name", *names, "Adapters; NAME@3 is version 3")->required();
  get->callback([=] { session->run = [=] { return Get(*names, session); }; });

  auto name = std::make_shared<std::string>();
  CLI::App* versions =
      group->add_subcommand("versions", "The versions that are kept of an adapter");
  versions->add_option("name", *name, "Adapter")->required();
  versions->footer(
      "Requests may name a kept version as NAME@VERSION; `rollback` makes one current again.");
  versions->callback([=] { session->run = [=] { return Versions(*name, session); }; });

  AddAdapterUpload(group, session);
  AddAdapterChanges(group, session);
  AddAdapterSync(group, session);
  AddAdapterWatch(group, session);
}

}  // namespace lorad::loractl
