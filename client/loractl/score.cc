// loractl score, tokenize, detokenize.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <memory>

#include "client/loractl/json.h"
#include "client/loractl/session.h"
#include "client/priority_name.h"

namespace lorad::loractl {
namespace {

struct ScoreOptions {
  std::vector<std::string> words;
  std::string file, context, cache_salt, priority;
  std::vector<std::string> adapters;
  bool base = false;
  bool escapes = false;
  bool tokens = false;
  int top = 0;
};

void PrintTokens(const v1::ScoreResponse& score, const Terminal& terminal) {
  Table table({"ID", "TOKEN", "LOGPROB", "LIKELIEST"});
  for (const auto& token : score.tokens()) {
    std::vector<std::string> top;
    for (const auto& t : token.top()) {
      top.push_back(fmt::format("{} {:.3f}", Visible(t.piece()), t.logprob()));
    }
    table.Add({fmt::format("{}", token.token_id()), Visible(token.piece()),
               token.has_logprob() ? fmt::format("{:.4f}", token.logprob()) : "-",
               Join(top, "  ")});
  }
  terminal.out() << table.Text(terminal, {0, 2});
}

ExitCode RunScore(const ScoreOptions& options, Session* session) {
  const Terminal& terminal = session->terminal;
  auto text = session->ReadPrompt(options.words, options.file);
  if (!text.ok()) return session->Usage(std::string(text.status().message()));
  v1::ScoreRequest request;
  request.set_top_logprobs(options.top);
  request.set_cache_salt(options.cache_salt);
  request.set_priority(PriorityNamed(options.priority));
  request.mutable_continuation()->set_text(options.escapes ? Unescape(*text) : *text);
  if (!options.context.empty()) {
    request.mutable_context()->set_text(options.escapes ? Unescape(options.context)
                                                        : options.context);
  }
  std::vector<std::string> adapters = options.adapters;
  if (options.base || adapters.empty()) adapters.insert(adapters.begin(), "");
  Table table(
      {"ADAPTER", "VERSION", "TOKENS", "CACHED", "LOGPROB", "PER TOKEN", "PERPLEXITY", "GREEDY"});
  for (const std::string& adapter : adapters) {
    request.set_adapter(adapter);
    const auto score = session->client().Score(request, session->call());
    if (!score.ok()) return session->Fail(score.status());
    if (session->json) {
      terminal.out() << ToJson(*score) << "\n";
      continue;
    }
    if (options.tokens || options.top > 0) PrintTokens(*score, terminal);
    const double mean =
        score->tokens_size() > 0 ? score->total_logprob() / score->tokens_size() : 0;
    table.Add({ShortName(score->adapter()), fmt::format("{}", score->adapter_version()),
               fmt::format("{}", score->tokens_size()),
               fmt::format("{}", score->usage().cached_tokens()),
               fmt::format("{:.4f}", score->total_logprob()), fmt::format("{:.4f}", mean),
               fmt::format("{:.3f}", std::exp(-mean)), score->is_greedy() ? "yes" : "no"});
  }
  if (!session->json) terminal.out() << table.Text(terminal, {1, 2, 3, 4, 5, 6});
  return kOk;
}

void AddScoreCommand(CLI::App* app, Session* session) {
  auto options = std::make_shared<ScoreOptions>();
  CLI::App* command = app->add_subcommand("score", "Log-probability of a given text");
  command->add_option("text", options->words, "The text to score; without it, --file or input");
  command->add_option("-f,--file", options->file, "Read the text from this file");
  command->add_option("-c,--context", options->context, "What comes before it; not scored");
  command->add_option("-a,--adapter", options->adapters, "Adapter; repeatable [the base model]")
      ->allow_extra_args(false);
  command->add_flag("--base", options->base, "Score with the base model too");
  command->add_flag("-e,--escapes", options->escapes, "Understand \\n, \\t, \\xHH in both texts");
  command->add_flag("--tokens", options->tokens, "Print each token");
  command->add_option("--cache-salt", options->cache_salt,
                      "Share cached prefixes only with requests of the same salt [none]");
  command
      ->add_option("--priority", options->priority,
                   "How urgent: interactive, standard or batch [standard]")
      ->check(CLI::IsMember(PriorityNames()));
  command->add_option("--top", options->top, "Print the N likeliest tokens at each position");
  command->footer(
      "Example: which adapter finds this answer likeliest?\n"
      "  loractl score --base -a pirate -a json -c \"Ahoy\" \" matey\"");
  command->callback([options, session] {
    session->run = [options, session] { return RunScore(*options, session); };
  });
}

struct TokenizeOptions {
  std::vector<std::string> words;
  std::string file;
  std::vector<int> ids;
  bool no_special_tokens = false;
  bool keep_special_tokens = false;
};

ExitCode RunTokenize(const TokenizeOptions& options, Session* session) {
  const Terminal& terminal = session->terminal;
  const auto text = session->ReadPrompt(options.words, options.file);
  if (!text.ok()) return session->Usage(std::string(text.status().message()));
  v1::TokenizeRequest request;
  request.set_text(*text);
  if (options.no_special_tokens) request.set_add_special_tokens(false);
  const auto tokens = session->client().Tokenize(request, session->call());
  if (!tokens.ok()) return session->Fail(tokens.status());
  if (session->json) {
    terminal.out() << ToJson(*tokens) << "\n";
    return kOk;
  }
  Table table({"ID", "TOKEN"});
  for (int i = 0; i < tokens->token_ids_size(); ++i) {
    table.Add({fmt::format("{}", tokens->token_ids(i)),
               i < tokens->pieces_size() ? Visible(tokens->pieces(i)) : ""});
  }
  terminal.out() << table.Text(terminal, {0})
                 << terminal.Paint(Color::kDim, fmt::format("{} tokens", tokens->token_ids_size()))
                 << "\n";
  return kOk;
}

ExitCode RunDetokenize(const TokenizeOptions& options, Session* session) {
  v1::DetokenizeRequest request;
  request.mutable_token_ids()->Add(options.ids.begin(), options.ids.end());
  if (options.keep_special_tokens) request.set_skip_special_tokens(false);
  const auto text = session->client().Detokenize(request, session->call());
  if (!text.ok()) return session->Fail(text.status());
  session->terminal.out() << (session->json ? ToJson(*text) : text->text()) << "\n";
  return kOk;
}

}  // namespace

void AddScore(CLI::App* app, Session* session) {
  AddScoreCommand(app, session);
  auto options = std::make_shared<TokenizeOptions>();
  CLI::App* tokenize = app->add_subcommand("tokenize", "The token ids of a text");
  tokenize->add_option("text", options->words, "The text; without it, --file or standard input");
  tokenize->add_option("-f,--file", options->file, "Read the text from this file");
  tokenize->add_flag("--no-special-tokens", options->no_special_tokens,
                     "Do not add beginning-of-sequence and the like");
  tokenize->callback([options, session] {
    session->run = [options, session] { return RunTokenize(*options, session); };
  });
  CLI::App* detokenize = app->add_subcommand("detokenize", "The text of token ids");
  detokenize->add_option("ids", options->ids, "Token ids")->required();
  detokenize->add_flag("--special-tokens", options->keep_special_tokens,
                       "Show special tokens in the text");
  detokenize->callback([options, session] {
    session->run = [options, session] { return RunDetokenize(*options, session); };
  });
}

}  // namespace lorad::loractl
