#include "server/output_text.h"

#include <algorithm>
#include <utility>

namespace lorad {
namespace {

// Length of the longest proper prefix of `stop` that `text` ends with.
size_t PartialMatch(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

OutputText::OutputText(const Tokenizer* tokenizer, std::vector<std::string> stop_strings,
                       bool include_stop)
    : stop_strings_(std::move(stop_strings)), include_stop_(include_stop) {
  if (tokenizer != nullptr) detokenizer_ = tokenizer->NewDetokenizer(/*skip_special_tokens=*/true);
}

std::string OutputText::Push(TokenId token, bool allow_stop) {
  if (detokenizer_ == nullptr) return {};
  held_ += detokenizer_->Push(token);
  return Release(allow_stop);
}

std::string OutputText::Release(bool allow_stop) {
  if (allow_stop) {
    size_t first = std::string::npos;
    const std::string* found = nullptr;
    for (const std::string& stop : stop_strings_) {
      const size_t at = held_.find(stop);
      if (at < first) {
        first = at;
        found = &stop;
      }
    }
    if (found != nullptr) {
      matched_stop_ = *found;
      held_.resize(first + (include_stop_ ? found->size() : 0));
      return std::exchange(held_, {});
    }
  }
  size_t keep = 0;
  for (const std::string& stop : stop_strings_) keep = std::max(keep, PartialMatch(held_, stop));
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return out;
}

std::string OutputText::Flush() {
  if (detokenizer_ == nullptr) return {};
  held_ += detokenizer_->Flush();
  return std::exchange(held_, {});
}

}  // namespace lorad
