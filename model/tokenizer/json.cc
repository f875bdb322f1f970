#include "model/tokenizer/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <system_error>

#include "memory/base/status_macros.h"

namespace lorad {
namespace {

constexpr uintmax_t kMaxFileBytes = 256 << 20;
constexpr int kMaxDepth = 32;

// The parser and the destructor of nlohmann::json go as deep as the text does, so that is looked at
// first.
bool IsTooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

std::string Path(const std::string& where, std::string_view key) {
  return where.empty() ? std::string(key) : fmt::format("{}.{}", where, key);
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(fmt::format("no file {}", path.string()));
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kMaxFileBytes) {
    return absl::InvalidArgumentError(
        fmt::format("{}: larger than {} bytes", path.string(), kMaxFileBytes));
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size))) {
    return absl::UnavailableError(fmt::format("{}: cannot be read", path.string()));
  }
  return bytes;
}

absl::StatusOr<Json> ParseJson(std::string_view text) {
  if (IsTooDeep(text)) {
    return absl::InvalidArgumentError(fmt::format("JSON nested deeper than {}", kMaxDepth));
  }
  try {
    return Json::parse(text);
  } catch (const Json::exception& error) {
    return absl::InvalidArgumentError(fmt::format("not JSON: {}", error.what()));
  }
}

absl::StatusOr<JsonObject> JsonObject::Make(const Json& value, std::string where) {
  if (!value.is_object()) {
    return absl::InvalidArgumentError(fmt::format("{}: must be an object", where));
  }
  return JsonObject(value, std::move(where));
}

const Json* JsonObject::Find(std::string_view key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

absl::StatusOr<std::string> JsonObject::String(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_string()) return Invalid(key, "must be a string");
  return value->get_ref<const std::string&>();
}

absl::StatusOr<int64_t> JsonObject::Integer(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_number_integer()) return Invalid(key, "must be an integer");
  return value->get<int64_t>();
}

absl::StatusOr<JsonObject> JsonObject::Object(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr) return Invalid(key, "is missing");
  return Make(*value, Path(where_, key));
}

absl::StatusOr<const Json*> JsonObject::Array(std::string_view key) const {
  const Json* value = Find(key);
  if (value == nullptr || !value->is_array()) return Invalid(key, "must be an array");
  return value;
}

absl::StatusOr<bool> JsonObject::Bool(std::string_view key, bool fallback) const {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return Invalid(key, "must be true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> JsonObject::String(std::string_view key,
                                               std::string_view fallback) const {
  if (Find(key) == nullptr) return std::string(fallback);
  return String(key);
}

absl::Status JsonObject::RefuseOthers(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_->items()) {
    const bool is_known = std::find(known.begin(), known.end(), key) != known.end();
    if (!is_known && !value.is_null()) return Unsupported(key, "this member");
  }
  return absl::OkStatus();
}

absl::Status JsonObject::Invalid(std::string_view key, std::string_view problem) const {
  return absl::InvalidArgumentError(fmt::format("{}: {}", Path(where_, key), problem));
}

absl::Status JsonObject::Unsupported(std::string_view key, std::string_view what) const {
  return absl::UnimplementedError(fmt::format("{}: {} is not supported", Path(where_, key), what));
}

}  // namespace lorad
