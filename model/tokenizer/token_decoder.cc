#include "model/tokenizer/token_decoder.h"

#include <fmt/format.h>

#include "memory/base/status_macros.h"
#include "model/tokenizer/bpe.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

constexpr int kMaxStrip = 1 << 20;
constexpr std::string_view kMetaspace = "\u2581";

bool IsOneCharacter(std::string_view text) {
  return !text.empty() && text.size() == Utf8Length(text[0]);
}

std::string ReplaceLiteral(std::string_view text, std::string_view pattern,
                           std::string_view content) {
  std::string out;
  for (size_t at = text.find(pattern); at != text.npos; at = text.find(pattern)) {
    out.append(text.substr(0, at)).append(content);
    text.remove_prefix(at + pattern.size());
  }
  out.append(text);
  return out;
}

// Takes up to `count` characters from the left and returns how many it may still take from what
// follows.
int StripFromLeft(std::string_view character, int count, std::string* text) {
  size_t at = 0;
  while (count > 0 && std::string_view(*text).substr(at).starts_with(character)) {
    at += character.size();
    --count;
  }
  if (at < text->size()) count = 0;
  text->erase(0, at);
  return count;
}

struct ApplyToToken {
  bool first;
  std::string* text;

  void operator()(const TokenDecoder::Replace& step) {
    *text = ReplaceLiteral(*text, step.pattern, step.content);
  }
  void operator()(const TokenDecoder::Metaspace& step) {
    *text = ReplaceLiteral(*text, step.replacement, first && step.strip_first ? "" : " ");
  }
  void operator()(const TokenDecoder::StripLeft& step) {
    StripFromLeft(step.character, step.count, text);
  }
};

struct ApplyToText {
  int* to_strip;
  std::string* text;

  void operator()(const TokenDecoder::Replace& step) {
    *text = ReplaceLiteral(*text, step.pattern, step.content);
  }
  void operator()(const TokenDecoder::StripLeft& step) {
    if (*to_strip > 0) *to_strip = StripFromLeft(step.character, *to_strip, text);
  }
};

}  // namespace

absl::StatusOr<TokenDecoder> TokenDecoder::FromJson(const Json* value) {
  if (value == nullptr) return absl::UnimplementedError("decoder: null is not supported");
  LORAD_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Make(*value, "decoder"));
  TokenDecoder decoder;
  LORAD_RETURN_IF_ERROR(decoder.AppendSteps(object));
  return decoder;
}

TokenDecoder TokenDecoder::ForSentencePiece(bool strip_first_space) {
  TokenDecoder decoder;
  decoder.token_steps_.push_back(Replace{std::string(kMetaspace), " "});
  decoder.bytes_ = Bytes::kFallback;
  if (strip_first_space) decoder.text_steps_.push_back(StripLeft{" ", 1});
  return decoder;
}

absl::Status TokenDecoder::AppendSteps(const JsonObject& object) {
  LORAD_ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "Sequence") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "decoders"}));
    LORAD_ASSIGN_OR_RETURN(const Json* parts, object.Array("decoders"));
    for (size_t i = 0; i < parts->size(); ++i) {
      LORAD_ASSIGN_OR_RETURN(
          const JsonObject part,
          JsonObject::Make((*parts)[i], fmt::format("{}.decoders[{}]", object.where(), i)));
      LORAD_RETURN_IF_ERROR(AppendSteps(part));
    }
    return absl::OkStatus();
  }
  if (type == "Replace") return AppendReplace(object);
  if (type == "Strip") return AppendStrip(object);
  if (type == "Fuse") {
    fused_ = true;
    return object.RefuseOthers({"type"});
  }
  if (fused_ || bytes_ != Bytes::kNone) {
    return object.Unsupported("type", fmt::format("'{}' after bytes are joined", type));
  }
  if (type == "ByteLevel") {
    bytes_ = Bytes::kLevel;
    fused_ = true;
    return object.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }
  if (type == "ByteFallback") {
    bytes_ = Bytes::kFallback;
    return object.RefuseOthers({"type"});
  }
  if (type == "Metaspace") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers(
        {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}));
    LORAD_ASSIGN_OR_RETURN(std::string replacement, object.String("replacement"));
    if (!IsOneCharacter(replacement)) return object.Invalid("replacement", "must be one character");
    LORAD_ASSIGN_OR_RETURN(const bool add_prefix_space, object.Bool("add_prefix_space", true));
    LORAD_ASSIGN_OR_RETURN(const std::string scheme,
                           object.String("prepend_scheme", add_prefix_space ? "always" : "never"));
    token_steps_.push_back(Metaspace{std::move(replacement), scheme != "never"});
    return absl::OkStatus();
  }
  return object.Unsupported("type", fmt::format("'{}'", type));
}

absl::Status TokenDecoder::AppendReplace(const JsonObject& object) {
  LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "pattern", "content"}));
  LORAD_ASSIGN_OR_RETURN(const JsonObject pattern, object.Object("pattern"));
  LORAD_RETURN_IF_ERROR(pattern.RefuseOthers({"String"}));
  LORAD_ASSIGN_OR_RETURN(std::string literal, pattern.String("String"));
  LORAD_ASSIGN_OR_RETURN(std::string content, object.String("content"));
  if (literal.empty()) return pattern.Invalid("String", "must not be empty");
  Replace step{std::move(literal), std::move(content)};
  if (!fused_ && bytes_ == Bytes::kNone) {
    token_steps_.push_back(std::move(step));
  } else if (IsOneCharacter(step.pattern)) {
    text_steps_.push_back(std::move(step));
  } else {
    return object.Unsupported("pattern", "more than one character after bytes are joined");
  }
  return absl::OkStatus();
}

absl::Status TokenDecoder::AppendStrip(const JsonObject& object) {
  LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "content", "start", "stop"}));
  LORAD_ASSIGN_OR_RETURN(std::string character, object.String("content"));
  if (!IsOneCharacter(character)) return object.Invalid("content", "must be one character");
  LORAD_ASSIGN_OR_RETURN(const int64_t start, object.Integer("start"));
  LORAD_ASSIGN_OR_RETURN(const int64_t stop, object.Integer("stop"));
  if (start < 0 || start > kMaxStrip) return object.Invalid("start", "is out of range");
  if (stop != 0) return object.Unsupported("stop", "a value other than 0");
  StripLeft step{std::move(character), static_cast<int>(start)};
  if (fused_) {
    text_steps_.push_back(std::move(step));
  } else if (bytes_ == Bytes::kNone) {
    token_steps_.push_back(std::move(step));
  } else {
    return object.Unsupported("type", "'Strip' between 'ByteFallback' and 'Fuse'");
  }
  return absl::OkStatus();
}

std::string TokenDecoder::ApplyTokenSteps(std::string_view token, bool first) const {
  std::string text(token);
  for (const TokenStep& step : token_steps_) std::visit(ApplyToToken{first, &text}, step);
  return text;
}

std::string TokenDecoder::BytesOf(std::string_view token) const {
  const std::string text = ApplyTokenSteps(token, /*first=*/false);
  std::string bytes;
  if (bytes_ == Bytes::kFallback) {
    if (const auto byte = ByteOfToken(text)) return std::string(1, static_cast<char>(*byte));
  } else if (bytes_ == Bytes::kLevel && AppendByteLevelBytes(text, &bytes)) {
    return bytes;
  }
  return text;
}

DecodeStream::DecodeStream(const TokenDecoder& decoder) : decoder_(decoder) {
  for (const TokenDecoder::TextStep& step : decoder.text_steps_) {
    const auto* strip = std::get_if<TokenDecoder::StripLeft>(&step);
    to_strip_.push_back(strip == nullptr ? 0 : strip->count);
  }
}

void DecodeStream::Push(std::string_view token, std::string* out) {
  const std::string text = decoder_.ApplyTokenSteps(token, first_);
  first_ = false;
  switch (decoder_.bytes_) {
    case TokenDecoder::Bytes::kNone:
      Emit(text, out);
      return;
    case TokenDecoder::Bytes::kFallback:
      if (const auto byte = ByteOfToken(text)) {
        pending_.push_back(static_cast<char>(*byte));
        EmitPending(/*at_end=*/false, out);
      } else {
        EmitPending(/*at_end=*/true, out);
        Emit(text, out);
      }
      return;
    case TokenDecoder::Bytes::kLevel:
      if (!AppendByteLevelBytes(text, &pending_)) pending_.append(text);
      EmitPending(/*at_end=*/false, out);
      return;
  }
}

void DecodeStream::Flush(std::string* out) { EmitPending(/*at_end=*/true, out); }

void DecodeStream::EmitPending(bool at_end, std::string* out) {
  std::string text;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    Utf8Character first = FirstUtf8Character(rest);
    if (first.kind == Utf8Character::kTruncated && !at_end) break;
    if (first.kind == Utf8Character::kWhole) {
      text.append(rest.substr(0, first.length));
    } else {
      text.append(kReplacementCharacter);
      // ByteFallback replaces byte by byte.
      if (decoder_.bytes_ == TokenDecoder::Bytes::kFallback) first.length = 1;
    }
    rest.remove_prefix(first.length);
  }
  pending_.erase(0, pending_.size() - rest.size());
  Emit(text, out);
}

void DecodeStream::Emit(std::string_view text, std::string* out) {
  if (text.empty()) return;
  std::string result(text);
  for (size_t i = 0; i < decoder_.text_steps_.size(); ++i) {
    std::visit(ApplyToText{&to_strip_[i], &result}, decoder_.text_steps_[i]);
  }
  out->append(result);
}

}  // namespace lorad
