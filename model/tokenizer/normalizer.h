// The normalizer of a tokenizer.json: what is done to a text before it is split. Immutable and
// thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/tokenizer/json.h"
#include "model/tokenizer/pattern.h"
#include "model/tokenizer/unicode.h"

namespace lorad {

class Normalizer {
 public:
  struct Form {
    NormalForm form;
  };
  struct LowercaseAll {};
  // Put in front of a text that is not empty.
  struct Prepend {
    std::string prefix;
    bool only_at_start = false;  // of the whole input, not of each part between special tokens
  };
  struct Replace {
    Pattern pattern;
    std::string content;
  };
  struct Strip {
    bool left, right;
  };                         // White_Space
  struct CollapseSpaces {};  // U+0020: none at the ends, one between
  struct StripLiteral {
    std::string literal;
  };  // at the end
  using Step =
      std::variant<Form, LowercaseAll, Prepend, Replace, Strip, CollapseSpaces, StripLiteral>;

  Normalizer() = default;
  explicit Normalizer(std::vector<Step> steps) : steps_(std::move(steps)) {}

  // The value of "normalizer"; null makes one that changes nothing.
  static absl::StatusOr<Normalizer> FromJson(const Json* value);

  bool empty() const { return steps_.empty(); }

  // `at_start`: no token precedes `text` in the input. REQUIRES: `text` is well-formed UTF-8; so is
  // the result.
  absl::StatusOr<std::string> Run(std::string_view text, bool at_start,
                                  const SearchDeadline& deadline) const;

 private:
  std::vector<Step> steps_;
};

}  // namespace lorad
