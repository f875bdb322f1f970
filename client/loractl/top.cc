// loractl top: a live view of load and pool.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <thread>

#include "client/loractl/json.h"
#include "client/loractl/load_view.h"
#include "client/loractl/pool_views.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

struct Options {
  double interval_s = 1;
  int count = 0;  // 0: until interrupted
  int rows = 15;
};

ExitCode Run(const Options& options, Session* session) {
  const Terminal& terminal = session->terminal;
  std::optional<v1::Stats> before;
  for (int i = 0; options.count == 0 || i < options.count; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::duration<double>(options.interval_s));
    const auto stats = session->client().GetStats(session->call());
    if (!stats.ok()) return session->Fail(stats.status());
    const auto pool = session->client().GetPool(options.rows, session->call());
    if (!pool.ok()) return session->Fail(pool.status());
    if (session->json) {
      terminal.out() << fmt::format("{{\"stats\":{},\"pool\":{}}}", ToJson(*stats), ToJson(*pool))
                     << std::endl;
    } else {
      const std::string view = Load(before.value_or(*stats), *stats, terminal) + "\n" +
                               PoolPicture(*pool, terminal) + "\n" +
                               PoolAdapters(*pool, options.rows, terminal);
      terminal.Clear();
      terminal.out() << view << std::flush;
    }
    before = *stats;
  }
  return kOk;
}

}  // namespace

void AddTop(CLI::App* app, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand("top", "Live view of load, pool and adapters");
  command->add_option("-i,--interval", options->interval_s, "Seconds between views [1]")
      ->check(CLI::PositiveNumber);
  command->add_option("--count", options->count, "End after so many views [never]");
  command->add_option("--rows", options->rows, "Adapters to list [15]");
  command->callback(
      [options, session] { session->run = [options, session] { return Run(*options, session); }; });
}

}  // namespace lorad::loractl
