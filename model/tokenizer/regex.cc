#include "model/tokenizer/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "memory/base/check.h"
#include "memory/base/status_macros.h"
#include "model/tokenizer/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace lorad {
namespace {

constexpr size_t kMaxPatternBytes = 16 * 1024;
constexpr uint32_t kMaxGroupNesting = 50;

// Backtracking steps of one match. Real patterns step back through a run of white space a few
// times.
constexpr uint32_t kMatchLimit = 1'000'000;
constexpr uint32_t kMatchLimitPerByte = 8;

constexpr uint32_t kHeapLimitKib = 64 * 1024;

// A search looks at so many places before it asks for the time: each may cost as much as the text
// is long.
constexpr size_t kPlacesPerWindow = 256;
constexpr int kMatchesPerCheck = 64;

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  Owned<pcre2_code> code;
};

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(fmt::format("regular expression of {} bytes, more than {}",
                                                  pattern.size(), kMaxPatternBytes));
  }
  if (!IsValidUtf8(pattern)) {
    return absl::InvalidArgumentError("regular expression: not UTF-8");
  }
  LORAD_ASSIGN_OR_RETURN(const std::string imported, ImportPattern(pattern));
  Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  LORAD_CHECK(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), kMaxGroupNesting);
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  code->code.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(imported.data()), imported.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C,
      &error, &offset, context.get()));
  if (code->code == nullptr) {
    return absl::InvalidArgumentError(
        fmt::format("regular expression '{}': {}", pattern, ErrorText(error)));
  }
  // Where there is no JIT, matching is slower and as right.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

absl::Status Regex::FindAll(std::string_view text, const SearchDeadline& deadline,
                            std::vector<ByteSpan>* matches) const {
  thread_local const Owned<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  thread_local const Owned<pcre2_match_context> context(pcre2_match_context_create(nullptr));
  LORAD_CHECK(data != nullptr && context != nullptr);
  const uint64_t match_limit = kMatchLimit + uint64_t{kMatchLimitPerByte} * text.size();
  pcre2_set_match_limit(context.get(), static_cast<uint32_t>(std::min<uint64_t>(
                                           match_limit, std::numeric_limits<uint32_t>::max())));
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t previous_end = std::string_view::npos;
  size_t begin = 0;  // the search goes on here
  int checks = 0;
  while (begin <= text.size()) {
    if (++checks % kMatchesPerCheck == 0 && deadline.Passed()) {
      return absl::ResourceExhaustedError("the tokenizer's pattern takes too long on this text");
    }
    size_t window_end = begin + kPlacesPerWindow;
    while (window_end < text.size() && (text[window_end] & 0xC0) == 0x80) ++window_end;
    pcre2_set_offset_limit(context.get(), window_end - 1);
    int rc = pcre2_match(code_->code.get(), subject, text.size(), begin, PCRE2_NO_UTF_CHECK,
                         data.get(), context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(code_->code.get(), subject, text.size(), begin,
                       PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(), context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
      begin = window_end;
      checks = kMatchesPerCheck - 1;
      continue;
    }
    if (rc < 0) {
      return absl::ResourceExhaustedError(
          fmt::format("the tokenizer's pattern fails on this text: {}", ErrorText(rc)));
    }
    const size_t* bounds = pcre2_get_ovector_pointer(data.get());
    const ByteSpan match{bounds[0], bounds[1]};
    // A lookbehind with \K could turn these around; the importer lets no \K through.
    LORAD_CHECK(match.begin >= begin && match.begin <= match.end && match.end <= text.size());
    const bool empty = match.begin == match.end;
    if (!empty || match.begin != previous_end) matches->push_back(match);
    previous_end = match.end;
    begin = match.end;
    if (empty) begin += begin < text.size() ? Utf8Length(text[begin]) : 1;
  }
  return absl::OkStatus();
}

}  // namespace lorad
