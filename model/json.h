// JsonValue: a JSON document as a plain tree, parsed strictly from text that nobody vouches for:
// valid UTF-8, no duplicate keys, bounded depth and number of values. Objects keep the file's order
// (it decides which adapter pattern wins). A value type. The parser library stays out of this
// header.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace lorad {

struct JsonLimits {
  int max_depth = 16;
  size_t max_values = 1 << 20;
};

class JsonValue {
 public:
  using Array = std::vector<JsonValue>;
  using Object = std::vector<std::pair<std::string, JsonValue>>;

  // InvalidArgument says where the text breaks.
  static absl::StatusOr<JsonValue> Parse(std::string_view text, const JsonLimits& limits = {});

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  const bool* boolean() const { return std::get_if<bool>(&value_); }
  const std::string* string() const { return std::get_if<std::string>(&value_); }
  const Array* array() const { return std::get_if<Array>(&value_); }
  const Object* object() const { return std::get_if<Object>(&value_); }
  // An integer that fits; numbers with a fraction or an exponent are not integers.
  std::optional<int64_t> integer() const;
  std::optional<uint64_t> unsigned_integer() const;
  std::optional<double> number() const;  // any number

  const JsonValue* Find(
      std::string_view key) const;  // null if this is no object or has no such key
  // null, false, zero, "", [] and {}: how files say that a feature is off.
  bool IsOff() const;

 private:
  friend class JsonBuilder;
  std::variant<std::monostate, bool, int64_t, uint64_t, double, std::string, Array, Object> value_;
};

// Reads the fields of an object and remembers the first mistake, so that a reader is a list of
// assignments. Whatever is not read, ignored or off when Finish() is called is refused by name: a
// file's meaning is never dropped in silence.
class JsonFields {
 public:
  // `prefix` comes before field names in messages ("rope_scaling."). Borrows `value`.
  explicit JsonFields(const JsonValue& value, std::string_view prefix = "");

  // Null if absent or null in the file.
  const JsonValue* Get(std::string_view name);
  bool Has(std::string_view name) { return Get(name) != nullptr; }
  bool Contains(
      std::string_view name);  // also if null: some defaults differ between null and absent
  // Each returns `fallback` if the field is absent or null; without a fallback that is an error. On
  // an error they return something within the bounds, and Finish() reports it.
  int64_t Int(std::string_view name, int64_t low, int64_t high,
              std::optional<int64_t> fallback = std::nullopt);
  double Number(std::string_view name, double low, double high,
                std::optional<double> fallback = std::nullopt);
  bool Bool(std::string_view name, bool fallback);
  std::string String(std::string_view name, std::string_view fallback);
  void Ignore(std::string_view name) { Get(name); }

  // Each keeps the first mistake.
  void Invalid(std::string_view name, std::string_view problem);
  void Unsupported(std::string_view name, std::string_view problem);

  // Finishes `nested`, an object within this one, and takes over its mistake.
  void Adopt(JsonFields nested);

  // The first mistake, else Unimplemented for the first unknown field that is not off, with
  // `unsupported_reason`.
  absl::Status Finish(std::string_view unsupported_reason);
  // For files of which only a part matters: the first mistake in what was read.
  absl::Status FinishPartial() const { return first_; }

 private:
  void RefuseUnknown();
  std::string FieldPath(std::string_view name) const;

  const JsonValue::Object* object_ = nullptr;
  std::string prefix_;
  std::vector<std::string_view> known_;
  absl::Status first_;
  bool unsupported_ = false;
};

}  // namespace lorad
