#include "model/tokenizer/pre_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "memory/base/status_macros.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

using Behavior = PreTokenizer::Behavior;

constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

struct Piece {
  ByteSpan span;
  bool is_match;
};

absl::StatusOr<Behavior> ParseBehavior(const JsonObject& object) {
  LORAD_ASSIGN_OR_RETURN(const std::string name, object.String("behavior"));
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  return object.Unsupported("behavior", fmt::format("'{}'", name));
}

// Joins neighbours by `behavior`. The pieces come in order of the text, which they cover.
void Join(const std::vector<Piece>& pieces, Behavior behavior, std::vector<ByteSpan>* out) {
  bool previous_match = false;
  const auto add = [&](const Piece& piece, bool join) {
    if (join && !out->empty()) {
      out->back().begin = std::min(out->back().begin, piece.span.begin);
      out->back().end = std::max(out->back().end, piece.span.end);
    } else {
      out->push_back(piece.span);
    }
    previous_match = piece.is_match;
  };
  switch (behavior) {
    case Behavior::kIsolated:
      for (const Piece& piece : pieces) add(piece, false);
      break;
    case Behavior::kRemoved:
      for (const Piece& piece : pieces) {
        if (!piece.is_match) add(piece, false);
      }
      break;
    case Behavior::kContiguous:
      for (const Piece& piece : pieces) add(piece, piece.is_match == previous_match);
      break;
    case Behavior::kMergedWithPrevious:
      for (const Piece& piece : pieces) add(piece, piece.is_match && !previous_match);
      break;
    case Behavior::kMergedWithNext:
      for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
        add(*piece, piece->is_match && !previous_match);
      }
      std::reverse(out->begin(), out->end());
      break;
  }
}

// Cuts `text` at `matches` into `out`.
void Cut(std::string_view text, const std::vector<ByteSpan>& matches, Behavior behavior,
         bool invert, std::vector<ByteSpan>* out) {
  std::vector<Piece> pieces;
  size_t covered = 0;
  for (const ByteSpan& match : matches) {
    if (covered < match.begin) pieces.push_back({{covered, match.begin}, invert});
    pieces.push_back({match, !invert});
    covered = match.end;
  }
  if (covered < text.size()) pieces.push_back({{covered, text.size()}, invert});
  Join(pieces, behavior, out);
}

// The usual split: no piece is joined or removed, so none needs to be remembered.
void CutIsolated(const Word& word, const std::vector<ByteSpan>& matches, std::vector<Word>* words) {
  size_t covered = 0;
  const auto add = [&](size_t begin, size_t end) {
    if (begin < end) {
      words->push_back({word.text.substr(begin, end - begin), word.at_start && begin == 0});
    }
  };
  for (const ByteSpan& match : matches) {
    add(covered, match.begin);
    add(match.begin, match.end);
    covered = match.end;
  }
  add(covered, word.text.size());
}

struct Apply {
  const SearchDeadline& deadline;
  PreTokenizerScratch* scratch;
  const Word& word;
  std::vector<Word>* words;

  absl::Status operator()(const PreTokenizer::Split& step) {
    scratch->matches.clear();
    LORAD_RETURN_IF_ERROR(step.pattern.FindAll(word.text, deadline, &scratch->matches));
    if (step.behavior == Behavior::kIsolated) {
      CutIsolated(word, scratch->matches, words);
      return absl::OkStatus();
    }
    scratch->pieces.clear();
    Cut(word.text, scratch->matches, step.behavior, step.invert, &scratch->pieces);
    for (const ByteSpan& piece : scratch->pieces) {
      if (piece.begin == piece.end) continue;
      words->push_back({word.text.substr(piece.begin, piece.end - piece.begin),
                        word.at_start && piece.begin == 0});
    }
    return absl::OkStatus();
  }

  absl::Status operator()(const PreTokenizer::PrefixSpace&) {
    if (word.text.starts_with(' ')) {
      words->push_back(word);
    } else {
      words->push_back({scratch->texts.emplace_back(fmt::format(" {}", word.text)), word.at_start});
    }
    return absl::OkStatus();
  }

  absl::Status operator()(const PreTokenizer::Metaspace& step) {
    using Prepend = PreTokenizer::Metaspace::Prepend;
    LORAD_ASSIGN_OR_RETURN(std::string text, ReplaceAll(word.text, Pattern(std::string(" ")),
                                                        step.replacement, deadline));
    const bool wanted =
        step.prepend == Prepend::kAlways || (step.prepend == Prepend::kFirst && word.at_start);
    if (wanted && !text.starts_with(step.replacement)) text.insert(0, step.replacement);
    words->push_back({scratch->texts.emplace_back(std::move(text)), word.at_start});
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const Json* value) {
  PreTokenizer pre_tokenizer;
  if (value != nullptr) {
    LORAD_ASSIGN_OR_RETURN(const JsonObject object, JsonObject::Make(*value, "pre_tokenizer"));
    LORAD_RETURN_IF_ERROR(pre_tokenizer.AppendSteps(object));
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::AppendSteps(const JsonObject& object) {
  LORAD_ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (byte_level_) return object.Unsupported("type", fmt::format("'{}' after 'ByteLevel'", type));
  if (type == "Sequence") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "pretokenizers"}));
    LORAD_ASSIGN_OR_RETURN(const Json* parts, object.Array("pretokenizers"));
    for (size_t i = 0; i < parts->size(); ++i) {
      LORAD_ASSIGN_OR_RETURN(
          const JsonObject part,
          JsonObject::Make((*parts)[i], fmt::format("{}.pretokenizers[{}]", object.where(), i)));
      LORAD_RETURN_IF_ERROR(AppendSteps(part));
    }
    return absl::OkStatus();
  }
  if (type == "ByteLevel") return AppendByteLevel(object);
  if (type == "Metaspace") return AppendMetaspace(object);
  return AppendSplit(object, type);
}

absl::Status PreTokenizer::AppendByteLevel(const JsonObject& object) {
  LORAD_RETURN_IF_ERROR(
      object.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"}));
  LORAD_ASSIGN_OR_RETURN(const bool add_prefix_space, object.Bool("add_prefix_space", true));
  LORAD_ASSIGN_OR_RETURN(const bool use_regex, object.Bool("use_regex", true));
  if (add_prefix_space) steps_.push_back(PrefixSpace{});
  if (use_regex) {
    LORAD_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(kGpt2Pattern));
    steps_.push_back(Split{Pattern(std::move(regex)), Behavior::kIsolated});
  }
  byte_level_ = true;
  return absl::OkStatus();
}

absl::Status PreTokenizer::AppendMetaspace(const JsonObject& object) {
  LORAD_RETURN_IF_ERROR(object.RefuseOthers(
      {"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"}));
  LORAD_ASSIGN_OR_RETURN(std::string replacement, object.String("replacement"));
  if (replacement.empty() || replacement.size() != Utf8Length(replacement[0])) {
    return object.Invalid("replacement", "must be one character");
  }
  LORAD_ASSIGN_OR_RETURN(const bool add_prefix_space, object.Bool("add_prefix_space", true));
  LORAD_ASSIGN_OR_RETURN(const std::string scheme,
                         object.String("prepend_scheme", add_prefix_space ? "always" : "never"));
  LORAD_ASSIGN_OR_RETURN(const bool split, object.Bool("split", true));
  Metaspace::Prepend prepend;
  if (scheme == "always") {
    prepend = Metaspace::Prepend::kAlways;
  } else if (scheme == "first") {
    prepend = Metaspace::Prepend::kFirst;
  } else if (scheme == "never") {
    prepend = Metaspace::Prepend::kNever;
  } else {
    return object.Unsupported("prepend_scheme", fmt::format("'{}'", scheme));
  }
  steps_.push_back(Metaspace{replacement, prepend});
  if (split) steps_.push_back(Split{Pattern(std::move(replacement)), Behavior::kMergedWithNext});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AppendSplit(const JsonObject& object, std::string_view type) {
  if (type == "Split") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "pattern", "behavior", "invert"}));
    LORAD_ASSIGN_OR_RETURN(Pattern pattern, Pattern::FromJson(object, "pattern"));
    LORAD_ASSIGN_OR_RETURN(const Behavior behavior, ParseBehavior(object));
    LORAD_ASSIGN_OR_RETURN(const bool invert, object.Bool("invert", false));
    steps_.push_back(Split{std::move(pattern), behavior, invert});
  } else if (type == "Digits") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "individual_digits"}));
    LORAD_ASSIGN_OR_RETURN(const bool individual, object.Bool("individual_digits", false));
    steps_.push_back(
        Split{Pattern(&IsNumeric), individual ? Behavior::kIsolated : Behavior::kContiguous});
  } else if (type == "Punctuation") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "behavior"}));
    Behavior behavior = Behavior::kIsolated;
    if (object.Find("behavior") != nullptr) {
      LORAD_ASSIGN_OR_RETURN(behavior, ParseBehavior(object));
    }
    steps_.push_back(Split{Pattern(&IsPunctuation), behavior});
  } else if (type == "Whitespace") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type"}));
    LORAD_ASSIGN_OR_RETURN(Regex regex,
                           Regex::Compile(R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)"));
    steps_.push_back(Split{Pattern(std::move(regex)), Behavior::kRemoved, true});
  } else if (type == "WhitespaceSplit") {
    LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type"}));
    steps_.push_back(Split{Pattern(&IsWhiteSpace), Behavior::kRemoved});
  } else {
    return object.Unsupported("type", fmt::format("'{}'", type));
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::Run(std::string_view text, bool at_start, const SearchDeadline& deadline,
                               PreTokenizerScratch* scratch, std::vector<Word>* words) const {
  words->clear();
  if (!text.empty()) words->push_back({text, at_start});
  for (const Step& step : steps_) {
    scratch->next.clear();
    for (const Word& word : *words) {
      LORAD_RETURN_IF_ERROR(std::visit(Apply{deadline, scratch, word, &scratch->next}, step));
    }
    words->swap(scratch->next);
  }
  return absl::OkStatus();
}

}  // namespace lorad
