#include "model/tokenizer/byte_level.h"

#include <array>

#include "model/tokenizer/unicode.h"

namespace lorad {
namespace {

// Latin-1's printable characters stand for themselves; the other bytes follow from U+0100 on in
// order.
constexpr bool IsPrintableLatin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr size_t kLetters = 0x144;

struct Tables {
  std::array<char32_t, 256> letter{};
  std::array<int, kLetters> byte{};  // -1: no letter
};

constexpr Tables MakeTables() {
  Tables tables;
  for (int& byte : tables.byte) byte = -1;
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const char32_t letter = IsPrintableLatin1(byte) ? static_cast<char32_t>(byte) : next++;
    tables.letter[byte] = letter;
    tables.byte[letter] = byte;
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

std::string ByteLevelLetter(unsigned char byte) {
  std::string letter;
  AppendUtf8(kTables.letter[byte], &letter);
  return letter;
}

bool AppendByteLevelBytes(std::string_view token, std::string* bytes) {
  const size_t size_before = bytes->size();
  for (size_t at = 0; at < token.size(); at += Utf8Length(token[at])) {
    const char32_t c = CharacterAt(token, at);
    if (c >= kLetters || kTables.byte[c] < 0) {
      bytes->resize(size_before);
      return false;
    }
    bytes->push_back(static_cast<char>(kTables.byte[c]));
  }
  return true;
}

}  // namespace lorad
