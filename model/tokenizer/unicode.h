// What the tokenizers need to know of Unicode: UTF-8, character classes and normal forms (ICU).
// Pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lorad {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// The first character of `bytes`: whole, cut off by the end of `bytes`, or ill-formed. `length`
// bytes belong to it (the maximal ill-formed part that one U+FFFD stands for), at least one.
struct Utf8Character {
  enum Kind { kWhole, kTruncated, kIllFormed } kind;
  size_t length;
};
// REQUIRES: !bytes.empty().
Utf8Character FirstUtf8Character(std::string_view bytes);

bool IsValidUtf8(std::string_view text);

// The functions below: REQUIRES `text` is well-formed UTF-8.

// Bytes of the character that begins with `lead`.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
// The character at `offset`, which must be less than text.size().
char32_t CharacterAt(std::string_view text, size_t offset);
// The character that ends right before `offset`, which must not be 0.
char32_t CharacterBefore(std::string_view text, size_t offset);
void AppendUtf8(char32_t character, std::string* out);

bool IsWhiteSpace(char32_t c);  // White_Space
bool IsWord(char32_t c);        // \w: Alphabetic, marks, decimal digits, connectors, joiners
bool IsNumeric(char32_t c);     // general category N
bool IsPunctuation(
    char32_t c);  // general category P, or ASCII that is printed and no letter, digit or space

absl::StatusOr<std::string> Normalize(NormalForm form, std::string_view text);

// Character by character, without regard to context or language.
std::string Lowercase(std::string_view text);

}  // namespace lorad
