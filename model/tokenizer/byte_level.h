// GPT-2's spelling of bytes as printable letters, which byte-level vocabularies are written in.
// Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace lorad {

// The letter of a byte, as UTF-8.
std::string ByteLevelLetter(unsigned char byte);

// Appends the bytes that `token` spells. False, and nothing appended, if a character of it is no
// such letter. REQUIRES: `token` is well-formed UTF-8.
bool AppendByteLevelBytes(std::string_view token, std::string* bytes);

}  // namespace lorad
