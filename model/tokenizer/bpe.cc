#include "model/tokenizer/bpe.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/string_view.h"
#include "memory/base/check.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

// A word of at most so many symbols is merged as it is; a longer one is first cut where no merge
// reaches across.
constexpr size_t kFewSymbols = 16;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::optional<unsigned char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  const int high = HexDigit(token[3]), low = HexDigit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<unsigned char>(high << 4 | low);
}

Bpe::Bpe(const BpeSpec& spec)
    : special_(spec.special),
      unk_id_(spec.unk_id),
      fuse_unk_(spec.fuse_unk),
      byte_fallback_(spec.byte_fallback),
      ignore_merges_(spec.ignore_merges),
      byte_level_(spec.byte_level) {
  byte_tokens_.fill(kNoToken);
  vocab_.reserve(spec.vocab.size());
  for (const auto& [token, id] : spec.vocab) {
    // Encoding looks for capital digits only.
    const std::optional<unsigned char> byte = ByteOfToken(token);
    if (byte.has_value() && token.find_first_of("abcdef", 3) == token.npos)
      byte_tokens_[*byte] = id;
    std::string text;
    if (byte_level_) {
      if (!AppendByteLevelBytes(token, &text)) continue;  // no word can spell it
    } else {
      text = token;
    }
    max_token_bytes_ = std::max(max_token_bytes_, text.size());
    vocab_.emplace(std::move(text), Entry{id, false});
  }
  for (int byte = 0; byte < (byte_level_ ? 256 : 128); ++byte) {
    initials_[byte] = MakeInitial(std::string(1, static_cast<char>(byte)));
  }
  AddMerges(spec);
  MarkWhole();
}

void Bpe::AddMerges(const BpeSpec& spec) {
  const TokenId size = static_cast<TokenId>(spec.special.size());
  for (const BpeMerge& merge : spec.merges) {
    LORAD_CHECK(merge.left < size && merge.right < size && merge.merged < size);
    merges_.Add(merge.left, merge.right, merge.rank, merge.merged, spec.special[merge.merged]);
  }
  // A token's first and last symbol, found from short tokens to long. What stands for other text
  // than its own (bytes, unknown characters) must not take part, or its ends would not be those of
  // its text.
  std::vector<size_t> length(spec.special.size());
  for (const auto& [token, id] : spec.vocab) length[id] = token.size();
  std::vector<bool> stands_for_other(spec.special.size());
  if (unk_id_ != kNoToken) stands_for_other[unk_id_] = true;
  if (byte_fallback_) {
    for (TokenId id : byte_tokens_) {
      if (id != kNoToken) stands_for_other[id] = true;
    }
  }
  std::vector<size_t> order(spec.merges.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return length[spec.merges[a].merged] < length[spec.merges[b].merged];
  });
  std::vector<TokenId> first(spec.special.size()), last(spec.special.size());
  std::iota(first.begin(), first.end(), 0);
  std::iota(last.begin(), last.end(), 0);
  has_seams_ = true;
  for (size_t i : order) {
    const BpeMerge& merge = spec.merges[i];
    has_seams_ = has_seams_ && !stands_for_other[merge.left] && !stands_for_other[merge.right] &&
                 !stands_for_other[merge.merged];
    merges_.AddSeam(last[merge.left], first[merge.right]);
    first[merge.merged] = first[merge.left];
    last[merge.merged] = last[merge.right];
  }
}

// A token that its own text encodes to needs no merging ever after: one look-up instead.
void Bpe::MarkWhole() {
  // Merges that make special tokens are not always allowed, so that one answer would not do.
  if (!has_seams_ || merges_.makes_special()) return;
  Scratch scratch;
  std::vector<TokenId> ids;
  for (auto& [text, entry] : vocab_) {
    if (text.empty()) continue;
    scratch.symbols.clear();
    ids.clear();
    AppendSymbols(text, &scratch.symbols);
    merges_.Merge(scratch.symbols, /*allow_special=*/true, &scratch.merges, &ids);
    entry.whole = ids.size() == 1 && ids[0] == entry.id;
  }
}

const Bpe::Entry* Bpe::Find(std::string_view word) const {
  if (word.size() > max_token_bytes_) return nullptr;
  const auto found = vocab_.find(absl::string_view(word.data(), word.size()));
  return found == vocab_.end() ? nullptr : &found->second;
}

Bpe::Initial Bpe::MakeInitial(std::string_view character) const {
  Initial initial;
  if (const Entry* entry = Find(character)) {
    initial.id = entry->id;
    return initial;
  }
  if (!byte_fallback_) return initial;
  // Hugging Face falls back on the bytes of ByteLevel's letter, where there is one.
  const std::string spelling = byte_level_
                                   ? ByteLevelLetter(static_cast<unsigned char>(character[0]))
                                   : std::string(character);
  for (char c : spelling) {
    initial.bytes.push_back(byte_tokens_[static_cast<unsigned char>(c)]);
    if (initial.bytes.back() == kNoToken) {
      initial.bytes.clear();
      break;
    }
  }
  return initial;
}

void Bpe::AppendSymbols(std::string_view word, std::vector<Symbol>* symbols) const {
  symbols->reserve(word.size());
  bool unknown_pending = false;
  Symbol unknown{unk_id_, 0};
  for (size_t at = 0; at < word.size();) {
    const auto byte = static_cast<unsigned char>(word[at]);
    const size_t length = byte_level_ ? 1 : Utf8Length(word[at]);
    const auto offset = static_cast<uint32_t>(at);
    Initial made;
    const Initial* initial = &initials_[byte];
    if (!byte_level_ && byte >= 0x80) {
      made = MakeInitial(word.substr(at, length));
      initial = &made;
    }
    at += length;
    if (initial->id != kNoToken) {
      if (unknown_pending) symbols->push_back(unknown);
      unknown_pending = false;
      symbols->push_back({initial->id, offset});
    } else if (!initial->bytes.empty()) {
      // An unknown character that waits goes after these bytes: so it does in Hugging Face's code.
      for (TokenId id : initial->bytes) symbols->push_back({id, offset});
    } else if (unk_id_ != kNoToken) {
      if (unknown_pending && !fuse_unk_) symbols->push_back(unknown);
      if (!unknown_pending || !fuse_unk_) unknown.offset = offset;
      unknown_pending = true;
    }
  }
  if (unknown_pending) symbols->push_back(unknown);
}

bool Bpe::AppendWhole(std::string_view word, bool allow_special, std::vector<TokenId>* out) const {
  const Entry* entry = Find(word);
  if (entry == nullptr || !(entry->whole || ignore_merges_)) return false;
  if (!allow_special && IsSpecial(entry->id)) return false;
  out->push_back(entry->id);
  return true;
}

void Bpe::Encode(std::string_view word, bool allow_special, Scratch* scratch,
                 std::vector<TokenId>* out) const {
  if (AppendWhole(word, allow_special, out)) return;
  scratch->symbols.clear();
  AppendSymbols(word, &scratch->symbols);
  if (scratch->symbols.size() <= kFewSymbols || !has_seams_) {
    merges_.Merge(scratch->symbols, allow_special, &scratch->merges, out);
  } else {
    MergeRuns(word, allow_special, scratch, out);
  }
}

// The same as merging all symbols at once, run by run of those that a merge may reach across.
void Bpe::MergeRuns(std::string_view word, bool allow_special, Scratch* scratch,
                    std::vector<TokenId>* out) const {
  const std::span<Symbol> symbols(scratch->symbols);
  for (size_t begin = 0; begin < symbols.size();) {
    size_t end = begin + 1;
    while (end < symbols.size() && merges_.MayJoin(symbols[end - 1].id, symbols[end].id)) ++end;
    const std::span<Symbol> run = symbols.subspan(begin, end - begin);
    const size_t text_begin = run.front().offset;
    const size_t text_end = end < symbols.size() ? symbols[end].offset : word.size();
    begin = end;
    if (run.size() == 1) {
      out->push_back(run[0].id);
      continue;
    }
    const Entry* entry = Find(word.substr(text_begin, text_end - text_begin));
    if (entry != nullptr && entry->whole && (allow_special || !IsSpecial(entry->id))) {
      out->push_back(entry->id);
      continue;
    }
    merges_.Merge(run, allow_special, &scratch->merges, out);
  }
}

}  // namespace lorad
