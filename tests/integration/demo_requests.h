// Requests to a daemon that serves the demo model, and what came back, whole.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "client/client.h"

namespace lorad::integration {

struct EvalCase {
  std::string adapter;
  std::string prompt;
  std::string expected;
};

// Names of the demo's adapters, sorted.
std::vector<std::string> DemoAdapters();
std::string DemoAdapterPath(const std::string& name);
// demo/eval/<adapter>.jsonl; the first `most` of its lines.
std::vector<EvalCase> LoadEval(const std::string& adapter, size_t most = 1000);

v1::GenerateRequest GreedyRequest(const std::string& adapter, const std::string& prompt,
                                  int max_tokens = 64);
// Does not end before it has made `tokens` tokens.
v1::GenerateRequest LongRequest(const std::string& adapter, const std::string& prompt, int tokens);

// A whole answer. Two of the same request are equal if every token and every bit of every
// log-probability is.
struct Answer {
  absl::Status status;
  std::string text;
  std::vector<int> tokens;
  std::vector<std::string> logprobs;  // serialized, one a token
  double total_logprob = 0;
  std::string prompt_text;
  std::vector<int> prompt_tokens;
  v1::GenerateFinish finish;

  bool SameOutput(const Answer& other) const {
    return text == other.text && tokens == other.tokens && logprobs == other.logprobs;
  }
};

Answer Ask(Client* client, const v1::GenerateRequest& request);
// Answers in the order of the requests, `in_flight` at a time.
std::vector<Answer> AskAll(Client* client, const std::vector<v1::GenerateRequest>& requests,
                           int in_flight);

// A request that runs in a thread of its own.
class BackgroundAnswer {
 public:
  BackgroundAnswer(Client* client, const v1::GenerateRequest& request);
  ~BackgroundAnswer();  // cancels it

  // Waits until it made its first token, or ended. False: it ended.
  bool WaitForToken();
  bool ended() const;
  void Cancel() { call_->Cancel(); }
  const Answer& Wait();  // for its end

 private:
  struct State;
  const std::shared_ptr<State> state_;
  std::unique_ptr<GenerateCall> call_;
};

}  // namespace lorad::integration
