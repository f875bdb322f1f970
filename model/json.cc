#include "model/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"

namespace lorad {

// Receives the parser's events. Returning false stops the parser; `error_` says why.
class JsonBuilder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  explicit JsonBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() { return Add({}) != nullptr; }
  bool boolean(bool value) { return AddOf(value); }
  bool number_integer(number_integer_t value) { return AddOf<int64_t>(value); }
  bool number_unsigned(number_unsigned_t value) { return AddOf<uint64_t>(value); }
  bool number_float(number_float_t value, const string_t&) { return AddOf<double>(value); }
  bool string(string_t& value) { return AddOf(std::move(value)); }
  bool binary(binary_t&) { return Fail("binary value"); }
  bool start_object(size_t) { return Open(JsonValue::Object()); }
  bool start_array(size_t) { return Open(JsonValue::Array()); }
  bool end_array() { return Close(); }

  bool key(string_t& value) {
    std::get<JsonValue::Object>(open_.back().value_).emplace_back(std::move(value), JsonValue());
    return true;
  }

  bool end_object() {
    const auto& object = std::get<JsonValue::Object>(open_.back().value_);
    std::vector<std::string_view> keys;
    keys.reserve(object.size());
    for (const auto& [key, value] : object) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    const auto twin = std::adjacent_find(keys.begin(), keys.end());
    if (twin != keys.end()) return Fail(fmt::format("duplicate key \"{}\"", *twin));
    return Close();
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    return Fail(fmt::format("not valid JSON at byte {}", position));
  }

  const std::string& error() const { return error_; }
  JsonValue Take() { return std::move(root_); }

 private:
  bool Fail(std::string problem) {
    if (error_.empty()) error_ = std::move(problem);
    return false;
  }

  template <typename T>
  bool AddOf(T value) {
    JsonValue json;
    json.value_ = std::move(value);
    return Add(std::move(json)) != nullptr;
  }

  // Puts a finished value where the innermost open container wants it.
  JsonValue* Add(JsonValue value) {
    if (++values_ > limits_.max_values) {
      Fail(fmt::format("more than {} values", limits_.max_values));
      return nullptr;
    }
    return Place(std::move(value));
  }

  JsonValue* Place(JsonValue value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (auto* array = std::get_if<JsonValue::Array>(&open_.back().value_)) {
      return &array->emplace_back(std::move(value));
    }
    auto& slot = std::get<JsonValue::Object>(open_.back().value_).back().second;
    slot = std::move(value);
    return &slot;
  }

  template <typename Container>
  bool Open(Container container) {
    if (open_.size() >= static_cast<size_t>(limits_.max_depth)) {
      return Fail(fmt::format("nested deeper than {}", limits_.max_depth));
    }
    if (++values_ > limits_.max_values) {
      return Fail(fmt::format("more than {} values", limits_.max_values));
    }
    open_.emplace_back().value_ = std::move(container);
    return true;
  }

  bool Close() {
    JsonValue done = std::move(open_.back());
    open_.pop_back();
    Place(std::move(done));
    return true;
  }

  const JsonLimits limits_;
  size_t values_ = 0;
  std::vector<JsonValue> open_;  // containers that are not closed, outermost first
  JsonValue root_;
  std::string error_;
};

absl::StatusOr<JsonValue> JsonValue::Parse(std::string_view text, const JsonLimits& limits) {
  // The parser takes a NUL for the end of the text, which would let anything follow it.
  if (text.find('\0') != text.npos) return absl::InvalidArgumentError("NUL byte in JSON");
  JsonBuilder builder(limits);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    return absl::InvalidArgumentError(builder.error());
  }
  return builder.Take();
}

std::optional<int64_t> JsonValue::integer() const {
  if (const auto* value = std::get_if<int64_t>(&value_)) return *value;
  const auto* value = std::get_if<uint64_t>(&value_);
  if (value != nullptr && *value <= uint64_t{INT64_MAX}) return static_cast<int64_t>(*value);
  return std::nullopt;
}

std::optional<uint64_t> JsonValue::unsigned_integer() const {
  const auto* value = std::get_if<uint64_t>(&value_);
  return value != nullptr ? std::optional(*value) : std::nullopt;
}

std::optional<double> JsonValue::number() const {
  if (const auto* value = std::get_if<double>(&value_)) return *value;
  if (const auto* value = std::get_if<int64_t>(&value_)) return static_cast<double>(*value);
  if (const auto* value = std::get_if<uint64_t>(&value_)) return static_cast<double>(*value);
  return std::nullopt;
}

const JsonValue* JsonValue::Find(std::string_view key) const {
  if (const Object* members = object()) {
    for (const auto& [name, value] : *members) {
      if (name == key) return &value;
    }
  }
  return nullptr;
}

bool JsonValue::IsOff() const {
  if (is_null()) return true;
  if (const bool* value = boolean()) return !*value;
  if (const std::string* text = string()) return text->empty();
  if (const Array* elements = array()) return elements->empty();
  if (const Object* members = object()) return members->empty();
  return number() == 0.0;
}

JsonFields::JsonFields(const JsonValue& value, std::string_view prefix)
    : object_(value.object()), prefix_(prefix) {
  if (object_ == nullptr) {
    std::string_view name = prefix;
    if (!name.empty()) name.remove_suffix(1);  // the dot
    first_ = InvalidField(name.empty() ? "file" : name, "must be a JSON object");
  }
}

const JsonValue* JsonFields::Get(std::string_view name) {
  known_.push_back(name);
  if (object_ == nullptr) return nullptr;
  for (const auto& [key, value] : *object_) {
    if (key == name) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

bool JsonFields::Contains(std::string_view name) {
  known_.push_back(name);
  if (object_ == nullptr) return false;
  return std::any_of(object_->begin(), object_->end(),
                     [&](const auto& member) { return member.first == name; });
}

int64_t JsonFields::Int(std::string_view name, int64_t low, int64_t high,
                        std::optional<int64_t> fallback) {
  const JsonValue* value = Get(name);
  if (value == nullptr) {
    if (!fallback.has_value()) Invalid(name, "is missing");
    return fallback.value_or(low);
  }
  const std::optional<int64_t> number = value->integer();
  if (!number.has_value() || *number < low || *number > high) {
    Invalid(name, fmt::format("must be an integer from {} to {}", low, high));
    return low;
  }
  return *number;
}

double JsonFields::Number(std::string_view name, double low, double high,
                          std::optional<double> fallback) {
  const JsonValue* value = Get(name);
  if (value == nullptr) {
    if (!fallback.has_value()) Invalid(name, "is missing");
    return fallback.value_or(low);
  }
  const std::optional<double> number = value->number();
  if (!number.has_value() || !(*number >= low && *number <= high)) {
    Invalid(name, fmt::format("must be a number from {} to {}", low, high));
    return low;
  }
  return *number;
}

bool JsonFields::Bool(std::string_view name, bool fallback) {
  const JsonValue* value = Get(name);
  if (value == nullptr) return fallback;
  const bool* boolean = value->boolean();
  if (boolean == nullptr) Invalid(name, "must be true or false");
  return boolean != nullptr && *boolean;
}

std::string JsonFields::String(std::string_view name, std::string_view fallback) {
  const JsonValue* value = Get(name);
  if (value == nullptr) return std::string(fallback);
  const std::string* text = value->string();
  if (text == nullptr) Invalid(name, "must be a string");
  return text != nullptr ? *text : std::string(fallback);
}

std::string JsonFields::FieldPath(std::string_view name) const {
  return fmt::format("{}{}", prefix_, name.empty() ? "\"\"" : name);  // a key may be empty
}

void JsonFields::Invalid(std::string_view name, std::string_view problem) {
  if (first_.ok()) first_ = InvalidField(FieldPath(name), problem);
}

void JsonFields::Unsupported(std::string_view name, std::string_view problem) {
  if (!first_.ok()) return;
  const std::string field = FieldPath(name);
  first_ = WithField(absl::UnimplementedError(fmt::format("{}: {}", field, problem)), field);
  unsupported_ = true;
}

void JsonFields::RefuseUnknown() {
  if (object_ == nullptr) return;
  for (const auto& [key, value] : *object_) {
    if (value.IsOff() || std::find(known_.begin(), known_.end(), key) != known_.end()) continue;
    Unsupported(key, "is set, and lorad does not implement it");
  }
}

void JsonFields::Adopt(JsonFields nested) {
  nested.RefuseUnknown();
  if (!first_.ok() || nested.first_.ok()) return;
  first_ = nested.first_;
  unsupported_ = nested.unsupported_;
}

absl::Status JsonFields::Finish(std::string_view unsupported_reason) {
  RefuseUnknown();
  return unsupported_ ? WithReason(first_, unsupported_reason) : first_;
}

}  // namespace lorad
