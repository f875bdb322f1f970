#include "model/tokenizer/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace lorad {
namespace {

using testing::HasSubstr;

TEST(ParseJsonTest, RefusesBrokenText) {
  for (const char* text :
       {"", "{", "[1,", "{\"a\": }", "nul", "\"\xFF\"", R"("\ud800")", "{} {}", "]"}) {
    EXPECT_EQ(ParseJson(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseJsonTest, RefusesDeepNesting) {
  EXPECT_TRUE(ParseJson(std::string(32, '[') + std::string(32, ']')).ok());
  for (const char* open : {"[", "{\"a\":"}) {
    std::string text;
    for (int i = 0; i < 200'000; ++i) text += open;
    const absl::Status status = ParseJson(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("nested"));
  }
  EXPECT_TRUE(ParseJson("\"" + std::string(100, '[') + "\\\"" + std::string(100, '[') + "\"").ok());
}

TEST(JsonObjectTest, NamesTheFieldInErrors) {
  auto json = ParseJson(R"({"s": 1, "b": "x", "n": null, "o": {"i": 1.5}})");
  ASSERT_TRUE(json.ok());
  auto object = JsonObject::Make(*json, "root");
  ASSERT_TRUE(object.ok());
  EXPECT_THAT(std::string(object->String("s").status().message()), HasSubstr("root.s"));
  EXPECT_THAT(std::string(object->Bool("b", true).status().message()), HasSubstr("root.b"));
  EXPECT_THAT(std::string(object->Object("o")->Integer("i").status().message()),
              HasSubstr("root.o.i"));
  EXPECT_FALSE(object->Array("missing").ok());
  EXPECT_EQ(*object->Bool("n", true), true);
  EXPECT_EQ(*object->String("n", "fallback"), "fallback");
  EXPECT_THAT(std::string(object->RefuseOthers({"s", "b"}).message()), HasSubstr("root.o"));
  EXPECT_TRUE(object->RefuseOthers({"s", "b", "o"}).ok());
  EXPECT_FALSE(JsonObject::Make(Json(3), "x").ok());
}

TEST(ReadFileTest, TellsMissingFromRead) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "read_file_test";
  std::ofstream(path) << "abc";
  EXPECT_EQ(*ReadFile(path), "abc");
  std::filesystem::remove(path);
  EXPECT_EQ(ReadFile(path).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile(testing::TempDir()).ok());
}

}  // namespace
}  // namespace lorad
