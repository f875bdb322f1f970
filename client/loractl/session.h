// Session: what every loractl command shares: the global options, the connection, the terminal, and
// how an end becomes an exit code. One thread, unless a member says otherwise.
#pragma once

#include <functional>
#include <istream>
#include <memory>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "client/client.h"
#include "client/loractl/terminal.h"

namespace CLI {
class App;
}

namespace lorad::loractl {

// Part of the interface: `loractl --help` lists them.
enum ExitCode : int {
  kOk = 0,
  kUsage = 1,        // the command line is wrong, or a local file cannot be read
  kRefused = 2,      // the server refused the request as it is
  kUnavailable = 3,  // no connection, or the server is draining
  kDeadline = 4,     // --timeout passed
  kOverloaded = 5,   // the server has no room now: try again later
  kFailed = 6,       // the server failed, or the call was cancelled
};

ExitCode ExitCodeOf(const absl::Status& status);

struct Session {
  Terminal terminal;
  std::istream* in = nullptr;

  std::string address = kDefaultAddress;
  std::string tenant;    // empty: the operator
  double timeout_s = 0;  // 0: none
  bool json = false;

  std::function<ExitCode()> run;  // set by the command that the user named

  // Connects at its first call, after the options are parsed.
  Client& client();
  CallOptions call() const;
  // Prints the error to `err`, for people.
  ExitCode Fail(const absl::Status& status);
  ExitCode Usage(const std::string& problem);
  // The text of a prompt: `words` joined by spaces, else `file`, else standard input ("-" is
  // standard input too).
  absl::StatusOr<std::string> ReadPrompt(const std::vector<std::string>& words,
                                         const std::string& file);

 private:
  std::unique_ptr<Client> client_;
};

// Each adds its commands to the application. `session` outlives the parse.
void AddGenerate(CLI::App* app, Session* session);
void AddChat(CLI::App* app, Session* session);
void AddScore(CLI::App* app, Session* session);     // score, tokenize, detokenize
void AddAdapters(CLI::App* app, Session* session);  // see adapter_commands.h
void AddAdmin(CLI::App* app, Session* session);     // model, health, drain
void AddPool(CLI::App* app, Session* session);      // pool, pool fit, tenants
void AddTop(CLI::App* app, Session* session);

// The whole program with its surroundings as parameters. `interactive`: `out` is a terminal.
int RunLoractl(int argc, const char* const* argv, std::istream& in, std::ostream& out,
               std::ostream& err, bool interactive);

}  // namespace lorad::loractl
