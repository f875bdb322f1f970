// SafetensorsFile: reads one `.safetensors` file without trusting it. Every statement of the header
// is checked before a view is handed out, so a TensorView always lies inside the file and holds
// exactly what its shape says:
//   - the header's length is within the file and the limit, and it is a UTF-8 JSON object without
//   duplicate keys;
//   - each tensor has a known dtype, positive dimensions, and offsets that are exactly its shape's
//   size;
//   - the tensors cover the data without overlap, hole or trailing bytes.
// Immutable and thread-safe once open. It does NOT look at values, and knows nothing of models or
// adapters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/types.h"
#include "model/mapped_file.h"

namespace lorad {

struct TensorView {
  std::string name;
  std::string dtype_name;               // as in the file: "BF16", "I64"
  std::optional<kernels::DType> dtype;  // none: a known type that lorad does not compute with
  std::vector<int64_t> shape;           // all > 0; empty for a scalar
  std::span<const std::byte> data;      // shape product * element size; only byte-aligned
};

std::string ShapeText(std::span<const int64_t> shape);  // "[16, 4096]"

struct SafetensorsLimits {
  FileRules file = {};
  uint64_t max_header_bytes = 16 << 20;
  int max_dimensions = 8;
};

class SafetensorsFile {
 public:
  // Errors: as MappedFile::Open, and InvalidArgument with reason SAFETENSORS_INVALID and the
  // tensor's name as field.
  static absl::StatusOr<SafetensorsFile> Open(const std::filesystem::path& path,
                                              const SafetensorsLimits& limits = {});
  // Borrows `bytes`, which must outlive the object.
  static absl::StatusOr<SafetensorsFile> FromBytes(std::span<const std::byte> bytes,
                                                   const SafetensorsLimits& limits = {});

  std::span<const TensorView> tensors() const { return tensors_; }  // by name
  const TensorView* Find(std::string_view name) const;              // null: no such tensor
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  std::span<const std::byte> bytes() const { return bytes_; }  // the whole file

 private:
  absl::Status Parse(const SafetensorsLimits& limits);

  MappedFile file_;  // empty for FromBytes
  std::span<const std::byte> bytes_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// The tensor as a [rows, cols] matrix. InvalidArgument if it has another shape or an unusable
// dtype.
absl::StatusOr<kernels::HostMatrix> AsMatrix(const TensorView& tensor, int64_t rows, int64_t cols);
// The values of a tensor of shape [size], converted to fp32.
absl::StatusOr<std::vector<float>> AsVector(const TensorView& tensor, int64_t size);

}  // namespace lorad
