// loractl chat: a running text that the user and the model continue in turn. No chat template: what
// the model sees is exactly what is shown.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <memory>

#include "client/loractl/request_options.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

constexpr char kHelp[] =
    "/adapter NAME  answer with this adapter from now on; without NAME: the base model\n"
    "/text          show the running text\n"
    "/reset         forget it\n"
    "/quit          leave (so does the end of input)\n";

struct Options : RequestOptions {
  std::string adapter;
  std::string user_prefix, model_prefix;  // with escapes
};

std::atomic<bool> interrupted{false};

// While it lives, an interrupt ends the answer instead of the program.
class InterruptGuard {
 public:
  InterruptGuard() {
    interrupted = false;
    struct sigaction action {};
    action.sa_handler = [](int) { interrupted = true; };
    sigaction(SIGINT, &action, &before_);
  }
  ~InterruptGuard() { sigaction(SIGINT, &before_, nullptr); }

 private:
  struct sigaction before_ {};
};

class Chat {
 public:
  Chat(const Options& options, Session* session)
      : options_(options), session_(session), adapter_(options.adapter) {}

  ExitCode Loop() {
    const Terminal& terminal = session_->terminal;
    if (terminal.interactive()) {
      terminal.out() << terminal.Paint(Color::kDim, "/help lists commands; Ctrl-C ends an answer.")
                     << "\n";
    }
    std::string line;
    while (true) {
      terminal.out() << terminal.Paint(Color::kGreen, ShortName(adapter_) + "> ") << std::flush;
      if (!std::getline(*session_->in, line) || line == "/quit") break;
      if (!line.empty() && line[0] == '/') {
        Command(line);
      } else if (const absl::Status status = Answer(line); !status.ok()) {
        last_error_ = session_->Fail(status);
      }
    }
    terminal.out() << "\n";
    // With a person at the terminal the errors were seen; a script wants to know.
    return terminal.interactive() ? kOk : last_error_;
  }

 private:
  void Command(const std::string& line) {
    const Terminal& terminal = session_->terminal;
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    if (name == "/adapter") {
      adapter_ = space == std::string::npos ? "" : line.substr(space + 1);
    } else if (name == "/text") {
      terminal.out() << text_ << "\n";
    } else if (name == "/reset") {
      text_.clear();
    } else {
      terminal.out() << kHelp;
    }
  }

  absl::Status Answer(const std::string& line) {
    const Terminal& terminal = session_->terminal;
    const std::string before = text_;
    text_ += Unescape(options_.user_prefix) + line + Unescape(options_.model_prefix);
    const InterruptGuard guard;
    const auto finish = session_->client().Generate(
        options_.Request(adapter_, text_),
        [&](const v1::GenerateResponse& message) {
          terminal.out() << message.text() << std::flush;
          text_ += message.text();
          return !interrupted;
        },
        session_->call());
    terminal.out() << "\n";
    if (finish.ok() || interrupted) {
      if (text_.empty() || text_.back() != '\n') text_ += "\n";
      return absl::OkStatus();
    }
    text_ = before;  // as if it had not been asked
    return finish.status();
  }

  const Options& options_;
  Session* const session_;
  std::string adapter_;
  std::string text_;  // all that was said, as the model sees it
  ExitCode last_error_ = kOk;
};

}  // namespace

void AddChat(CLI::App* app, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand("chat", "Talk with the model, one line in turn");
  command->add_option("-a,--adapter", options->adapter, "Adapter to use [the base model]");
  command->add_option("--user-prefix", options->user_prefix,
                      "Put before each of your lines [nothing]");
  options->model_prefix = "\\n";
  command->add_option("--model-prefix", options->model_prefix,
                      "Put after each of your lines [a line feed]");
  options->AddTo(command);
  command->footer(
      "The model continues one running text, without a chat template: give the form it was "
      "trained\n"
      "on with the prefixes.\n"
      "Example:\n"
      "  loractl chat -a pirate --user-prefix 'English: ' --model-prefix '\\nPirate:' --stop "
      "'\\n'");
  command->callback([options, session] {
    session->run = [options, session] { return Chat(*options, session).Loop(); };
  });
}

}  // namespace lorad::loractl
