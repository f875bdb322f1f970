#include "model/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/json.h"

namespace lorad {
namespace {

constexpr uint64_t kLengthBytes =
    8;  // of the header's length, little-endian, at the start of the file
constexpr JsonLimits kHeaderJson{.max_depth = 4, .max_values = 1 << 18};

struct KnownType {
  std::string_view name;
  uint64_t bits;
  std::optional<kernels::DType> dtype;
};

constexpr std::array<KnownType, 20> kKnownTypes = {{
    {"F32", 32, kernels::DType::kF32},   {"F16", 16, kernels::DType::kF16},
    {"BF16", 16, kernels::DType::kBF16}, {"F64", 64, std::nullopt},
    {"I64", 64, std::nullopt},           {"I32", 32, std::nullopt},
    {"I16", 16, std::nullopt},           {"I8", 8, std::nullopt},
    {"U64", 64, std::nullopt},           {"U32", 32, std::nullopt},
    {"U16", 16, std::nullopt},           {"U8", 8, std::nullopt},
    {"BOOL", 8, std::nullopt},           {"C64", 64, std::nullopt},
    {"F8_E4M3", 8, std::nullopt},        {"F8_E5M2", 8, std::nullopt},
    {"F8_E8M0", 8, std::nullopt},        {"F6_E2M3", 6, std::nullopt},
    {"F6_E3M2", 6, std::nullopt},        {"F4", 4, std::nullopt},
}};

absl::Status Invalid(std::string_view field, std::string_view problem) {
  return InvalidField(field, problem, "SAFETENSORS_INVALID");
}

struct Entry {
  TensorView view;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Bytes of a tensor of `shape`, or nothing if that is not a whole number below 2^63.
std::optional<uint64_t> TensorBytes(std::span<const int64_t> shape, uint64_t bits) {
  uint64_t total = bits;
  for (const int64_t dimension : shape) {
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(dimension), &total))
      return std::nullopt;
  }
  if (total % 8 != 0 || total / 8 > uint64_t{INT64_MAX}) return std::nullopt;
  return total / 8;
}

absl::Status ReadShape(const JsonValue& json, int max_dimensions, TensorView& view) {
  const JsonValue::Array* shape = json.array();
  if (shape == nullptr) return Invalid(view.name, "shape must be an array");
  if (shape->size() > static_cast<size_t>(max_dimensions)) {
    return Invalid(view.name,
                   fmt::format("has {} dimensions, more than {}", shape->size(), max_dimensions));
  }
  for (const JsonValue& dimension : *shape) {
    const std::optional<int64_t> size = dimension.integer();
    // Empty tensors take no bytes, so any number of them could share one offset: no use is worth
    // that.
    if (!size.has_value() || *size < 1) {
      return Invalid(view.name, "every dimension must be a positive integer");
    }
    view.shape.push_back(*size);
  }
  return absl::OkStatus();
}

absl::StatusOr<Entry> ReadEntry(const std::string& name, const JsonValue& json,
                                const SafetensorsLimits& limits) {
  const JsonValue* dtype = json.Find("dtype");
  const JsonValue* shape = json.Find("shape");
  const JsonValue* offsets = json.Find("data_offsets");
  if (dtype == nullptr || shape == nullptr || offsets == nullptr || json.object()->size() != 3) {
    return Invalid(name, "must have exactly dtype, shape and data_offsets");
  }
  const std::string* dtype_name = dtype->string();
  if (dtype_name == nullptr) return Invalid(name, "dtype must be a string");
  const auto type = std::find_if(kKnownTypes.begin(), kKnownTypes.end(),
                                 [&](const KnownType& t) { return t.name == *dtype_name; });
  if (type == kKnownTypes.end()) {
    return Invalid(name, fmt::format("has the unknown dtype \"{}\"", *dtype_name));
  }
  Entry entry;
  entry.view.name = name;
  entry.view.dtype_name = *dtype_name;
  entry.view.dtype = type->dtype;
  LORAD_RETURN_IF_ERROR(ReadShape(*shape, limits.max_dimensions, entry.view));

  const JsonValue::Array* pair = offsets->array();
  if (pair == nullptr || pair->size() != 2 || !(*pair)[0].unsigned_integer().has_value() ||
      !(*pair)[1].unsigned_integer().has_value()) {
    return Invalid(name, "data_offsets must be two non-negative integers");
  }
  entry.begin = *(*pair)[0].unsigned_integer();
  entry.end = *(*pair)[1].unsigned_integer();
  const std::optional<uint64_t> bytes = TensorBytes(entry.view.shape, type->bits);
  if (!bytes.has_value()) return Invalid(name, "shape has no size in whole bytes below 2^63");
  if (entry.end < entry.begin || entry.end - entry.begin != *bytes) {
    return Invalid(name,
                   fmt::format("data_offsets [{}, {}] do not hold {} bytes of {} {}", entry.begin,
                               entry.end, *bytes, *dtype_name, ShapeText(entry.view.shape)));
  }
  return entry;
}

absl::Status ReadMetadata(const JsonValue& json, std::map<std::string, std::string>& metadata) {
  if (json.object() == nullptr) return Invalid("__metadata__", "must be an object");
  for (const auto& [key, value] : *json.object()) {
    if (value.string() == nullptr) return Invalid("__metadata__", "every value must be a string");
    metadata[key] = *value.string();
  }
  return absl::OkStatus();
}

// Gives each entry its bytes. In order of their offsets the tensors must follow each other from the
// first byte of `data` to the last, which rules out overlaps, holes, and bytes that belong to
// nobody.
absl::Status Place(std::vector<Entry>& entries, std::span<const std::byte> data) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  uint64_t expected = 0;
  for (Entry& entry : entries) {
    if (entry.begin != expected) {
      return Invalid(
          entry.view.name,
          fmt::format("data begins at {}, but the tensors before it end at {}: {}", entry.begin,
                      expected, entry.begin < expected ? "they overlap" : "there is a hole"));
    }
    if (entry.end > data.size()) {
      return Invalid(entry.view.name,
                     fmt::format("data ends at {}, but the file has only {} bytes of it", entry.end,
                                 data.size()));
    }
    entry.view.data = data.subspan(entry.begin, entry.end - entry.begin);
    expected = entry.end;
  }
  if (expected != data.size()) {
    return Invalid("file", fmt::format("{} bytes follow the last tensor", data.size() - expected));
  }
  return absl::OkStatus();
}

// The JSON text of the header.
absl::StatusOr<std::string_view> HeaderText(std::span<const std::byte> file, uint64_t max_bytes) {
  if (file.size() < kLengthBytes) return Invalid("file", "is shorter than 8 bytes");
  uint64_t length = 0;
  for (uint64_t i = 0; i < kLengthBytes; ++i) {
    length |= static_cast<uint64_t>(file[i]) << (8 * i);
  }
  if (length > max_bytes) {
    return Invalid("header",
                   fmt::format("has {} bytes, more than the limit of {}", length, max_bytes));
  }
  if (length > file.size() - kLengthBytes) {
    return Invalid("header", fmt::format("claims {} bytes, but only {} follow", length,
                                         file.size() - kLengthBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) return Invalid("header", "must begin with '{'");
  return text;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 0x1f ? 0xff : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

absl::Status CheckShape(const TensorView& tensor, std::span<const int64_t> expected) {
  if (!std::equal(tensor.shape.begin(), tensor.shape.end(), expected.begin(), expected.end())) {
    return InvalidField(tensor.name, fmt::format("has shape {}, expected {}",
                                                 ShapeText(tensor.shape), ShapeText(expected)));
  }
  if (!tensor.dtype.has_value()) {
    return InvalidField(tensor.name,
                        fmt::format("has dtype {}; F32, F16 or BF16 is needed", tensor.dtype_name));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Open(const std::filesystem::path& path,
                                                      const SafetensorsLimits& limits) {
  SafetensorsFile result;
  LORAD_ASSIGN_OR_RETURN(result.file_, MappedFile::Open(path, limits.file));
  result.bytes_ = result.file_.bytes();
  LORAD_RETURN_IF_ERROR(result.Parse(limits));
  return result;
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::FromBytes(std::span<const std::byte> bytes,
                                                           const SafetensorsLimits& limits) {
  SafetensorsFile result;
  result.bytes_ = bytes;
  LORAD_RETURN_IF_ERROR(result.Parse(limits));
  return result;
}

absl::Status SafetensorsFile::Parse(const SafetensorsLimits& limits) {
  LORAD_ASSIGN_OR_RETURN(const std::string_view text, HeaderText(bytes_, limits.max_header_bytes));
  const absl::StatusOr<JsonValue> header = JsonValue::Parse(text, kHeaderJson);
  if (!header.ok()) {
    const auto message = header.status().message();
    return Invalid("header", std::string_view(message.data(), message.size()));
  }
  std::vector<Entry> entries;
  for (const auto& [name, value] : *header->object()) {
    if (name.empty()) return Invalid("header", "has a tensor without a name");
    if (value.object() == nullptr) return Invalid(name, "must be an object");
    if (name == "__metadata__") {
      LORAD_RETURN_IF_ERROR(ReadMetadata(value, metadata_));
      continue;
    }
    LORAD_ASSIGN_OR_RETURN(Entry entry, ReadEntry(name, value, limits));
    entries.push_back(std::move(entry));
  }
  LORAD_RETURN_IF_ERROR(Place(entries, bytes_.subspan(kLengthBytes + text.size())));
  tensors_.reserve(entries.size());
  for (Entry& entry : entries) tensors_.push_back(std::move(entry.view));
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorView& a, const TensorView& b) { return a.name < b.name; });
  return absl::OkStatus();
}

const TensorView* SafetensorsFile::Find(std::string_view name) const {
  const auto it =
      std::lower_bound(tensors_.begin(), tensors_.end(), name,
                       [](const TensorView& t, std::string_view n) { return t.name < n; });
  return it != tensors_.end() && it->name == name ? &*it : nullptr;
}

absl::StatusOr<kernels::HostMatrix> AsMatrix(const TensorView& tensor, int64_t rows, int64_t cols) {
  LORAD_RETURN_IF_ERROR(CheckShape(tensor, std::array{rows, cols}));
  return kernels::HostMatrix{*tensor.dtype, tensor.data.data(), rows, cols};
}

absl::StatusOr<std::vector<float>> AsVector(const TensorView& tensor, int64_t size) {
  LORAD_RETURN_IF_ERROR(CheckShape(tensor, std::array{size}));
  std::vector<float> values(static_cast<size_t>(size));
  if (tensor.dtype == kernels::DType::kF32) {
    std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
    return values;
  }
  for (size_t i = 0; i < values.size(); ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, tensor.data.data() + 2 * i, 2);
    values[i] = tensor.dtype == kernels::DType::kF16 ? HalfToFloat(bits)
                                                     : std::bit_cast<float>(uint32_t{bits} << 16);
  }
  return values;
}

}  // namespace lorad
