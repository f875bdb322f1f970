#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/module_pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include "absl/status/status.h"
#include "memory/base/check.h"

namespace lorad {
namespace {

// A module name has some forty letters: honest patterns need hundreds of steps, and 256 KiB is far
// more than they hold.
constexpr uint32_t kMatchSteps = 50000;
constexpr uint32_t kBacktrackDepth = 2000;
constexpr uint32_t kHeapKib = 256;
constexpr uint32_t kMaxParentheses = 64;

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

PCRE2_SPTR Units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void ModulePattern::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }
void ModulePattern::Free::operator()(pcre2_real_match_context_8* context) const {
  pcre2_match_context_free(context);
}
void ModulePattern::Free::operator()(pcre2_real_match_data_8* data) const {
  pcre2_match_data_free(data);
}

absl::StatusOr<ModulePattern> ModulePattern::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        fmt::format("pattern of {} bytes is longer than {}", pattern.size(), kMaxPatternBytes));
  }
  const std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  LORAD_CHECK(context != nullptr);
  pcre2_set_parens_nest_limit(context.get(), kMaxParentheses);
  int error = 0;
  PCRE2_SIZE offset = 0;
  ModulePattern regex;
  regex.code_.reset(pcre2_compile(Units(pattern), pattern.size(),
                                  PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_NEVER_UCP |
                                      PCRE2_NEVER_BACKSLASH_C | PCRE2_DOLLAR_ENDONLY,
                                  &error, &offset, context.get()));
  if (regex.code_ == nullptr) {
    return absl::InvalidArgumentError(fmt::format("\"{}\" is not a regular expression: {} at {}",
                                                  pattern, ErrorText(error), offset));
  }
  regex.context_.reset(pcre2_match_context_create(nullptr));
  regex.data_.reset(pcre2_match_data_create_from_pattern(regex.code_.get(), nullptr));
  LORAD_CHECK(regex.context_ != nullptr && regex.data_ != nullptr);
  pcre2_set_match_limit(regex.context_.get(), kMatchSteps);
  pcre2_set_depth_limit(regex.context_.get(), kBacktrackDepth);
  pcre2_set_heap_limit(regex.context_.get(), kHeapKib);
  return regex;
}

absl::StatusOr<bool> ModulePattern::FullMatch(std::string_view subject) const {
  const int result =
      pcre2_match(code_.get(), Units(subject), subject.size(), 0, 0, data_.get(), context_.get());
  if (result >= 0) return true;
  if (result == PCRE2_ERROR_NOMATCH) return false;
  return absl::InvalidArgumentError(fmt::format("matching \"{}\": {}", subject, ErrorText(result)));
}

absl::StatusOr<bool> ModulePattern::FullMatch(std::string_view subject, const char* group_name,
                                              std::string* group) const {
  absl::StatusOr<bool> matched = FullMatch(subject);
  if (!matched.ok() || !*matched) return matched;
  PCRE2_UCHAR* text = nullptr;
  PCRE2_SIZE bytes = 0;
  group->clear();
  if (pcre2_substring_get_byname(data_.get(), reinterpret_cast<PCRE2_SPTR>(group_name), &text,
                                 &bytes) == 0) {
    group->assign(reinterpret_cast<const char*>(text), bytes);
    pcre2_substring_free(text);
  }
  return true;
}

}  // namespace lorad
