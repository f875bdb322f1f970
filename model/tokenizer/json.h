// Typed reading of hostile JSON (nlohmann::json, its exceptions kept inside). Every error names the
// field. Pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace lorad {

using Json = nlohmann::json;

// The bytes of a file. NotFound if there is none, InvalidArgument if it is too large.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path);

// InvalidArgument for what is no JSON, not UTF-8, or nested too deeply.
absl::StatusOr<Json> ParseJson(std::string_view text);

// A JSON object and where it stands in its file ("pre_tokenizer.pretokenizers[0]"). Borrows the
// object.
class JsonObject {
 public:
  // InvalidArgument if `value` is no object.
  static absl::StatusOr<JsonObject> Make(const Json& value, std::string where);

  const std::string& where() const { return where_; }
  // The member, or null if it is missing or null.
  const Json* Find(std::string_view key) const;

  // The member; InvalidArgument if it is missing or of another type.
  absl::StatusOr<std::string> String(std::string_view key) const;
  absl::StatusOr<int64_t> Integer(std::string_view key) const;
  absl::StatusOr<JsonObject> Object(std::string_view key) const;
  absl::StatusOr<const Json*> Array(std::string_view key) const;

  // The member, or `fallback` if it is missing or null; InvalidArgument if it is of another type.
  absl::StatusOr<bool> Bool(std::string_view key, bool fallback) const;
  absl::StatusOr<std::string> String(std::string_view key, std::string_view fallback) const;

  // Unimplemented if there is a member that is not among `known`, and not null.
  absl::Status RefuseOthers(std::initializer_list<std::string_view> known) const;

  absl::Status Invalid(std::string_view key, std::string_view problem) const;
  absl::Status Unsupported(std::string_view key, std::string_view what) const;

 private:
  JsonObject(const Json& object, std::string where) : object_(&object), where_(std::move(where)) {}
  const Json* object_;
  std::string where_;
};

}  // namespace lorad
