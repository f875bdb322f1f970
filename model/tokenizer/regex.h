// Regular expressions of tokenizer files: Oniguruma's syntax, as far as it means the same to PCRE2,
// matched by PCRE2's JIT. Immutable and thread-safe. Both pattern and text may be hostile: every
// match is limited, and a SearchDeadline ends a search.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

struct ByteSpan {
  size_t begin, end;  // bytes
  bool operator==(const ByteSpan&) const = default;
};

// When the work on one text must be over.
class SearchDeadline {
 public:
  explicit SearchDeadline(std::chrono::steady_clock::duration budget)
      : end_(std::chrono::steady_clock::now() + budget) {}
  bool Passed() const { return std::chrono::steady_clock::now() > end_; }

 private:
  std::chrono::steady_clock::time_point end_;
};

class Regex {
 public:
  // InvalidArgument: not a pattern; Unimplemented: it uses what PCRE2 would take differently.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);

  // Appends every match from left to right, none overlapping. Like Oniguruma's search it takes
  // empty matches, but none right at the end of the match before. REQUIRES: `text` is well-formed
  // UTF-8.
  absl::Status FindAll(std::string_view text, const SearchDeadline& deadline,
                       std::vector<ByteSpan>* matches) const;

 private:
  struct Code;
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  std::shared_ptr<const Code> code_;
};

// The pattern rewritten for PCRE2 (UTF, UCP, MULTILINE): \s and \w spelled out as Unicode has them,
// what the two engines understand differently refused.
absl::StatusOr<std::string> ImportPattern(std::string_view pattern);

}  // namespace lorad
