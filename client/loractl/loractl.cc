// The application: global options, the commands, and the end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

constexpr char kFooter[] =
    "First steps:\n"
    "  loractl health                                  is the server there?\n"
    "  loractl model                                   what does it serve?\n"
    "  loractl adapters upload ./pirate                give it an adapter (a PEFT directory)\n"
    "  loractl generate -a pirate \"Good day, friend.\"  use it\n"
    "  loractl generate --base -a pirate -a json \"Hi\"  compare, side by side\n"
    "  loractl pool                                    see what memory holds\n"
    "  loractl pool fit --rank 16                      how many more would fit?\n"
    "  loractl adapters sync ./adapters --prune        make the server equal a directory\n"
    "  loractl COMMAND --help                          more about a command\n"
    "\n"
    "Results go to standard output, all else to standard error. With --json, one message of the "
    "gRPC\n"
    "interface a line (lists: one array), fields named as in proto/lorad/v1.\n"
    "\n"
    "Exit codes:\n"
    "  0  done\n"
    "  1  the command line is wrong, or a local file cannot be read\n"
    "  2  the server refused the request: an invalid field (named), no such adapter, it exists "
    "already,\n"
    "     it has another etag, or belongs to somebody else\n"
    "  3  no connection, or the server admits no requests now\n"
    "  4  --timeout passed\n"
    "  5  the server has no room now; try again later\n"
    "  6  the server failed, or the call was cancelled\n";

// What may travel as metadata; the server knows which tenants there are.
CLI::Validator TenantName() {
  return CLI::Validator(
      [](std::string& name) {
        const bool fine =
            std::all_of(name.begin(), name.end(), [](char c) { return c > ' ' && c <= '~'; });
        return fine ? std::string() : std::string("a tenant's name is printable ASCII");
      },
      "");
}

}  // namespace

int RunLoractl(int argc, const char* const* argv, std::istream& in, std::ostream& out,
               std::ostream& err, bool interactive) {
  Session session;
  session.terminal = Terminal(&out, &err, interactive);
  session.in = &in;

  CLI::App app("Client of lorad, the multi-tenant LoRA server.", "loractl");
  app.fallthrough();  // global options may follow the command
  app.require_subcommand(1);
  app.add_option("--address", session.address, "Server, host:port [127.0.0.1:7433]")
      ->envname("LORAD_ADDRESS")
      ->take_last();
  app.add_option("--tenant", session.tenant, "Speak for this tenant [the operator: all of them]")
      ->envname("LORAD_TENANT")
      ->check(TenantName())
      ->take_last();
  app.add_option("--timeout", session.timeout_s, "Seconds that a call may take [no limit]")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", session.json, "Print results as JSON");
  AddGenerate(&app, &session);
  AddChat(&app, &session);
  AddScore(&app, &session);
  AddAdapters(&app, &session);
  AddAdmin(&app, &session);
  AddPool(&app, &session);
  AddTop(&app, &session);
  app.footer(kFooter);  // after the commands, or each would inherit it

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, err) == 0 ? kOk : kUsage;
  }
  const ExitCode code = session.run();
  out.flush();
  return code;
}

}  // namespace lorad::loractl
