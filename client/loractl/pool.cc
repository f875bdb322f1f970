// loractl pool, pool fit, tenants: what memory and disk hold, and for whom.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "client/loractl/json.h"
#include "client/loractl/pool_views.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

ExitCode ShowPool(int rows, Session* session) {
  const auto pool = session->client().GetPool(rows, session->call());
  if (!pool.ok()) return session->Fail(pool.status());
  const Terminal& terminal = session->terminal;
  if (session->json) {
    terminal.out() << ToJson(*pool) << "\n";
    return kOk;
  }
  terminal.out() << PoolPicture(*pool, terminal) << PoolFacts(*pool) << "\n";
  if (pool->tenants_size() > 0) terminal.out() << PoolTenants(*pool, rows, terminal) << "\n";
  terminal.out() << PoolAdapters(*pool, rows, terminal);
  return kOk;
}

ExitCode ShowFit(const v1::GetFitRequest& request, Session* session) {
  const auto fit = session->client().GetFit(request, session->call());
  if (!fit.ok()) return session->Fail(fit.status());
  session->terminal.out() << (session->json ? ToJson(*fit) + "\n"
                                            : FitText(request, *fit, session->terminal));
  return kOk;
}

ExitCode ShowTenants(Session* session) {
  const auto tenants = session->client().ListTenants(session->call());
  if (!tenants.ok()) return session->Fail(tenants.status());
  if (session->json) {
    session->terminal.out() << ToJsonArray(*tenants) << "\n";
  } else if (tenants->empty()) {
    session->terminal.err() << "no tenants\n";
  } else {
    session->terminal.out() << TenantTable(*tenants, session->terminal);
  }
  return kOk;
}

void AddFit(CLI::App* pool, Session* session) {
  auto request = std::make_shared<v1::GetFitRequest>();
  CLI::App* fit =
      pool->add_subcommand("fit", "How many more adapters or sequences of a kind the pool takes");
  fit->add_option_function<int>(
         "--rank", [request](int rank) { request->set_rank(rank); },
         "Rank of the adapters [none: only sequences]")
      ->check(CLI::PositiveNumber);
  fit->add_option_function<std::vector<std::string>>(
      "--module",
      [request](const std::vector<std::string>& modules) {
        for (const std::string& module : modules) request->add_target_modules(module);
      },
      "Modules that they change, as q_proj v_proj [all that adapters may change]");
  fit->add_option_function<int>(
         "--tokens", [request](int tokens) { request->set_sequence_tokens(tokens); },
         "Length of the sequences, prompt and output [the longest that the server takes]")
      ->check(CLI::PositiveNumber);
  fit->footer(
      "Three answers: in the pages that are free now; in those that can be had at once, which\n"
      "evicts idle adapters and cached prefixes; and in an empty pool.\n"
      "Example:\n"
      "  loractl pool fit --rank 16 --module q_proj v_proj --tokens 2048");
  fit->callback([=] { session->run = [=] { return ShowFit(*request, session); }; });
}

}  // namespace

void AddPool(CLI::App* app, Session* session) {
  auto rows = std::make_shared<int>(50);
  CLI::App* pool = app->add_subcommand("pool", "The page pool: who holds what");
  pool->add_option("--rows", *rows, "Adapters and tenants to list [50]")
      ->check(CLI::Range(1, 10000));
  pool->require_subcommand(0, 1);
  pool->footer(
      "A bar of all pages by what they hold, then who holds them: tenants, and adapters with the\n"
      "pages of their own (WASTE: bytes in these that hold nothing), of keys and values of "
      "running\n"
      "sequences (KV), and of those kept for later prompts (CACHED). Idle adapters and cached\n"
      "prefixes make room as soon as somebody needs it.\n"
      "Examples:\n"
      "  loractl pool --rows 10\n"
      "  loractl pool fit --rank 16 --tokens 2048   # how many more?\n"
      "  loractl pool --json | jq .kv_cached_pages");
  AddFit(pool, session);
  pool->callback([=] {
    if (!pool->get_subcommands().empty()) return;  // it has said what to do
    session->run = [=] { return ShowPool(*rows, session); };
  });

  CLI::App* tenants = app->add_subcommand("tenants", "The tenants: adapters, bytes and limits");
  tenants->footer("What they hold in the pool: loractl pool");
  tenants->callback([=] { session->run = [=] { return ShowTenants(session); }; });
}

}  // namespace lorad::loractl
