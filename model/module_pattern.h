// ModulePattern: a pattern of an adapter's config, matched as Python's `re` would for what such
// patterns use. Patterns come from strangers: length, nesting, and the work of one match are
// bounded, and a match that runs over is an error, not a "no". Movable; matching is const but uses
// the object's scratch space: one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

// As in pcre2.h, which stays out of this header.
struct pcre2_real_code_8;
struct pcre2_real_match_context_8;
struct pcre2_real_match_data_8;

namespace lorad {

class ModulePattern {
 public:
  static constexpr size_t kMaxPatternBytes = 4096;

  // InvalidArgument says what is wrong with the pattern.
  static absl::StatusOr<ModulePattern> Compile(std::string_view pattern);

  // re.fullmatch. InvalidArgument if the match took too much work.
  absl::StatusOr<bool> FullMatch(std::string_view subject) const;
  // As FullMatch; on a match sets `group` to the text of the named group.
  absl::StatusOr<bool> FullMatch(std::string_view subject, const char* group_name,
                                 std::string* group) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
    void operator()(pcre2_real_match_context_8* context) const;
    void operator()(pcre2_real_match_data_8* data) const;
  };
  template <typename T>
  using Owned = std::unique_ptr<T, Free>;

  Owned<pcre2_real_code_8> code_;
  Owned<pcre2_real_match_context_8> context_;
  Owned<pcre2_real_match_data_8> data_;
};

}  // namespace lorad
