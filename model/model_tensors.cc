#include "model/model_tensors.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/json.h"

namespace lorad {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr size_t kMaxShards = 1024;
constexpr FileRules kIndexRules{.max_bytes = 64 << 20, .follow_symlinks = true};
constexpr SafetensorsLimits kModelLimits{.file = {.follow_symlinks = true}};

// The index must not reach outside its folder.
bool IsPlainFileName(std::string_view name) {
  return name.find('/') == name.npos && name.find('\0') == name.npos && !name.starts_with('.') &&
         name.ends_with(".safetensors");
}

using WeightMap = std::map<std::string, std::string>;  // tensor -> file

absl::StatusOr<WeightMap> ReadIndex(const std::filesystem::path& path) {
  LORAD_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, kIndexRules));
  LORAD_ASSIGN_OR_RETURN(const JsonValue index, JsonValue::Parse(text));
  const JsonValue* map = index.Find("weight_map");
  if (map == nullptr || map->object() == nullptr) {
    return InvalidField("weight_map", "must be an object");
  }
  WeightMap result;
  for (const auto& [tensor, file] : *map->object()) {
    if (file.string() == nullptr || !IsPlainFileName(*file.string())) {
      return InvalidField(fmt::format("weight_map.{}", tensor),
                          "must be the plain name of a .safetensors file");
    }
    result[tensor] = *file.string();
  }
  return result;
}

}  // namespace

absl::StatusOr<ModelTensors> ModelTensors::Open(const std::filesystem::path& model_dir) {
  ModelTensors model;
  std::error_code ignored;
  if (std::filesystem::exists(model_dir / kSingleFile, ignored)) {
    LORAD_ASSIGN_OR_RETURN(SafetensorsFile file,
                           SafetensorsFile::Open(model_dir / kSingleFile, kModelLimits));
    model.files_.push_back(std::move(file));
    for (const TensorView& tensor : model.files_[0].tensors()) {
      model.by_name_[tensor.name] = &tensor;
    }
    return model;
  }
  if (!std::filesystem::exists(model_dir / kIndexFile, ignored)) {
    return absl::NotFoundError(fmt::format("model folder {} has neither {} nor {}",
                                           model_dir.string(), kSingleFile, kIndexFile));
  }
  LORAD_ASSIGN_OR_RETURN(const WeightMap weight_map, ReadIndex(model_dir / kIndexFile));
  std::map<std::string, size_t> shards;
  for (const auto& [tensor, file] : weight_map) shards.emplace(file, 0);
  if (shards.size() > kMaxShards) {
    return InvalidField("weight_map", fmt::format("names more than {} files", kMaxShards));
  }
  for (auto& [name, index] : shards) {
    index = model.files_.size();
    LORAD_ASSIGN_OR_RETURN(SafetensorsFile file,
                           SafetensorsFile::Open(model_dir / name, kModelLimits));
    model.files_.push_back(std::move(file));
  }
  for (const auto& [tensor, file] : weight_map) {
    const TensorView* view = model.files_[shards[file]].Find(tensor);
    if (view == nullptr) {
      return InvalidField(fmt::format("weight_map.{}", tensor), fmt::format("{} lacks it", file));
    }
    model.by_name_[tensor] = view;
  }
  return model;
}

const TensorView* ModelTensors::Find(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : it->second;
}

absl::StatusOr<kernels::HostMatrix> ModelTensors::Matrix(std::string_view name, int64_t rows,
                                                         int64_t cols) const {
  const TensorView* tensor = Find(name);
  if (tensor == nullptr) return absl::NotFoundError(fmt::format("no tensor {}", name));
  return AsMatrix(*tensor, rows, cols);
}

absl::StatusOr<std::vector<float>> ModelTensors::Vector(std::string_view name, int64_t size) const {
  const TensorView* tensor = Find(name);
  if (tensor == nullptr) return absl::NotFoundError(fmt::format("no tensor {}", name));
  return AsVector(*tensor, size);
}

std::vector<std::string_view> ModelTensors::names() const {
  std::vector<std::string_view> result;
  for (const auto& [name, view] : by_name_) result.push_back(name);
  return result;
}

}  // namespace lorad
