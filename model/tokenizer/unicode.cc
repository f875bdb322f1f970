#include "model/tokenizer/unicode.h"

#include <fmt/format.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "memory/base/check.h"

namespace lorad {
namespace {

constexpr uint32_t kPunctuationMask = U_GC_P_MASK;
constexpr uint32_t kNumericMask = U_GC_N_MASK;
constexpr uint32_t kWordMask = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;

// ICU puts combining marks in order by insertion, which is quadratic in the length of a run of
// them. Longer runs than this are put in order here first.
constexpr size_t kLongMarkRun = 64;

// Hugging Face normalizes by the tables of Unicode 9.0: younger characters neither decompose nor
// move.
const icu::UnicodeSet& NormalizedCharacters() {
  static const icu::UnicodeSet set = [] {
    UErrorCode error = U_ZERO_ERROR;
    icu::UnicodeSet characters(icu::UnicodeString::fromUTF8("[:age=9.0:]"), error);
    LORAD_CHECK(U_SUCCESS(error));
    characters.freeze();
    return characters;
  }();
  return set;
}

const icu::Normalizer2* FindNormalizer(NormalForm form, UErrorCode& error) {
  switch (form) {
    case NormalForm::kNfc:
      return icu::Normalizer2::getNFCInstance(error);
    case NormalForm::kNfd:
      return icu::Normalizer2::getNFDInstance(error);
    case NormalForm::kNfkc:
      return icu::Normalizer2::getNFKCInstance(error);
    case NormalForm::kNfkd:
      return icu::Normalizer2::getNFKDInstance(error);
  }
  return nullptr;
}

// Decomposes `run` and puts it in canonical order, which no normal form of the text around it can
// tell from `run`.
void AppendOrdered(const icu::Normalizer2& normalizer, const std::vector<char32_t>& run,
                   std::string* out) {
  std::vector<std::pair<uint8_t, char32_t>> marks;
  icu::UnicodeString decomposition;
  for (char32_t c : run) {
    if (!normalizer.getDecomposition(static_cast<UChar32>(c), decomposition)) {
      marks.emplace_back(normalizer.getCombiningClass(static_cast<UChar32>(c)), c);
      continue;
    }
    for (int32_t i = 0; i < decomposition.length(); i = decomposition.moveIndex32(i, 1)) {
      const UChar32 part = decomposition.char32At(i);
      marks.emplace_back(normalizer.getCombiningClass(part), static_cast<char32_t>(part));
    }
  }
  auto begin = marks.begin();
  while (begin != marks.end()) {  // starters stay where they are
    const auto end =
        std::find_if(begin + 1, marks.end(), [](const auto& mark) { return mark.first == 0; });
    std::stable_sort(begin, end, [](const auto& a, const auto& b) { return a.first < b.first; });
    begin = end;
  }
  for (const auto& mark : marks) AppendUtf8(mark.second, out);
}

// True if `c` can move in canonical ordering, be it by the marks that it decomposes to.
bool MayReorder(char32_t c) {
  const auto character = static_cast<UChar32>(c);
  return u_getIntPropertyValue(character, UCHAR_LEAD_CANONICAL_COMBINING_CLASS) != 0 &&
         NormalizedCharacters().contains(character);
}

// `text` with its long runs of combining marks in canonical order.
std::string OrderLongMarkRuns(const icu::Normalizer2& normalizer, std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<char32_t> run;
  size_t run_begin = 0;
  for (size_t at = 0; at <= text.size();) {
    const char32_t c = at < text.size() ? CharacterAt(text, at) : 0;
    if (c >= 0x300 && MayReorder(c)) {
      if (run.empty()) run_begin = at;
      run.push_back(c);
      at += Utf8Length(text[at]);
      continue;
    }
    if (run.size() > kLongMarkRun) {
      AppendOrdered(normalizer, run, &out);
    } else if (!run.empty()) {
      out.append(text.substr(run_begin, at - run_begin));
    }
    run.clear();
    if (at == text.size()) break;
    out.append(text.substr(at, Utf8Length(text[at])));
    at += Utf8Length(text[at]);
  }
  return out;
}

bool HasLongMarkRun(std::string_view text) {
  size_t run = 0;
  for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
    const char32_t c = CharacterAt(text, at);
    run = c >= 0x300 && MayReorder(c) ? run + 1 : 0;
    if (run > kLongMarkRun) return true;
  }
  return false;
}

bool IsAscii(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; });
}

}  // namespace

Utf8Character FirstUtf8Character(std::string_view bytes) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {Utf8Character::kWhole, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Character::kIllFormed, 1};
  const size_t length = Utf8Length(bytes[0]);
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Utf8Character::kTruncated, i};
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1 && lead == 0xE0) low = 0xA0;   // overlong
    if (i == 1 && lead == 0xED) high = 0x9F;  // surrogates
    if (i == 1 && lead == 0xF0) low = 0x90;
    if (i == 1 && lead == 0xF4) high = 0x8F;  // beyond U+10FFFF
    if (at(i) < low || at(i) > high) return {Utf8Character::kIllFormed, i};
  }
  return {Utf8Character::kWhole, length};
}

bool IsValidUtf8(std::string_view text) {
  while (!text.empty()) {
    uint64_t word;
    if (text.size() >= sizeof(word)) {
      std::memcpy(&word, text.data(), sizeof(word));
      if ((word & 0x8080808080808080) == 0) {
        text.remove_prefix(sizeof(word));
        continue;
      }
    }
    const Utf8Character first = FirstUtf8Character(text);
    if (first.kind != Utf8Character::kWhole) return false;
    text.remove_prefix(first.length);
  }
  return true;
}

char32_t CharacterAt(std::string_view text, size_t offset) {
  const auto* data = reinterpret_cast<const uint8_t*>(text.data());
  UChar32 c;
  U8_NEXT_UNSAFE(data, offset, c);
  return static_cast<char32_t>(c);
}

char32_t CharacterBefore(std::string_view text, size_t offset) {
  const auto* data = reinterpret_cast<const uint8_t*>(text.data());
  UChar32 c;
  U8_PREV_UNSAFE(data, offset, c);
  return static_cast<char32_t>(c);
}

void AppendUtf8(char32_t character, std::string* out) {
  uint8_t buffer[U8_MAX_LENGTH];
  int32_t length = 0;
  U8_APPEND_UNSAFE(buffer, length, character);
  out->append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(length));
}

bool IsWhiteSpace(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool IsWord(char32_t c) {
  const auto character = static_cast<UChar32>(c);
  return u_hasBinaryProperty(character, UCHAR_ALPHABETIC) ||
         (U_GET_GC_MASK(character) & kWordMask) != 0 ||
         u_hasBinaryProperty(character, UCHAR_JOIN_CONTROL);
}

bool IsNumeric(char32_t c) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & kNumericMask) != 0; }

bool IsPunctuation(char32_t c) {
  // Hugging Face's tables for this are those of Unicode 8.0, but for one character.
  constexpr uint8_t kUnicodeMajor = 8;
  constexpr char32_t kCanadianSyllabicsChiSign = 0x166D, kSharadaSandhiMark = 0x111C9;
  if (c < 0x80) {
    const bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
    return c > 0x20 && c < 0x7F && !letter && !(c >= '0' && c <= '9');
  }
  if (c == kCanadianSyllabicsChiSign) return true;
  if (c == kSharadaSandhiMark) return false;
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= kUnicodeMajor &&
         (U_GET_GC_MASK(static_cast<UChar32>(c)) & kPunctuationMask) != 0;
}

absl::StatusOr<std::string> Normalize(NormalForm form, std::string_view text) {
  if (IsAscii(text)) return std::string(text);
  if (text.size() > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError("text is too long to be normalized");
  }
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = FindNormalizer(form, error);
  std::string ordered, out;
  if (U_SUCCESS(error)) {
    if (HasLongMarkRun(text)) {
      ordered = OrderLongMarkRuns(*normalizer, text);
      text = ordered;
    }
    icu::StringByteSink<std::string> sink(&out);
    const icu::FilteredNormalizer2 filtered(*normalizer, NormalizedCharacters());
    filtered.normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
                           sink, nullptr, error);
  }
  if (U_FAILURE(error)) {
    return absl::InternalError(fmt::format("ICU cannot normalize: {}", u_errorName(error)));
  }
  return out;
}

std::string Lowercase(std::string_view text) {
  constexpr char32_t kCapitalDottedI = 0x130;  // the only one that becomes two characters
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += Utf8Length(text[at])) {
    const char32_t c = CharacterAt(text, at);
    AppendUtf8(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))), &out);
    if (c == kCapitalDottedI) AppendUtf8(0x307, &out);
  }
  return out;
}

}  // namespace lorad
