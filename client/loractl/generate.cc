// loractl generate: one prompt to one adapter, or to several at once.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <mutex>

#include "client/loractl/json.h"
#include "client/loractl/request_options.h"
#include "client/loractl/session.h"

namespace lorad::loractl {
namespace {

struct Options : RequestOptions {
  std::vector<std::string> words;
  std::string file;
  std::vector<std::string> adapters;
  bool base = false;
  bool escapes = false;
  bool stats = false;
};

std::string FinishLine(const v1::GenerateFinish& finish) {
  const auto& usage = finish.usage();
  const double total = Seconds(finish.timings().total());
  const double first = Seconds(finish.timings().time_to_first_token());
  std::string reason = v1::FinishReason_Name(finish.reason());
  constexpr std::string_view kPrefix = "FINISH_REASON_";
  if (reason.rfind(kPrefix, 0) == 0) reason.erase(0, kPrefix.size());
  std::string line =
      fmt::format("{} | {} prompt ({} cached) + {} tokens | first {}", reason,
                  usage.prompt_tokens(), usage.cached_tokens(), usage.completion_tokens(),
                  Millis(finish.timings().time_to_first_token()));
  if (usage.completion_tokens() > 1 && total > first) {
    line +=
        fmt::format(" | then {:.1f} tokens/s", (usage.completion_tokens() - 1) / (total - first));
  }
  if (finish.adapter_version() > 0) line += fmt::format(" | version {}", finish.adapter_version());
  return line + fmt::format(" | seed {}", finish.seed());
}

// Collects a stream into one message: what --json prints.
void Append(const v1::GenerateResponse& message, v1::GenerateResponse* all) {
  all->mutable_text()->append(message.text());
  all->mutable_token_ids()->MergeFrom(message.token_ids());
  all->mutable_logprobs()->MergeFrom(message.logprobs());
  if (message.has_finish()) *all->mutable_finish() = message.finish();
}

void PrintLogprobs(const v1::GenerateResponse& all, const Terminal& terminal) {
  Table table({"TOKEN", "LOGPROB", "LIKELIEST"});
  for (const auto& token : all.logprobs()) {
    std::vector<std::string> top;
    for (const auto& t : token.top()) {
      top.push_back(fmt::format("{} {:.3f}", Visible(t.piece()), t.logprob()));
    }
    table.Add({Visible(token.piece()), fmt::format("{:.4f}", token.logprob()), Join(top, "  ")});
  }
  terminal.out() << table.Text(terminal, {1});
}

ExitCode RunOne(const Options& options, const std::string& adapter, const std::string& prompt,
                Session* session) {
  const Terminal& terminal = session->terminal;
  v1::GenerateResponse all;
  const auto finish = session->client().Generate(
      options.Request(adapter, prompt),
      [&](const v1::GenerateResponse& message) {
        Append(message, &all);
        if (!session->json) terminal.out() << message.text() << std::flush;
        return true;
      },
      session->call());
  if (!session->json && (finish.ok() || !all.text().empty())) terminal.out() << "\n";
  if (!finish.ok()) return session->Fail(finish.status());
  if (session->json) {
    terminal.out() << ToJson(all) << "\n";
    return kOk;
  }
  if (options.logprobs) PrintLogprobs(all, terminal);
  if (options.stats || terminal.interactive()) {
    terminal.err() << terminal.Paint(Color::kDim, "[" + FinishLine(*finish) + "]") << "\n";
  }
  return kOk;
}

// Several streams at once, printed line by line, each line labelled with its adapter. Callbacks
// come on many threads.
class Interleaver {
 public:
  Interleaver(Session* session, const std::vector<std::string>& adapters, bool stats)
      : session_(session), stats_(stats) {
    for (const std::string& adapter : adapters) {
      label_width_ = std::max(label_width_, ShortName(adapter).size());
    }
    streams_.resize(adapters.size());
    for (size_t i = 0; i < adapters.size(); ++i) streams_[i].adapter = adapters[i];
  }

  void OnMessage(size_t i, const v1::GenerateResponse& message) {
    const std::lock_guard lock(mutex_);
    Stream& stream = streams_[i];
    Append(message, &stream.all);
    if (session_->json) return;
    stream.line += message.text();
    while (true) {
      const size_t end = LineEnd(stream.line);
      if (end == std::string::npos) return;
      const bool feed = stream.line[end] == '\n';
      Print(i, stream.line.substr(0, end));
      stream.line.erase(0, end + (feed || stream.line[end] == ' ' ? 1 : 0));
    }
  }

  void OnDone(size_t i, const absl::Status& status) {
    const std::lock_guard lock(mutex_);
    Stream& stream = streams_[i];
    if (!stream.line.empty()) Print(i, stream.line);
    if (!status.ok()) {
      session_->terminal.err() << ShortName(stream.adapter) << ": ";
      const ExitCode code = session_->Fail(status);
      if (exit_code_ == kOk) exit_code_ = code;
    } else if (session_->json) {
      session_->terminal.out() << ToJson(stream.all) << std::endl;
    } else if (stats_) {
      Print(i, session_->terminal.Paint(Color::kDim, "[" + FinishLine(stream.all.finish()) + "]"));
    }
  }

  ExitCode exit_code() const { return exit_code_; }  // after all are done

 private:
  struct Stream {
    std::string adapter;
    std::string line;  // text that is not printed yet
    v1::GenerateResponse all;
  };

  // Where the first printable line of `text` ends: at a line feed, or at a space once it is as wide
  // as the terminal.
  size_t LineEnd(const std::string& text) const {
    const size_t room =
        std::max<size_t>(20, static_cast<size_t>(session_->terminal.width()) - label_width_ - 4);
    const size_t feed = text.find('\n');
    if (feed != std::string::npos && feed <= room) return feed;
    if (text.size() <= room) return std::string::npos;
    const size_t space = text.rfind(' ', room);
    return space != std::string::npos && space > 0 ? space : std::min(feed, text.find(' ', room));
  }

  void Print(size_t i, const std::string& line) {
    const std::string label =
        fmt::format("{:<{}} | ", ShortName(streams_[i].adapter), label_width_);
    session_->terminal.out() << session_->terminal.Paint(NthColor(i), label) << line << std::endl;
  }

  Session* const session_;
  const bool stats_;
  size_t label_width_ = 0;
  std::mutex mutex_;
  std::vector<Stream> streams_;
  ExitCode exit_code_ = kOk;
};

ExitCode RunSeveral(const Options& options, const std::vector<std::string>& adapters,
                    const std::string& prompt, Session* session) {
  Interleaver output(session, adapters, options.stats || session->terminal.interactive());
  std::vector<std::unique_ptr<GenerateCall>> calls;
  for (size_t i = 0; i < adapters.size(); ++i) {
    calls.push_back(session->client().GenerateAsync(
        options.Request(adapters[i], prompt),
        {.on_message = [&output, i](const auto& message) { output.OnMessage(i, message); },
         .on_done = [&output, i](const absl::Status& status) { output.OnDone(i, status); }},
        session->call()));
  }
  for (const auto& call : calls) call->Wait();
  return output.exit_code();
}

ExitCode Run(const Options& options, Session* session) {
  auto prompt = session->ReadPrompt(options.words, options.file);
  if (!prompt.ok()) return session->Usage(std::string(prompt.status().message()));
  if (options.escapes) *prompt = Unescape(*prompt);
  std::vector<std::string> adapters = options.adapters;
  if (options.base || adapters.empty()) adapters.insert(adapters.begin(), "");
  if (adapters.size() == 1) return RunOne(options, adapters[0], *prompt, session);
  return RunSeveral(options, adapters, *prompt, session);
}

}  // namespace

void AddGenerate(CLI::App* app, Session* session) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app->add_subcommand("generate", "Continue a prompt; the text streams");
  command->add_option("prompt", options->words, "The prompt; without it, --file or standard input");
  command->add_option("-f,--file", options->file, "Read the prompt from this file");
  command
      ->add_option("-a,--adapter", options->adapters,
                   "Adapter to use; repeat it to ask several at once [the base model]")
      ->allow_extra_args(false);
  command->add_flag("--base", options->base, "Ask the base model too, beside the adapters");
  command->add_flag("-e,--escapes", options->escapes, "Understand \\n, \\t, \\xHH in the prompt");
  command->add_option("--logprobs", options->logprobs,
                      "Print each token's log-probability and its N likeliest alternatives");
  command->add_flag("--stats", options->stats, "Print counts and times (on a terminal: always)");
  options->AddTo(command);
  command->footer(
      "Examples:\n"
      "  loractl generate \"The capital of France is\" -n 8 -t 0\n"
      "  loractl generate -a pirate -e \"English: good day, friend.\\nPirate:\" --stop '\\n'\n"
      "  loractl generate --base -a pirate -a sentiment \"I like this ship.\"   # side by side\n"
      "  loractl generate -a pirate --json < prompt.txt | jq -r .text");
  command->callback(
      [options, session] { session->run = [options, session] { return Run(*options, session); }; });
}

}  // namespace lorad::loractl
