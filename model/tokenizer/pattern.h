// What a pre-tokenizer splits by and a normalizer replaces: a regular expression, a literal or a
// class of characters. Immutable and thread-safe.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/tokenizer/json.h"
#include "model/tokenizer/regex.h"

namespace lorad {

using CharacterClass = bool (*)(char32_t);

class Pattern {
 public:
  explicit Pattern(Regex regex) : matcher_(std::move(regex)) {}
  explicit Pattern(CharacterClass characters) : matcher_(characters) {}
  // REQUIRES: !literal.empty().
  explicit Pattern(std::string literal) : matcher_(std::move(literal)) {}

  // {"Regex": "..."} or {"String": "..."} as the member `key`.
  static absl::StatusOr<Pattern> FromJson(const JsonObject& parent, std::string_view key);

  // The literal, or null for another kind of pattern.
  const std::string* literal() const { return std::get_if<std::string>(&matcher_); }

  // Appends every match from left to right, none overlapping; of a class each character is a match
  // of its own. REQUIRES: `text` is well-formed UTF-8.
  absl::Status FindAll(std::string_view text, const SearchDeadline& deadline,
                       std::vector<ByteSpan>* matches) const;

 private:
  std::variant<Regex, std::string, CharacterClass> matcher_;
};

// `text` with each match replaced by `content`, literally.
absl::StatusOr<std::string> ReplaceAll(std::string_view text, const Pattern& pattern,
                                       std::string_view content, const SearchDeadline& deadline);

}  // namespace lorad
