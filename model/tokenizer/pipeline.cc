#include "model/tokenizer/pipeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "absl/strings/string_view.h"
#include "memory/base/status_macros.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

// Patterns of real models need some milliseconds for a megabyte. Wall-clock time, so it must do on
// a busy machine too.
SearchDeadline DeadlineFor(std::string_view text) {
  return SearchDeadline(std::chrono::seconds(5 + (text.size() >> 20)));
}

// A normal form can be eighteen times as long, a word must stay below 2^31 bytes, and merging needs
// 24 bytes for each.
constexpr size_t kMaxTextBytes = 16 << 20;

// Every token by its id and every id by its token.
class TokenNames {
 public:
  absl::Status Add(std::string_view token, TokenId id) {
    if (id < 0 || id > kMaxTokenId) {
      return absl::InvalidArgumentError(
          fmt::format("token '{}' has id {}, outside [0, {}]", token, id, kMaxTokenId));
    }
    const auto [found, is_new] = ids_.emplace(std::string(token), id);
    if (!is_new && found->second == id) return absl::OkStatus();
    if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(id + 1);
    if (!is_new || !tokens_[id].empty()) {
      return absl::InvalidArgumentError(
          fmt::format("token '{}' with id {} collides with '{}' with id {}", token, id,
                      is_new ? tokens_[id] : std::string(token), is_new ? id : found->second));
    }
    tokens_[id] = token;
    return absl::OkStatus();
  }

  const std::string& Token(TokenId id) const {
    static const std::string none;
    return id >= 0 && static_cast<size_t>(id) < tokens_.size() ? tokens_[id] : none;
  }
  std::optional<TokenId> Id(std::string_view token) const {
    const auto found = ids_.find(absl::string_view(token.data(), token.size()));
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  size_t size() const { return tokens_.size(); }

 private:
  std::vector<std::string> tokens_;
  absl::flat_hash_map<std::string, TokenId> ids_;
};

// What one call of Encode works in.
struct EncodeState {
  bool parse_special;
  SearchDeadline deadline;
  PreTokenizerScratch words;
  Bpe::Scratch bpe;
  std::vector<TokenId> ids;
};

class PipelineTokenizer final : public Tokenizer {
 public:
  PipelineTokenizer(PipelineSpec spec, TokenNames names)
      : names_(std::move(names)),
        special_(spec.bpe.special),
        bpe_(spec.bpe),
        normalizer_(std::move(spec.normalizer)),
        pre_tokenizer_(std::move(spec.pre_tokenizer)),
        decoder_(std::move(spec.decoder)),
        prefix_(std::move(spec.prefix)),
        suffix_(std::move(spec.suffix)),
        bos_id_(names_.Id(spec.bos_token)),
        eos_id_(names_.Id(spec.eos_token)) {}

  // REQUIRES: called before the tokenizer is used.
  absl::Status AddMatchers(const std::vector<AddedToken>& added_tokens, bool normalize) {
    for (const AddedToken& token : added_tokens) {
      if (!token.normalized) {
        raw_matcher_.Add(token, token.content);
      } else if (!normalize) {
        normalized_matcher_.Add(token, token.content);
      } else {
        LORAD_ASSIGN_OR_RETURN(
            const std::string pattern,
            normalizer_.Run(token.content, /*at_start=*/true, DeadlineFor(token.content)));
        normalized_matcher_.Add(token, pattern);
        if (pattern != token.content) normalized_spelling_.emplace(token.id, pattern);
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<TokenId>> Encode(std::string_view text,
                                              const EncodeOptions& options) const override {
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(
          fmt::format("text of {} bytes, more than {}", text.size(), kMaxTextBytes));
    }
    if (!IsValidUtf8(text)) return absl::InvalidArgumentError("text is not valid UTF-8");
    EncodeState state{options.parse_special, DeadlineFor(text), {}, {}, {}};
    if (options.add_special_tokens) state.ids = prefix_;
    std::vector<TextSegment> segments;
    raw_matcher_.Split(text, options.parse_special, &segments);
    for (const TextSegment& segment : segments) {
      if (segment.id != kNoToken) {
        state.ids.push_back(segment.id);
      } else {
        LORAD_RETURN_IF_ERROR(EncodePart(segment.text, segment.text.data() == text.data(), &state));
      }
    }
    if (options.add_special_tokens) {
      state.ids.insert(state.ids.end(), suffix_.begin(), suffix_.end());
    }
    return std::move(state.ids);
  }

  std::string Decode(std::span<const TokenId> tokens, bool skip_special_tokens) const override {
    DecodeStream stream(decoder_);
    std::string text;
    for (TokenId token : tokens) {
      if (IsDecoded(token, skip_special_tokens)) stream.Push(Spelling(token), &text);
    }
    stream.Flush(&text);
    return text;
  }

  std::unique_ptr<IncrementalDetokenizer> NewDetokenizer(bool skip_special_tokens) const override {
    return std::make_unique<Detokenizer>(*this, skip_special_tokens);
  }

  int vocab_size() const override { return static_cast<int>(names_.size()); }
  std::optional<TokenId> bos_id() const override { return bos_id_; }
  std::optional<TokenId> eos_id() const override { return eos_id_; }
  bool is_special(TokenId token) const override {
    return token >= 0 && static_cast<size_t>(token) < special_.size() && special_[token];
  }
  const std::string& IdToToken(TokenId token) const override { return names_.Token(token); }
  std::string TokenBytes(TokenId token) const override { return decoder_.BytesOf(Spelling(token)); }
  std::optional<TokenId> TokenToId(std::string_view token) const override {
    return names_.Id(token);
  }

 private:
  class Detokenizer final : public IncrementalDetokenizer {
   public:
    Detokenizer(const PipelineTokenizer& tokenizer, bool skip_special_tokens)
        : tokenizer_(tokenizer),
          skip_special_tokens_(skip_special_tokens),
          stream_(tokenizer.decoder_) {}

    std::string Push(TokenId token) override {
      std::string text;
      if (tokenizer_.IsDecoded(token, skip_special_tokens_)) {
        stream_.Push(tokenizer_.Spelling(token), &text);
      }
      return text;
    }

    std::string Flush() override {
      std::string text;
      stream_.Flush(&text);
      return text;
    }

   private:
    const PipelineTokenizer& tokenizer_;
    const bool skip_special_tokens_;
    DecodeStream stream_;
  };

  bool IsDecoded(TokenId token, bool skip_special_tokens) const {
    return !names_.Token(token).empty() && !(skip_special_tokens && is_special(token));
  }

  // What decoding starts from: the token, or as Hugging Face has it the text that an added token
  // was found by.
  const std::string& Spelling(TokenId token) const {
    const auto found = normalized_spelling_.find(token);
    return found == normalized_spelling_.end() ? names_.Token(token) : found->second;
  }

  // Text without tokens that are looked for before normalizing.
  absl::Status EncodePart(std::string_view text, bool at_start, EncodeState* state) const {
    std::string normalized;
    if (!normalizer_.empty()) {
      LORAD_ASSIGN_OR_RETURN(normalized, normalizer_.Run(text, at_start, state->deadline));
      text = normalized;
    }
    std::vector<TextSegment> segments;
    normalized_matcher_.Split(text, state->parse_special, &segments);
    std::vector<Word> words;
    for (const TextSegment& segment : segments) {
      if (segment.id != kNoToken) {
        state->ids.push_back(segment.id);
        continue;
      }
      state->words.texts.clear();
      LORAD_RETURN_IF_ERROR(pre_tokenizer_.Run(segment.text,
                                               at_start && segment.text.data() == text.data(),
                                               state->deadline, &state->words, &words));
      for (const Word& word : words) {
        bpe_.Encode(word.text, state->parse_special, &state->bpe, &state->ids);
      }
    }
    return absl::OkStatus();
  }

  const TokenNames names_;
  const std::vector<bool> special_;
  const Bpe bpe_;
  AddedTokenMatcher raw_matcher_, normalized_matcher_;
  absl::flat_hash_map<TokenId, std::string> normalized_spelling_;  // where it differs
  const Normalizer normalizer_;
  const PreTokenizer pre_tokenizer_;
  const TokenDecoder decoder_;
  const std::vector<TokenId> prefix_, suffix_;
  const std::optional<TokenId> bos_id_, eos_id_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> MakePipelineTokenizer(PipelineSpec spec) {
  TokenNames names;
  for (const auto& [token, id] : spec.bpe.vocab) LORAD_RETURN_IF_ERROR(names.Add(token, id));
  for (const AddedToken& token : spec.added_tokens) {
    if (token.content.size() > kMaxAddedTokenBytes) {
      return absl::InvalidArgumentError(fmt::format("added token {} has {} bytes, more than {}",
                                                    token.id, token.content.size(),
                                                    kMaxAddedTokenBytes));
    }
    LORAD_RETURN_IF_ERROR(names.Add(token.content, token.id));
  }
  spec.bpe.special.assign(names.size(), false);
  for (const AddedToken& token : spec.added_tokens) {
    if (token.special) spec.bpe.special[token.id] = true;
  }
  for (const auto* around : {&spec.prefix, &spec.suffix}) {
    for (TokenId id : *around) {
      if (names.Token(id).empty()) {
        return absl::InvalidArgumentError(fmt::format("post_processor: no token has id {}", id));
      }
    }
  }
  const std::vector<AddedToken> added_tokens = std::move(spec.added_tokens);
  const bool normalize_added = spec.normalize_added;
  auto tokenizer = std::make_unique<PipelineTokenizer>(std::move(spec), std::move(names));
  LORAD_RETURN_IF_ERROR(tokenizer->AddMatchers(added_tokens, normalize_added));
  return tokenizer;
}

}  // namespace lorad
