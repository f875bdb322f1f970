#include "model/tokenizer/pattern.h"

#include <fmt/format.h>

#include "memory/base/status_macros.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

constexpr size_t kMaxReplacedBytes = 128 << 20;

}  // namespace

absl::StatusOr<Pattern> Pattern::FromJson(const JsonObject& parent, std::string_view key) {
  LORAD_ASSIGN_OR_RETURN(const JsonObject object, parent.Object(key));
  LORAD_RETURN_IF_ERROR(object.RefuseOthers({"Regex", "String"}));
  if (object.Find("Regex") != nullptr) {
    LORAD_ASSIGN_OR_RETURN(const std::string source, object.String("Regex"));
    absl::StatusOr<Regex> regex = Regex::Compile(source);
    if (!regex.ok()) {
      return absl::Status(
          regex.status().code(),
          fmt::format("{}: {}", object.where(), std::string(regex.status().message())));
    }
    return Pattern(*std::move(regex));
  }
  LORAD_ASSIGN_OR_RETURN(std::string literal, object.String("String"));
  if (literal.empty()) return object.Invalid("String", "must not be empty");
  return Pattern(std::move(literal));
}

absl::Status Pattern::FindAll(std::string_view text, const SearchDeadline& deadline,
                              std::vector<ByteSpan>* matches) const {
  if (const auto* regex = std::get_if<Regex>(&matcher_)) {
    return regex->FindAll(text, deadline, matches);
  }
  if (const auto* literal = std::get_if<std::string>(&matcher_)) {
    for (size_t at = text.find(*literal); at != text.npos;
         at = text.find(*literal, at + literal->size())) {
      matches->push_back({at, at + literal->size()});
    }
    return absl::OkStatus();
  }
  const CharacterClass is_member = std::get<CharacterClass>(matcher_);
  for (size_t at = 0; at < text.size();) {
    const size_t end = at + Utf8Length(text[at]);
    if (is_member(CharacterAt(text, at))) matches->push_back({at, end});
    at = end;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReplaceAll(std::string_view text, const Pattern& pattern,
                                       std::string_view content, const SearchDeadline& deadline) {
  std::string out;
  size_t copied = 0;
  const auto replace = [&](const ByteSpan& match) {
    out.append(text.substr(copied, match.begin - copied)).append(content);
    copied = match.end;
    return out.size() <= kMaxReplacedBytes;
  };
  bool fits = true;
  if (const std::string* literal = pattern.literal()) {
    for (size_t at = text.find(*literal); fits && at != text.npos;
         at = text.find(*literal, copied)) {
      fits = replace({at, at + literal->size()});
    }
  } else {
    std::vector<ByteSpan> matches;
    LORAD_RETURN_IF_ERROR(pattern.FindAll(text, deadline, &matches));
    for (size_t i = 0; fits && i < matches.size(); ++i) fits = replace(matches[i]);
  }
  if (!fits) return absl::ResourceExhaustedError("the tokenizer makes this text too long");
  out.append(text.substr(copied));
  return out;
}

}  // namespace lorad
