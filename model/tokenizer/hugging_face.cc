#include "model/tokenizer/hugging_face.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "memory/base/status_macros.h"
#include "model/tokenizer/pipeline.h"

namespace lorad {
namespace {

using Vocab = absl::flat_hash_map<std::string, TokenId>;

std::optional<TokenId> Lookup(const Vocab& vocab, std::string_view token) {
  const auto found = vocab.find(absl::string_view(token.data(), token.size()));
  return found == vocab.end() ? std::nullopt : std::optional(found->second);
}

absl::StatusOr<Vocab> ReadVocab(const JsonObject& model, BpeSpec* spec) {
  const Json* entries = model.Find("vocab");
  if (entries == nullptr || !entries->is_object()) {
    return model.Invalid("vocab", "must be an object");
  }
  Vocab vocab;
  vocab.reserve(entries->size());
  for (const auto& [token, value] : entries->items()) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
        value.get<int64_t>() > kMaxTokenId) {
      return model.Invalid("vocab", fmt::format("'{}' has no id in [0, {}]", token, kMaxTokenId));
    }
    if (token.empty()) continue;  // spells nothing, so nothing is encoded as it
    vocab.emplace(token, value.get<TokenId>());
    spec->vocab.emplace_back(token, value.get<TokenId>());
  }
  return vocab;
}

// A merge is written ["a", "b"], or "a b" in older files.
absl::StatusOr<std::pair<std::string, std::string>> MergeParts(const JsonObject& model, size_t i,
                                                               const Json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  } else if (value.is_array() && value.size() == 2 && value[0].is_string() &&
             value[1].is_string()) {
    return std::pair(value[0].get<std::string>(), value[1].get<std::string>());
  }
  return model.Invalid("merges", fmt::format("entry {} is no pair of tokens", i));
}

absl::Status ReadMerges(const JsonObject& model, const Vocab& vocab, BpeSpec* spec) {
  LORAD_ASSIGN_OR_RETURN(const Json* entries, model.Array("merges"));
  spec->merges.reserve(entries->size());
  for (size_t i = 0; i < entries->size(); ++i) {
    LORAD_ASSIGN_OR_RETURN(const auto parts, MergeParts(model, i, (*entries)[i]));
    const auto& [left, right] = parts;
    const std::optional<TokenId> ids[] = {Lookup(vocab, left), Lookup(vocab, right),
                                          Lookup(vocab, left + right)};
    if (left.empty() || right.empty() || !ids[0] || !ids[1] || !ids[2]) {
      return model.Invalid(
          "merges", fmt::format("entry {} ('{}', '{}') or what it makes is not in the vocabulary",
                                i, left, right));
    }
    spec->merges.push_back({*ids[0], *ids[1], *ids[2], static_cast<uint32_t>(i)});
  }
  return absl::OkStatus();
}

absl::StatusOr<BpeSpec> ReadModel(const JsonObject& model) {
  LORAD_RETURN_IF_ERROR(model.RefuseOthers(
      {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
       "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges"}));
  LORAD_ASSIGN_OR_RETURN(const std::string type, model.String("type", "BPE"));
  if (type != "BPE") return model.Unsupported("type", fmt::format("'{}'", type));
  if (const Json* dropout = model.Find("dropout"); dropout != nullptr && *dropout != 0.0) {
    return model.Unsupported("dropout", "a value");
  }
  for (std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    LORAD_ASSIGN_OR_RETURN(const std::string affix, model.String(key, ""));
    if (!affix.empty()) return model.Unsupported(key, "a value");
  }
  BpeSpec spec;
  LORAD_ASSIGN_OR_RETURN(spec.fuse_unk, model.Bool("fuse_unk", false));
  LORAD_ASSIGN_OR_RETURN(spec.byte_fallback, model.Bool("byte_fallback", false));
  LORAD_ASSIGN_OR_RETURN(spec.ignore_merges, model.Bool("ignore_merges", false));
  LORAD_ASSIGN_OR_RETURN(const std::string unk_token, model.String("unk_token", ""));
  LORAD_ASSIGN_OR_RETURN(const Vocab vocab, ReadVocab(model, &spec));
  if (!unk_token.empty()) {
    const std::optional<TokenId> unk_id = Lookup(vocab, unk_token);
    if (!unk_id) return model.Invalid("unk_token", "is not in the vocabulary");
    spec.unk_id = *unk_id;
  }
  LORAD_RETURN_IF_ERROR(ReadMerges(model, vocab, &spec));
  return spec;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonObject& root) {
  std::vector<AddedToken> tokens;
  if (root.Find("added_tokens") == nullptr) return tokens;
  LORAD_ASSIGN_OR_RETURN(const Json* entries, root.Array("added_tokens"));
  for (size_t i = 0; i < entries->size(); ++i) {
    LORAD_ASSIGN_OR_RETURN(const JsonObject object,
                           JsonObject::Make((*entries)[i], fmt::format("added_tokens[{}]", i)));
    LORAD_ASSIGN_OR_RETURN(AddedToken token, ParseAddedToken(object));
    LORAD_ASSIGN_OR_RETURN(const int64_t id, object.Integer("id"));
    if (id < 0 || id > kMaxTokenId) {
      return object.Invalid("id", fmt::format("{} is outside [0, {}]", id, kMaxTokenId));
    }
    token.id = static_cast<TokenId>(id);
    if (!token.content.empty()) tokens.push_back(std::move(token));
  }
  return tokens;
}

// The ids that a TemplateProcessing's piece {"SpecialToken": {"id": "<s>"}} stands for.
absl::Status AppendTemplateIds(const JsonObject& processor, const JsonObject& piece,
                               std::vector<TokenId>* ids) {
  LORAD_ASSIGN_OR_RETURN(const JsonObject reference, piece.Object("SpecialToken"));
  LORAD_ASSIGN_OR_RETURN(const std::string name, reference.String("id"));
  LORAD_ASSIGN_OR_RETURN(const JsonObject tokens, processor.Object("special_tokens"));
  LORAD_ASSIGN_OR_RETURN(const JsonObject token, tokens.Object(name));
  LORAD_ASSIGN_OR_RETURN(const Json* values, token.Array("ids"));
  for (const Json& value : *values) {
    if (!value.is_number_integer() || value.get<int64_t>() < 0 ||
        value.get<int64_t>() > kMaxTokenId) {
      return token.Invalid("ids", "must be token ids");
    }
    ids->push_back(value.get<TokenId>());
  }
  return absl::OkStatus();
}

absl::Status ReadTemplate(const JsonObject& object, PipelineSpec* spec) {
  LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "single", "pair", "special_tokens"}));
  LORAD_ASSIGN_OR_RETURN(const Json* pieces, object.Array("single"));
  std::vector<TokenId> prefix, suffix;
  int sequences = 0;
  for (size_t i = 0; i < pieces->size(); ++i) {
    LORAD_ASSIGN_OR_RETURN(
        const JsonObject piece,
        JsonObject::Make((*pieces)[i], fmt::format("{}.single[{}]", object.where(), i)));
    LORAD_RETURN_IF_ERROR(piece.RefuseOthers({"Sequence", "SpecialToken"}));
    if (piece.Find("Sequence") != nullptr) {
      ++sequences;
    } else {
      LORAD_RETURN_IF_ERROR(AppendTemplateIds(object, piece, sequences == 0 ? &prefix : &suffix));
    }
  }
  if (sequences != 1) return object.Unsupported("single", "a template that is not around one text");
  spec->prefix.insert(spec->prefix.begin(), prefix.begin(), prefix.end());
  spec->suffix.insert(spec->suffix.end(), suffix.begin(), suffix.end());
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonObject& object, PipelineSpec* spec) {
  LORAD_ASSIGN_OR_RETURN(const std::string type, object.String("type"));
  if (type == "ByteLevel") {  // about offsets, which nobody asks for here
    return object.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }
  if (type == "TemplateProcessing") return ReadTemplate(object, spec);
  if (type != "Sequence") return object.Unsupported("type", fmt::format("'{}'", type));
  LORAD_RETURN_IF_ERROR(object.RefuseOthers({"type", "processors"}));
  LORAD_ASSIGN_OR_RETURN(const Json* parts, object.Array("processors"));
  for (size_t i = 0; i < parts->size(); ++i) {
    LORAD_ASSIGN_OR_RETURN(
        const JsonObject part,
        JsonObject::Make((*parts)[i], fmt::format("{}.processors[{}]", object.where(), i)));
    LORAD_RETURN_IF_ERROR(ReadPostProcessor(part, spec));
  }
  return absl::OkStatus();
}

absl::StatusOr<PipelineSpec> ReadSpec(const JsonObject& root) {
  LORAD_RETURN_IF_ERROR(
      root.RefuseOthers({"version", "truncation", "padding", "added_tokens", "normalizer",
                         "pre_tokenizer", "post_processor", "decoder", "model"}));
  LORAD_ASSIGN_OR_RETURN(const JsonObject model, root.Object("model"));
  PipelineSpec spec;
  LORAD_ASSIGN_OR_RETURN(spec.bpe, ReadModel(model));
  LORAD_ASSIGN_OR_RETURN(spec.added_tokens, ReadAddedTokens(root));
  LORAD_ASSIGN_OR_RETURN(spec.normalizer, Normalizer::FromJson(root.Find("normalizer")));
  LORAD_ASSIGN_OR_RETURN(spec.pre_tokenizer, PreTokenizer::FromJson(root.Find("pre_tokenizer")));
  LORAD_ASSIGN_OR_RETURN(spec.decoder, TokenDecoder::FromJson(root.Find("decoder")));
  if (root.Find("post_processor") != nullptr) {
    LORAD_ASSIGN_OR_RETURN(const JsonObject processor, root.Object("post_processor"));
    LORAD_RETURN_IF_ERROR(ReadPostProcessor(processor, &spec));
  }
  spec.bpe.byte_level = spec.pre_tokenizer.byte_level();
  return spec;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view text,
                                                              const TokenizerConfig& config) {
  LORAD_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  LORAD_ASSIGN_OR_RETURN(const JsonObject root, JsonObject::Make(json, ""));
  LORAD_ASSIGN_OR_RETURN(PipelineSpec spec, ReadSpec(root));
  spec.bos_token = config.bos_token;
  spec.eos_token = config.eos_token;
  return MakePipelineTokenizer(std::move(spec));
}

}  // namespace lorad
