// ModelTensors: the weights of a base model folder by name, whether they are in one
// `model.safetensors` or in shards named by `model.safetensors.index.json`. Immutable and
// thread-safe; views live as long as the object. Does NOT know which tensors a model needs.
#pragma once

#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/safetensors.h"

namespace lorad {

class ModelTensors {
 public:
  // Links are followed (a model folder is the operator's own). NotFound if neither file is there;
  // InvalidArgument for a file or index that is not valid, an index entry that is not a plain file
  // name, or a tensor that its shard lacks.
  static absl::StatusOr<ModelTensors> Open(const std::filesystem::path& model_dir);

  const TensorView* Find(std::string_view name) const;  // null: no such tensor
  // NotFound names the tensor.
  absl::StatusOr<kernels::HostMatrix> Matrix(std::string_view name, int64_t rows,
                                             int64_t cols) const;
  absl::StatusOr<std::vector<float>> Vector(std::string_view name, int64_t size) const;

  size_t size() const { return by_name_.size(); }
  std::vector<std::string_view> names() const;  // ordered

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const TensorView*, std::less<>> by_name_;  // into files_
};

}  // namespace lorad
