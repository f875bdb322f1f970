// loractl adapters watch.
#include <CLI/CLI.hpp>
#include <memory>

#include "client/loractl/adapter_commands.h"
#include "client/loractl/adapter_views.h"
#include "client/loractl/json.h"

namespace lorad::loractl {
namespace {

struct Options {
  std::vector<std::string> labels;
  int count = 0;  // 0: until interrupted
};

ExitCode Run(const Options& options, Session* session) {
  const auto labels = ParseLabels(options.labels);
  if (!labels.ok()) return session->Usage(std::string(labels.status().message()));
  const Terminal& terminal = session->terminal;
  int events = 0;
  const absl::Status status = session->client().WatchAdapters(
      *labels,
      [&](const v1::WatchAdaptersResponse& event) {
        terminal.out() << (session->json ? ToJson(event) : EventLine(event, terminal)) << std::endl;
        return ++events != options.count;
      },
      session->call());
  return status.ok() ? kOk : session->Fail(status);
}

}  // namespace

void AddAdapterWatch(CLI::App* group, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* watch = group->add_subcommand("watch", "Print changes of adapters as they happen");
  AddLabelFilter(watch, &options->labels);
  watch->add_option("--count", options->count, "End after so many events [never]")
      ->check(CLI::NonNegativeNumber);
  watch->footer(
      "First a line INITIAL for each adapter and one SYNCED, then CHANGED and DELETED as it "
      "happens,\nuntil Ctrl-C, --timeout, or the server drains (exit code 3).\n"
      "Example: what is loaded and evicted?\n"
      "  loractl adapters watch --json | jq -r '[.type, .adapter.name, .adapter.state] | @tsv'");
  watch->callback([=] { session->run = [=] { return Run(*options, session); }; });
}

}  // namespace lorad::loractl
