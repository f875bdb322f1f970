#include "model/tokenizer/sentencepiece.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "memory/base/status_macros.h"
#include "model/tokenizer/pipeline.h"
#include "model/tokenizer/sentencepiece_model.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

using Piece = SentencePieceModel::Piece;
using PieceIds = absl::flat_hash_map<std::string, TokenId>;

constexpr char kMetaspace[] = "\u2581";
constexpr int kBytes = 256;

std::optional<TokenId> Lookup(const PieceIds& ids, std::string_view text) {
  const auto found = ids.find(absl::string_view(text.data(), text.size()));
  return found == ids.end() ? std::nullopt : std::optional(found->second);
}

absl::Status RefuseUnsupported(const SentencePieceModel& model) {
  if (model.model_type != SentencePieceModel::kBpe) {
    return absl::UnimplementedError(fmt::format(
        "trainer_spec.model_type: {} is not supported, only BPE (2)", model.model_type));
  }
  if (model.has_character_map) {
    return absl::UnimplementedError(
        "normalizer_spec.precompiled_charsmap: is not supported, only the identity");
  }
  if (model.treat_whitespace_as_suffix) {
    return absl::UnimplementedError("trainer_spec.treat_whitespace_as_suffix: is not supported");
  }
  if (!model.escape_whitespaces) {
    return absl::UnimplementedError("normalizer_spec.escape_whitespaces: false is not supported");
  }
  return absl::OkStatus();
}

// Sorts the pieces by type into `spec`. `mergeable` gets those that merging can make.
absl::Status ReadPieces(const SentencePieceModel& model, PipelineSpec* spec, PieceIds* mergeable) {
  std::vector<bool> bytes(kBytes);
  int byte_count = 0;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    const Piece& piece = model.pieces[i];
    const auto id = static_cast<TokenId>(i);
    spec->bpe.vocab.emplace_back(piece.text, id);
    switch (piece.type) {
      case SentencePieceModel::kNormal:
        mergeable->emplace(piece.text, id);
        break;
      case SentencePieceModel::kUnknown:
        if (spec->bpe.unk_id != kNoToken) {
          return absl::InvalidArgumentError(fmt::format("piece {}: a second unknown piece", i));
        }
        spec->bpe.unk_id = id;
        spec->added_tokens.push_back({.id = id, .content = piece.text, .special = true});
        break;
      case SentencePieceModel::kControl:
        spec->added_tokens.push_back({.id = id, .content = piece.text, .special = true});
        break;
      case SentencePieceModel::kUserDefined:
        spec->added_tokens.push_back({.id = id, .content = piece.text, .normalized = true});
        break;
      case SentencePieceModel::kUnused:
        return absl::UnimplementedError(
            fmt::format("piece {}: the type UNUSED is not supported", i));
      case SentencePieceModel::kByte: {
        const std::optional<unsigned char> byte = ByteOfToken(piece.text);
        if (!byte.has_value() || bytes[*byte]) {
          return absl::InvalidArgumentError(fmt::format("piece {}: not one byte each", i));
        }
        bytes[*byte] = true;
        ++byte_count;
        break;
      }
    }
  }
  if (spec->bpe.unk_id == kNoToken) return absl::InvalidArgumentError("no unknown piece");
  if (byte_count != (model.byte_fallback ? kBytes : 0)) {
    return absl::InvalidArgumentError(
        fmt::format("{} byte pieces, byte_fallback is {}", byte_count, model.byte_fallback));
  }
  return absl::OkStatus();
}

// SentencePiece merges whichever neighbours make the piece of the highest score: each way to cut a
// piece in two is a merge, and equal scores have equal ranks.
absl::Status MakeMerges(const SentencePieceModel& model, const PieceIds& mergeable,
                        std::vector<BpeMerge>* merges) {
  std::vector<float> scores;
  for (const auto& entry : mergeable) scores.push_back(model.pieces[entry.second].score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());
  for (const auto& [text, id] : mergeable) {
    const std::string_view piece(text);
    const auto rank =
        std::lower_bound(scores.begin(), scores.end(), model.pieces[id].score, std::greater<>()) -
        scores.begin();
    const bool one_character = piece.size() == Utf8Length(piece[0]);
    for (size_t at = 0; at < piece.size(); at += Utf8Length(piece[at])) {
      const size_t length = Utf8Length(piece[at]);
      // libsentencepiece also merges characters that are no piece of their own; trained models have
      // none such.
      if (!one_character && !Lookup(mergeable, piece.substr(at, length)).has_value()) {
        return absl::UnimplementedError(
            fmt::format("piece {}: a character of it that is no piece is not supported", id));
      }
      if (at == 0) continue;
      const std::optional<TokenId> left = Lookup(mergeable, piece.substr(0, at));
      const std::optional<TokenId> right = Lookup(mergeable, piece.substr(at));
      if (left && right) merges->push_back({*left, *right, id, static_cast<uint32_t>(rank)});
    }
  }
  return absl::OkStatus();
}

Normalizer MakeNormalizer(const SentencePieceModel& model, bool legacy) {
  std::vector<Normalizer::Step> steps;
  if (model.remove_extra_whitespaces) steps.push_back(Normalizer::CollapseSpaces{});
  if (model.add_dummy_prefix) {
    steps.push_back(Normalizer::Prepend{.prefix = " ", .only_at_start = !legacy});
  }
  steps.push_back(Normalizer::Replace{Pattern(std::string(" ")), kMetaspace});
  if (model.remove_extra_whitespaces) steps.push_back(Normalizer::StripLiteral{kMetaspace});
  return Normalizer(std::move(steps));
}

// tokenizer_config.json tells more of tokens that the model has, and of tokens beyond.
void AddConfiguredTokens(const TokenizerConfig& config, PipelineSpec* spec) {
  for (const AddedToken& token : config.added_tokens) {
    const auto same = [&](const AddedToken& other) { return other.content == token.content; };
    std::erase_if(spec->added_tokens, same);
    if (!token.content.empty()) spec->added_tokens.push_back(token);
  }
}

// Appends the id of a token, if there is such a token.
void AppendId(const PipelineSpec& spec, const std::string& text, std::vector<TokenId>* ids) {
  for (const auto& [piece, id] : spec.bpe.vocab) {
    if (piece == text) return ids->push_back(id);
  }
  for (const AddedToken& token : spec.added_tokens) {
    if (token.content == text) return ids->push_back(token.id);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(std::string_view bytes,
                                                                   const TokenizerConfig& config) {
  LORAD_ASSIGN_OR_RETURN(const SentencePieceModel model, ParseSentencePieceProto(bytes));
  LORAD_RETURN_IF_ERROR(RefuseUnsupported(model));
  PipelineSpec spec;
  PieceIds mergeable;
  LORAD_RETURN_IF_ERROR(ReadPieces(model, &spec, &mergeable));
  LORAD_RETURN_IF_ERROR(MakeMerges(model, mergeable, &spec.bpe.merges));
  spec.bpe.fuse_unk = true;
  spec.bpe.byte_fallback = model.byte_fallback;
  spec.normalize_added = false;
  spec.normalizer = MakeNormalizer(model, config.legacy);
  spec.decoder = TokenDecoder::ForSentencePiece(model.add_dummy_prefix);
  AddConfiguredTokens(config, &spec);
  spec.bos_token = config.bos_token.empty() ? model.bos_piece : config.bos_token;
  spec.eos_token = config.eos_token.empty() ? model.eos_piece : config.eos_token;
  if (config.add_bos_token) AppendId(spec, spec.bos_token, &spec.prefix);
  if (config.add_eos_token) AppendId(spec, spec.eos_token, &spec.suffix);
  return MakePipelineTokenizer(std::move(spec));
}

}  // namespace lorad
