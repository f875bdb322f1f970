#include "model/tokenizer/added_tokens.h"

#include <algorithm>

#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

uint64_t Edge(uint32_t node, char byte) {
  return static_cast<uint64_t>(node) << 8 | static_cast<unsigned char>(byte);
}

bool TouchesWord(std::string_view text, size_t begin, size_t end) {
  return (begin > 0 && IsWord(CharacterBefore(text, begin))) ||
         (end < text.size() && IsWord(CharacterAt(text, end)));
}

}  // namespace

void AddedTokenMatcher::Add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty()) return;
  begins_[static_cast<unsigned char>(pattern[0])] = true;
  uint32_t node = kRoot;
  for (char c : pattern) {
    const auto [edge, is_new] =
        edges_.try_emplace(Edge(node, c), static_cast<uint32_t>(ends_.size()));
    if (is_new) ends_.push_back(-1);
    node = edge->second;
  }
  if (ends_[node] >= 0) return;  // the first one stands
  ends_[node] = static_cast<int>(targets_.size());
  targets_.push_back({token.id, token.special, token.single_word, token.lstrip, token.rstrip});
}

AddedTokenMatcher::Match AddedTokenMatcher::Longest(std::string_view text, size_t begin) const {
  Match longest{begin, nullptr};
  uint32_t node = kRoot;
  for (size_t at = begin; at < text.size(); ++at) {
    const auto edge = edges_.find(Edge(node, text[at]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (ends_[node] >= 0) longest = {at + 1, &targets_[ends_[node]]};
  }
  return longest;
}

void AddedTokenMatcher::Split(std::string_view text, bool parse_special,
                              std::vector<TextSegment>* segments) const {
  size_t emitted = 0;  // everything before belongs to a segment
  for (size_t at = 0; at < text.size();) {
    if (!begins_[static_cast<unsigned char>(text[at])]) {
      ++at;
      continue;
    }
    const Match match = Longest(text, at);
    if (match.target == nullptr) {
      ++at;
      continue;
    }
    const Target& target = *match.target;
    size_t begin = at, end = match.end;
    at = match.end;  // what is found and not wanted is skipped all the same
    if (target.special && !parse_special) continue;
    if (target.single_word && TouchesWord(text, begin, end)) continue;
    while (target.lstrip && begin > emitted && IsWhiteSpace(CharacterBefore(text, begin))) {
      do {
        --begin;
      } while ((text[begin] & 0xC0) == 0x80);
    }
    while (target.rstrip && end < text.size() && IsWhiteSpace(CharacterAt(text, end))) {
      end += Utf8Length(text[end]);
    }
    begin = std::max(begin, emitted);
    end = std::max(end, emitted);
    if (emitted < begin) segments->push_back({text.substr(emitted, begin - emitted), kNoToken});
    segments->push_back({text.substr(begin, end - begin), target.id});
    emitted = end;
  }
  if (emitted < text.size()) segments->push_back({text.substr(emitted), kNoToken});
}

}  // namespace lorad
