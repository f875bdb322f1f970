// OutputText: turns one request's output tokens into text, finds stop strings, and decides what may
// be sent. Text that could still become a stop string, or half a character, is held back. One
// request's; engine thread only.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/sampling.h"
#include "model/tokenizer/tokenizer.h"

namespace lorad {

class OutputText {
 public:
  // `tokenizer` may be null: no text is made (the client wants ids only) and stop strings must be
  // empty.
  OutputText(const Tokenizer* tokenizer, std::vector<std::string> stop_strings, bool include_stop);

  // Text that became certain with `token`. If a stop string was completed, `matched_stop()` is set
  // and the text ends before it (or with it, if include_stop). `allow_stop`: false while fewer than
  // min_tokens are made.
  std::string Push(TokenId token, bool allow_stop);
  // The held-back rest, at the end of an output that no stop string ended.
  std::string Flush();

  const std::string& matched_stop() const { return matched_stop_; }

 private:
  std::string Release(bool allow_stop);

  std::unique_ptr<IncrementalDetokenizer> detokenizer_;  // null: no text
  std::vector<std::string> stop_strings_;
  bool include_stop_;
  std::string held_;
  std::string matched_stop_;
};

}  // namespace lorad
