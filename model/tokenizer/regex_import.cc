#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "memory/base/status_macros.h"
#include "model/tokenizer/regex.h"

namespace lorad {
namespace {

// PCRE2's own \s also matches U+180E.
constexpr std::string_view kWhiteSpace =
    R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotWhiteSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

bool IsAsciiAlnum(char c) {
  return (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

absl::Status Unsupported(std::string_view what) {
  return absl::UnimplementedError(fmt::format("regular expression: {} is not supported", what));
}

// One pass over the pattern; `rest_` is what is still to be read.
class PatternImporter {
 public:
  explicit PatternImporter(std::string_view pattern) : rest_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (!rest_.empty()) {
      if (rest_[0] == '\\') {
        LORAD_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        LORAD_RETURN_IF_ERROR(ClassItem());
      } else if (rest_[0] == '[') {
        Take(1);
        in_class_ = true;
        if (rest_.starts_with('^')) Take(1);
        if (rest_.starts_with(']')) return Unsupported("']' first in a class");
      } else if (rest_[0] == '(') {
        LORAD_RETURN_IF_ERROR(Group());
      } else if (rest_.starts_with("{,")) {
        return Unsupported("a repetition without a lower bound");
      } else if (rest_.starts_with("}+")) {
        return Unsupported("a '+' after a repetition");
      } else {
        Take(1);
      }
    }
    return std::move(out_);
  }

 private:
  void Take(size_t count) {
    out_.append(rest_.substr(0, count));
    rest_.remove_prefix(count);
  }

  void Replace(size_t count, std::string_view replacement) {
    out_.append(replacement);
    rest_.remove_prefix(count);
  }

  void ReplaceByClass(std::string_view items, bool negated) {
    out_.append(in_class_ ? std::string(items) : fmt::format("[{}{}]", negated ? "^" : "", items));
    rest_.remove_prefix(2);
  }

  absl::Status Escape() {
    if (rest_.size() < 2) return absl::InvalidArgumentError("regular expression: ends in '\\'");
    const char c = rest_[1];
    switch (c) {
      case 's':
        ReplaceByClass(kWhiteSpace, false);
        break;
      case 'S':
        if (in_class_) {
          ReplaceByClass(kNotWhiteSpace, false);
        } else {
          ReplaceByClass(kWhiteSpace, true);
        }
        break;
      case 'w':
        ReplaceByClass(kWord, false);
        break;
      case 'W':
        if (in_class_) return Unsupported("\\W in a class");
        ReplaceByClass(kWord, true);
        break;
      case 'v':
        Replace(2, "\\x0b");
        break;
      case 'u':
        return Codepoint();
      case 'p':
      case 'P':
        return Property();
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'x':
      case 'A':
      case 'z':
        Take(2);
        break;
      default:
        if (IsAsciiAlnum(c)) return Unsupported(fmt::format("\\{}", c));
        Take(2);
    }
    return absl::OkStatus();
  }

  absl::Status Codepoint() {
    const std::string_view digits = rest_.substr(2, 4);
    if (digits.size() < 4 || digits.find_first_not_of("0123456789abcdefABCDEF") != digits.npos) {
      return absl::InvalidArgumentError("regular expression: \\u takes four hexadecimal digits");
    }
    Replace(6, fmt::format("\\x{{{}}}", digits));
    return absl::OkStatus();
  }

  // General categories mean the same to both; any other name is a script to Oniguruma, its
  // extensions not included.
  absl::Status Property() {
    const size_t end = rest_.find('}');
    if (rest_.size() < 3 || rest_[2] != '{' || end == rest_.npos) {
      return absl::InvalidArgumentError("regular expression: a property is written \\p{Name}");
    }
    std::string_view name = rest_.substr(3, end - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    if (!std::all_of(name.begin(), name.end(),
                     [](char c) { return IsAsciiAlnum(c) || c == '_'; })) {
      return Unsupported(fmt::format("\\p{{{}}}", name));
    }
    Replace(end + 1, fmt::format("\\{}{{{}{}{}}}", rest_[1], negated ? "^" : "",
                                 name.size() <= 2 ? "" : "sc:", name));
    return absl::OkStatus();
  }

  absl::Status ClassItem() {
    if (rest_[0] == '[') return Unsupported("a class in a class");
    if (rest_.starts_with("&&")) return Unsupported("an intersection of classes");
    if (rest_[0] == ']') in_class_ = false;
    Take(1);
    return absl::OkStatus();
  }

  absl::Status Group() {
    if (rest_.starts_with("(*")) return Unsupported("a verb");
    if (!rest_.starts_with("(?")) {
      Take(1);
      return absl::OkStatus();
    }
    for (std::string_view known :
         {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:", "(?i)", "(?-i:"}) {
      if (rest_.starts_with(known)) {
        Take(known.size());
        return absl::OkStatus();
      }
    }
    return Unsupported(fmt::format("'{}'", rest_.substr(0, 3)));
  }

  std::string_view rest_;
  std::string out_;
  bool in_class_ = false;
};

}  // namespace

absl::StatusOr<std::string> ImportPattern(std::string_view pattern) {
  return PatternImporter(pattern).Run();
}

}  // namespace lorad
