// The command-line options that describe a Generate request, shared by generate and chat.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lorad/v1/inference.pb.h"

namespace CLI {
class App;
}

namespace lorad::loractl {

struct RequestOptions {
  std::optional<int> max_tokens, min_tokens, top_k, logprobs;
  std::optional<float> temperature, top_p, min_p;
  std::optional<float> repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;  // with escapes
  std::vector<int> stop_tokens;
  std::string cache_salt;
  std::string priority;
  bool ignore_eos = false;
  bool no_special_tokens = false;

  void AddTo(CLI::App* app);
  // A request for `text`; unset options stay unset.
  v1::GenerateRequest Request(const std::string& adapter, const std::string& text) const;
};

}  // namespace lorad::loractl
