#include "tests/integration/demo_requests.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/integration/daemon_process.h"

namespace lorad::integration {
namespace {

constexpr CallOptions kPatient{.timeout = std::chrono::minutes(2)};

void Append(const v1::GenerateResponse& message, Answer* answer) {
  answer->text += message.text();
  answer->tokens.insert(answer->tokens.end(), message.token_ids().begin(),
                        message.token_ids().end());
  for (const v1::TokenLogprobs& token : message.logprobs()) {
    answer->logprobs.push_back(token.SerializeAsString());
    answer->total_logprob += token.logprob();
  }
  answer->prompt_text += message.prompt_text();
  answer->prompt_tokens.insert(answer->prompt_tokens.end(), message.prompt_token_ids().begin(),
                               message.prompt_token_ids().end());
  if (message.has_finish()) answer->finish = message.finish();
}

}  // namespace

std::vector<std::string> DemoAdapters() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(SourcePath("demo/adapters"))) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string DemoAdapterPath(const std::string& name) {
  return std::filesystem::canonical(SourcePath("demo/adapters/" + name)).string();
}

std::vector<EvalCase> LoadEval(const std::string& adapter, size_t most) {
  std::ifstream in(SourcePath("demo/eval/" + adapter + ".jsonl"));
  std::vector<EvalCase> cases;
  for (std::string line; cases.size() < most && std::getline(in, line);) {
    const auto fields = nlohmann::json::parse(line);
    cases.push_back(
        {.adapter = adapter, .prompt = fields["prompt"], .expected = fields["expected"]});
  }
  EXPECT_FALSE(cases.empty()) << adapter << " has no evaluation prompts";
  return cases;
}

v1::GenerateRequest GreedyRequest(const std::string& adapter, const std::string& prompt,
                                  int max_tokens) {
  v1::GenerateRequest request;
  request.set_adapter(adapter);
  request.mutable_prompt()->set_text(prompt);
  request.mutable_sampling()->set_temperature(0);
  request.set_max_tokens(max_tokens);
  return request;
}

v1::GenerateRequest LongRequest(const std::string& adapter, const std::string& prompt, int tokens) {
  v1::GenerateRequest request = GreedyRequest(adapter, prompt, tokens);
  request.set_ignore_eos(true);
  return request;
}

Answer Ask(Client* client, const v1::GenerateRequest& request) {
  Answer answer;
  const auto finish = client->Generate(
      request,
      [&answer](const v1::GenerateResponse& message) {
        Append(message, &answer);
        return true;
      },
      kPatient);
  answer.status = finish.status();
  return answer;
}

std::vector<Answer> AskAll(Client* client, const std::vector<v1::GenerateRequest>& requests,
                           int in_flight) {
  std::vector<Answer> answers(requests.size());
  std::atomic<size_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < in_flight; ++i) {
    threads.emplace_back([&] {
      for (size_t at; (at = next.fetch_add(1)) < requests.size();) {
        answers[at] = Ask(client, requests[at]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return answers;
}

struct BackgroundAnswer::State {
  std::mutex mutex;
  std::condition_variable changed;
  Answer answer;       // guarded by mutex; constant once ended
  bool ended = false;  // guarded by mutex
};

BackgroundAnswer::BackgroundAnswer(Client* client, const v1::GenerateRequest& request)
    : state_(std::make_shared<State>()) {
  const auto state = state_;
  call_ = client->GenerateAsync(request,
                                {.on_message =
                                     [state](const v1::GenerateResponse& message) {
                                       const std::lock_guard lock(state->mutex);
                                       Append(message, &state->answer);
                                       state->changed.notify_all();
                                     },
                                 .on_done =
                                     [state](const absl::Status& status) {
                                       const std::lock_guard lock(state->mutex);
                                       state->answer.status = status;
                                       state->ended = true;
                                       state->changed.notify_all();
                                     }},
                                kPatient);
}

BackgroundAnswer::~BackgroundAnswer() = default;

bool BackgroundAnswer::WaitForToken() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [this] { return state_->ended || !state_->answer.tokens.empty(); });
  return !state_->ended;
}

bool BackgroundAnswer::ended() const {
  const std::lock_guard lock(state_->mutex);
  return state_->ended;
}

const Answer& BackgroundAnswer::Wait() {
  call_->Wait();
  return state_->answer;
}

}  // namespace lorad::integration
