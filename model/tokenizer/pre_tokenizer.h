// The pre-tokenizer of a tokenizer.json: cuts a normalized text into the words that merges stay
// within. Immutable and thread-safe. ByteLevel's rewriting of bytes as letters is left to the
// model, which looks words up by their bytes.
#pragma once

#include <deque>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json.h"
#include "model/tokenizer/pattern.h"

namespace lorad {

struct Word {
  std::string_view text;
  bool at_start;  // at the very start of the input
};

// Holds what pre-tokenizing makes: keep it as long as the words. One per call of Encode.
struct PreTokenizerScratch {
  std::deque<std::string> texts;  // a deque: words point into these
  std::vector<Word> next;
  std::vector<ByteSpan> matches, pieces;
};

class PreTokenizer {
 public:
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };
  struct Split {
    Pattern pattern;
    Behavior behavior;
    bool invert = false;
  };
  struct PrefixSpace {};  // where the text does not begin with one
  struct Metaspace {
    enum class Prepend { kAlways, kFirst, kNever };
    std::string replacement;
    Prepend prepend;
  };
  using Step = std::variant<Split, PrefixSpace, Metaspace>;

  // The value of "pre_tokenizer"; null makes one that leaves the text whole.
  static absl::StatusOr<PreTokenizer> FromJson(const Json* value);

  // True if the model's vocabulary spells bytes as ByteLevel's letters.
  bool byte_level() const { return byte_level_; }

  // Sets `words` to those of `text`, none of them empty. REQUIRES: `text` is well-formed UTF-8 and
  // outlives the words.
  absl::Status Run(std::string_view text, bool at_start, const SearchDeadline& deadline,
                   PreTokenizerScratch* scratch, std::vector<Word>* words) const;

 private:
  absl::Status AppendSteps(const JsonObject& object);
  absl::Status AppendByteLevel(const JsonObject& object);
  absl::Status AppendSplit(const JsonObject& object, std::string_view type);
  absl::Status AppendMetaspace(const JsonObject& object);

  std::vector<Step> steps_;
  bool byte_level_ = false;
};

}  // namespace lorad
