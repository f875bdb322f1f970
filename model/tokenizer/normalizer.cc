#include "model/tokenizer/normalizer.h"

#include <fmt/format.h>

#include "memory/base/status_macros.h"

namespace lorad {
namespace {

std::string_view StripWhiteSpace(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && IsWhiteSpace(CharacterAt(text, 0))) {
    text.remove_prefix(Utf8Length(text[0]));
  }
  while (right && !text.empty()) {
    const char32_t last = CharacterBefore(text, text.size());
    if (!IsWhiteSpace(last)) break;
    text.remove_suffix(last < 0x80 ? 1 : last < 0x800 ? 2 : 3);  // no white space beyond the BMP
  }
  return text;
}

std::string CollapseSpaces(std::string_view text) {
  std::string out;
  bool pending = false;
  for (char c : text) {
    if (c == ' ') {
      pending = !out.empty();
      continue;
    }
    if (pending) out.push_back(' ');
    pending = false;
    out.push_back(c);
  }
  return out;
}

struct Apply {
  std::string text;
  bool at_start;
  const SearchDeadline& deadline;

  absl::StatusOr<std::string> operator()(const Normalizer::Form& step) {
    return Normalize(step.form, text);
  }
  absl::StatusOr<std::string> operator()(const Normalizer::LowercaseAll&) {
    return Lowercase(text);
  }
  absl::StatusOr<std::string> operator()(const Normalizer::Prepend& step) {
    const bool wanted = !text.empty() && (at_start || !step.only_at_start);
    return wanted ? step.prefix + text : std::move(text);
  }
  absl::StatusOr<std::string> operator()(const Normalizer::Replace& step) {
    return ReplaceAll(text, step.pattern, step.content, deadline);
  }
  absl::StatusOr<std::string> operator()(const Normalizer::Strip& step) {
    return std::string(StripWhiteSpace(text, step.left, step.right));
  }
  absl::StatusOr<std::string> operator()(const Normalizer::CollapseSpaces&) {
    return CollapseSpaces(text);
  }
  absl::StatusOr<std::string> operator()(const Normalizer::StripLiteral& step) {
    while (text.ends_with(step.literal)) text.resize(text.size() - step.literal.size());
    return std::move(text);
  }
};

absl::Status AppendSteps(const JsonObject& object, std::vector<Normalizer::Step>* steps) {
  LORAD_ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "normalizers"}));
    LORAD_ASSIGN_OR_RETURN(const Json* parts, object.Array("normalizers"));
    for (size_t i = 0; i < parts->size(); ++i) {
      LORAD_ASSIGN_OR_RETURN(
          const JsonObject part,
          JsonObject::Make((*parts)[i], fmt::format("{}.normalizers[{}]", object.where(), i)));
      LORAD_RETURN_IF_ERROR(AppendSteps(part, steps));
    }
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type"}));
    steps->push_back(Normalizer::Form{type == "NFC"    ? NormalForm::kNfc
                                      : type == "NFD"  ? NormalForm::kNfd
                                      : type == "NFKC" ? NormalForm::kNfkc
                                                       : NormalForm::kNfkd});
  } else if (type == "Lowercase") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type"}));
    steps->push_back(Normalizer::LowercaseAll{});
  } else if (type == "Prepend") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "prepend"}));
    LORAD_ASSIGN_OR_RETURN(std::string prefix, object.String("prepend"));
    steps->push_back(Normalizer::Prepend{.prefix = std::move(prefix)});
  } else if (type == "Replace") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "pattern", "content"}));
    LORAD_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(object, "pattern"));
    LORAD_ASSIGN_OR_RETURN(std::string content, object.String("content"));
    steps->push_back(Normalizer::Replace{std::move(pattern), std::move(content)});
  } else if (type == "Strip") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "strip_left", "strip_right"}));
    LORAD_ASSIGN_OR_RETURN(const bool left, object.Bool("strip_left", true));
    LORAD_ASSIGN_OR_RETURN(const bool right, object.Bool("strip_right", true));
    steps->push_back(Normalizer::Strip{left, right});
  } else {
    return object.Unsupported("type", fmt::format("'{}'", type));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Normalizer> Normalizer::FromJson(const Json* value) {
  std::vector<Step> steps;
  if (value != nullptr) {
    LORAD_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Make(*value, "normalizer"));
    LORAD_RETURN_IF_ERROR(AppendSteps(object, &steps));
  }
  return Normalizer(std::move(steps));
}

absl::StatusOr<std::string> Normalizer::Run(std::string_view text, bool at_start,
                                            const SearchDeadline& deadline) const {
  Apply apply{std::string(text), at_start, deadline};
  for (const Step& step : steps_) {
    LORAD_ASSIGN_OR_RETURN(apply.text, std::visit(apply, step));
  }
  return std::move(apply.text);
}

}  // namespace lorad
