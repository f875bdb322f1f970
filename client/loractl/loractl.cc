// The application: global options, the commands, and the end.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

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
    "  loractl COMMAND --help                          more about a command\n"
    "\n"
    "Results go to standard output, all else to standard error. With --json, one message of the "
    "gRPC\n"
    "interface a line (adapters list: one array), fields named as in proto/lorad/v1.\n"
    "\n"
    "Exit codes:\n"
    "  0  done\n"
    "  1  the command line is wrong, or a local file cannot be read\n"
    "  2  the server refused the request: an invalid field (named), no such adapter, it exists "
    "already\n"
    "  3  no connection, or the server admits no requests now\n"
    "  4  --timeout passed\n"
    "  5  the server has no room now; try again later\n"
    "  6  the server failed, or the call was cancelled\n";

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
  app.add_option("--timeout", session.timeout_s, "Seconds that a call may take [no limit]")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", session.json, "Print results as JSON");
  app.footer(kFooter);
  AddGenerate(&app, &session);
  AddChat(&app, &session);
  AddScore(&app, &session);
  AddAdapters(&app, &session);
  AddAdmin(&app, &session);
  AddTop(&app, &session);

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
