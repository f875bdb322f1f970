#include "model/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <string>

namespace lorad {
namespace {

TEST(Utf8, AcceptsEveryLengthAndTheEdgesOfEach) {
  for (const char* text :
       {"", "a", "\x7F", "\u0080", "\u07FF", "\u0800", "\uD7FF", "\uE000", "\uFFFF", "\U00010000",
        "\U0010FFFF", "eight bytes and é then more of them"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
  EXPECT_TRUE(IsValidUtf8(std::string("\0", 1)));
}

TEST(Utf8, RefusesWhatIsIllFormed) {
  for (const char* bytes :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xE0\x9F\xBF", "\xED\xA0\x80",
        "\xED\xBF\xBF", "\xE2\x82", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80",
        "\xFF", "12345678\x80", "\xE2\x28\xA1", "\xF0\x9F\x98"}) {
    EXPECT_FALSE(IsValidUtf8(bytes)) << ::testing::PrintToString(bytes);
  }
}

TEST(Utf8, FirstCharacterTellsTruncatedFromIllFormed) {
  EXPECT_EQ(FirstUtf8Character("\xF0\x9F\x98").kind, Utf8Character::kTruncated);
  EXPECT_EQ(FirstUtf8Character("\xF0\x9F\x98").length, 3u);
  EXPECT_EQ(FirstUtf8Character("\xF0\x9F"
                               "a")
                .kind,
            Utf8Character::kIllFormed);
  EXPECT_EQ(FirstUtf8Character("\xF0\x9F"
                               "a")
                .length,
            2u);
  EXPECT_EQ(FirstUtf8Character("\xED\xA0\x80").length, 1u);
  EXPECT_EQ(FirstUtf8Character("é!").kind, Utf8Character::kWhole);
  EXPECT_EQ(FirstUtf8Character("é!").length, 2u);
}

TEST(Utf8, CharactersRoundTrip) {
  for (char32_t c : {U'a', U'\u00E9', U'\u20AC', U'\U0001F642', U'\U0010FFFF'}) {
    std::string text = "x";
    AppendUtf8(c, &text);
    EXPECT_EQ(CharacterAt(text, 1), c);
    EXPECT_EQ(CharacterBefore(text, text.size()), c);
    EXPECT_EQ(Utf8Length(text[1]), text.size() - 1);
  }
}

TEST(Classes, FollowUnicodeAndHuggingFace) {
  EXPECT_TRUE(IsWhiteSpace(0x85));
  EXPECT_TRUE(IsWhiteSpace(0x3000));
  EXPECT_FALSE(IsWhiteSpace(0x180E));
  EXPECT_FALSE(IsWhiteSpace(0x200B));
  EXPECT_FALSE(IsWhiteSpace(0x1C));
  EXPECT_TRUE(IsWord(U'_'));
  EXPECT_TRUE(IsWord(0x300));
  EXPECT_TRUE(IsWord(0x200D));
  EXPECT_FALSE(IsWord(U'-'));
  EXPECT_TRUE(IsNumeric(0xBD));
  EXPECT_FALSE(IsNumeric(0x4E09));   // a letter that means three
  EXPECT_TRUE(IsPunctuation(U'$'));  // a symbol, but ASCII
  EXPECT_TRUE(IsPunctuation(0x3001));
  EXPECT_FALSE(IsPunctuation(0x20AC));
  EXPECT_FALSE(IsPunctuation(0x2E5C));  // younger than the tables that Hugging Face uses
}

std::string Form(NormalForm form, std::string_view text) {
  auto normalized = Normalize(form, text);
  return normalized.ok() ? *normalized : normalized.status().ToString();
}

TEST(Normalize, MakesEveryForm) {
  EXPECT_EQ(Form(NormalForm::kNfc, "e\u0301"), "\u00E9");
  EXPECT_EQ(Form(NormalForm::kNfd, "\u00E9"), "e\u0301");
  EXPECT_EQ(Form(NormalForm::kNfkc, "\uFB01 e\u0301"), "fi \u00E9");
  EXPECT_EQ(Form(NormalForm::kNfkd, "\uFB01 \u00E9"), "fi e\u0301");
  EXPECT_EQ(Form(NormalForm::kNfc, "\u1112\u1161\u11AB"), "\uD55C");
  EXPECT_EQ(Form(NormalForm::kNfc, ""), "");
}

TEST(Normalize, LeavesCharactersYoungerThanUnicode9) {
  EXPECT_EQ(Form(NormalForm::kNfkc, "\U000107AE"), "\U000107AE");
  EXPECT_EQ(Form(NormalForm::kNfc, "\u1DF4\u1DFA"), "\u1DF4\u1DFA");
}

TEST(Normalize, OrdersALongRunOfMarksAsAShortOne) {
  // Below (220), above (230), overlay (1), one that decomposes (230, 230) and a starter that begins
  // with a mark.
  const std::string unit = "\u0316\u0301\u0334\u0344";
  std::string input = "a", expected = "a";
  constexpr int kRepeats = 5000;
  for (int i = 0; i < kRepeats; ++i) input += unit;
  for (int i = 0; i < kRepeats; ++i) expected += "\u0334";
  for (int i = 0; i < kRepeats; ++i) expected += "\u0316";
  for (int i = 0; i < kRepeats; ++i) expected += "\u0301\u0308\u0301";
  EXPECT_EQ(Form(NormalForm::kNfd, input), expected);
  EXPECT_EQ(Form(NormalForm::kNfd, input + "b" + input), expected + "b" + expected);
  // U+0F73 has class 0 and decomposes to marks of classes 129 and 130: it does not move as one.
  std::string tibetan = "\u0F40", ordered = "\u0F40";
  for (int i = 0; i < 100; ++i) tibetan += "\u0F73\u0F71";
  for (int i = 0; i < 200; ++i) ordered += "\u0F71";
  for (int i = 0; i < 100; ++i) ordered += "\u0F72";
  EXPECT_EQ(Form(NormalForm::kNfd, tibetan), ordered);
}

TEST(LowercaseTest, MapsCharacterByCharacter) {
  EXPECT_EQ(Lowercase("ÀÉ ΑΣ ẞ"), "àé ασ ß");  // no final sigma
  EXPECT_EQ(Lowercase("\u0130"), "i\u0307");
}

}  // namespace
}  // namespace lorad
