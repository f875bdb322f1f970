#include "model/peft_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "absl/status/status.h"
#include "memory/base/check.h"
#include "memory/base/error_detail.h"
#include "memory/base/status_macros.h"
#include "model/adapter_keys.h"
#include "model/mapped_file.h"
#include "model/sites.h"

namespace lorad {
namespace {

constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kWeightFile[] = "adapter_model.safetensors";
constexpr char kPickleFile[] = "adapter_model.bin";
constexpr double kLargestBf16 = 0x1.fep127;

absl::Status Refuse(absl::Status status, std::string_view field, std::string_view reason) {
  return WithReason(WithField(std::move(status), field), reason);
}

absl::Status InvalidTensor(std::string_view tensor, std::string_view problem,
                           std::string_view reason) {
  return InvalidField(tensor, problem, reason);
}

absl::Status WrongBase(std::string_view tensor, std::string_view problem) {
  return Refuse(
      absl::FailedPreconditionError(fmt::format("{}: {} (wrong base model?)", tensor, problem)),
      tensor, "ADAPTER_WRONG_BASE");
}

// What went wrong with opening one of the two files, in terms of the upload.
absl::Status FileError(const std::filesystem::path& dir, std::string_view file,
                       const absl::Status& status) {
  std::error_code ignored;
  if (!absl::IsNotFound(status)) {
    // The file's content was refused with a reason of its own, or else the file itself is at fault.
    const bool explained = !GetErrorDetail(status).reason.empty();
    return explained || !absl::IsInvalidArgument(status)
               ? status
               : Refuse(status, file, "ADAPTER_FILE_INVALID");
  }
  if (file == kWeightFile && std::filesystem::exists(dir / kPickleFile, ignored)) {
    return Refuse(absl::UnimplementedError(fmt::format(
                      "{}: is a pickle, which can run code and is not read; save the adapter as {}",
                      kPickleFile, kWeightFile)),
                  kPickleFile, "ADAPTER_PICKLE");
  }
  return InvalidField(file, "is missing", "ADAPTER_FILE_MISSING");
}

// The order of float bit patterns without the sign is the order of magnitudes, infinities and NaN
// last.
template <typename Bits>
Bits LargestBits(const void* data, size_t count, Bits magnitude_mask) {
  Bits largest = 0;
  const char* bytes = static_cast<const char*>(data);
  for (size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, bytes + i * sizeof(Bits), sizeof(Bits));
    bits = static_cast<Bits>(bits & magnitude_mask);
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

// One linear layer of the model that an adapter may change.
struct Module {
  AdapterKey key;
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
};

}  // namespace

float LargestMagnitude(const kernels::HostMatrix& matrix) {
  const size_t count = static_cast<size_t>(matrix.rows) * static_cast<size_t>(matrix.cols);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (matrix.dtype == kernels::DType::kF32) {
    const auto bits = LargestBits<uint32_t>(matrix.data, count, 0x7fffffffu);
    return bits >= 0x7f800000u ? kInfinity : std::bit_cast<float>(bits);
  }
  const auto bits = LargestBits<uint16_t>(matrix.data, count, 0x7fffu);
  if (matrix.dtype == kernels::DType::kBF16) {
    return bits >= 0x7f80u ? kInfinity : std::bit_cast<float>(uint32_t{bits} << 16);
  }
  if (bits >= 0x7c00u) return kInfinity;
  const int exponent = bits >> 10;
  const int mantissa = bits & 0x3ff;
  return exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                       : std::ldexp(static_cast<float>(mantissa | 0x400), exponent - 25);
}

class PeftAdapterLoader {
 public:
  PeftAdapterLoader(const ModelConfig& model, const AdapterLimits& limits, AdapterCheck check)
      : model_(model), limits_(limits), check_(check) {}

  absl::StatusOr<PeftAdapter> Load(const std::filesystem::path& dir) {
    const absl::StatusOr<std::string> text =
        ReadTextFile(dir / kConfigFile, {.max_bytes = limits_.max_config_bytes});
    if (!text.ok()) return FileError(dir, kConfigFile, text.status());
    LORAD_ASSIGN_OR_RETURN(const PeftAdapterConfig config,
                           PeftAdapterConfig::Parse(*text, limits_));
    absl::StatusOr<SafetensorsFile> file = SafetensorsFile::Open(
        dir / kWeightFile, {.file = {.max_bytes = limits_.max_weight_bytes}, .max_dimensions = 4});
    if (!file.ok()) return FileError(dir, kWeightFile, file.status());
    adapter_.file_ = std::move(file).value();

    LORAD_RETURN_IF_ERROR(PairTensors());
    for (const auto& [name, module] : modules_) LORAD_RETURN_IF_ERROR(AddModule(config, module));
    if (adapter_.factors_.empty()) {
      return InvalidField(kWeightFile, "has no adapter weights", "ADAPTER_EMPTY");
    }
    std::sort(adapter_.factors_.begin(), adapter_.factors_.end(), [](const auto& x, const auto& y) {
      return std::tie(x.site, x.out_begin) < std::tie(y.site, y.out_begin);
    });
    CollectFacts(config);
    return std::move(adapter_);
  }

 private:
  // Every tensor finds its module, and every module has both halves.
  absl::Status PairTensors() {
    std::optional<std::string> adapter_name;
    for (const TensorView& tensor : adapter_.file_.tensors()) {
      LORAD_ASSIGN_OR_RETURN(const AdapterKey key, ParseAdapterKey(tensor.name));
      if (key.layer >= model_.layers) {
        return WrongBase(tensor.name, fmt::format("the base model has {} layers", model_.layers));
      }
      if (!adapter_name.has_value()) adapter_name = key.adapter_name;
      if (*adapter_name != key.adapter_name) {
        return InvalidTensor(tensor.name,
                             fmt::format("belongs to adapter \"{}\", others to \"{}\"",
                                         key.adapter_name, *adapter_name),
                             "ADAPTER_UNMATCHED_TENSOR");
      }
      Module& module = modules_[key.module];
      const TensorView*& half = key.half == LowRankHalf::kA ? module.a : module.b;
      if (half != nullptr) {
        return InvalidTensor(tensor.name, fmt::format("is a second spelling of {}", half->name),
                             "ADAPTER_DUPLICATE_MODULE");
      }
      half = &tensor;
      module.key = key;
    }
    for (const auto& [name, module] : modules_) {
      if (module.a != nullptr && module.b != nullptr) continue;
      const TensorView* present = module.a != nullptr ? module.a : module.b;
      return InvalidTensor(present->name,
                           fmt::format("has no matching lora_{}", module.a != nullptr ? 'B' : 'A'),
                           "ADAPTER_HALF_PAIR");
    }
    return absl::OkStatus();
  }

  // Where the module sits in the model, and the sizes that it must have.
  Projection ProjectionOf(const AdapterKey& key) const {
    if (key.layer < 0) {
      return {"lm_head", LayerSite::kQkv, 0, model_.vocab_size, model_.hidden_size};
    }
    for (const Projection& projection : Projections(model_)) {
      if (projection.name == key.projection) return projection;
    }
    LORAD_CHECK(false && "ParseAdapterKey knows a projection that sites.h does not");
    return {};
  }

  absl::Status CheckTensor(const TensorView& tensor, LowRankHalf half, const std::string& module,
                           int rank, const Projection& projection) const {
    if (!tensor.dtype.has_value()) {
      return InvalidTensor(
          tensor.name, fmt::format("has dtype {}; F32, F16 or BF16 is needed", tensor.dtype_name),
          "ADAPTER_UNSUPPORTED_DTYPE");
    }
    const bool is_a = half == LowRankHalf::kA;
    const int64_t expected[2] = {is_a ? rank : projection.out_cols,
                                 is_a ? projection.in_cols : rank};
    if (tensor.shape.size() != 2 || tensor.shape[is_a ? 1 : 0] != expected[is_a ? 1 : 0]) {
      return WrongBase(tensor.name, fmt::format("has shape {}, the base model needs {}",
                                                ShapeText(tensor.shape), ShapeText(expected)));
    }
    if (tensor.shape[is_a ? 0 : 1] != rank) {
      return InvalidTensor(tensor.name,
                           fmt::format("has shape {}, but adapter_config.json gives {} rank {}",
                                       ShapeText(tensor.shape), module, rank),
                           "ADAPTER_RANK_MISMATCH");
    }
    return absl::OkStatus();
  }

  // Values are packed as bfloat16 and multiplied in float: none may leave those ranges.
  absl::Status CheckValues(const TensorView& tensor, const kernels::HostMatrix& matrix,
                           double scale) const {
    const float largest = LargestMagnitude(matrix);
    if (std::isinf(largest)) {
      return InvalidTensor(tensor.name, "has values that are infinite or not a number",
                           "ADAPTER_NON_FINITE");
    }
    if (largest > kLargestBf16 || std::abs(scale) * largest > kLargestBf16) {
      return InvalidTensor(tensor.name,
                           fmt::format("has values up to {:g}, which leave the range of floats "
                                       "(scale {:g})",
                                       largest, scale),
                           "ADAPTER_NON_FINITE");
    }
    return absl::OkStatus();
  }

  absl::Status AddModule(const PeftAdapterConfig& config, const Module& module) {
    const AdapterKey& key = module.key;
    LORAD_ASSIGN_OR_RETURN(const bool targeted, config.Targets(key.module));
    if (!targeted) {
      return InvalidTensor(module.a->name,
                           "target_modules, exclude_modules or layers_to_transform of "
                           "adapter_config.json leave this module out",
                           "ADAPTER_UNMATCHED_TENSOR");
    }
    LORAD_ASSIGN_OR_RETURN(const int rank, config.RankOf(key.module));
    LORAD_ASSIGN_OR_RETURN(const double scale, config.ScaleOf(key.module, rank));
    const Projection projection = ProjectionOf(key);
    LORAD_RETURN_IF_ERROR(CheckTensor(*module.a, LowRankHalf::kA, key.module, rank, projection));
    LORAD_RETURN_IF_ERROR(CheckTensor(*module.b, LowRankHalf::kB, key.module, rank, projection));
    kernels::LowRankFactors factors;
    factors.site = key.layer < 0 ? LmHeadSite(model_) : SiteIndex(key.layer, projection.site);
    factors.out_begin = static_cast<uint32_t>(projection.out_begin);
    factors.scale = static_cast<float>(scale);
    factors.a = {*module.a->dtype, module.a->data.data(), rank, projection.in_cols};
    factors.b = {*module.b->dtype, module.b->data.data(), projection.out_cols, rank};
    if (check_ == AdapterCheck::kWhole) {
      LORAD_RETURN_IF_ERROR(CheckValues(*module.a, factors.a, 1.0));
      LORAD_RETURN_IF_ERROR(CheckValues(*module.b, factors.b, scale));
    }
    adapter_.factors_.push_back(factors);
    return absl::OkStatus();
  }

  void CollectFacts(const PeftAdapterConfig& config) {
    PeftAdapterFacts& facts = adapter_.facts_;
    std::set<int> ranks;
    std::set<std::string> projections;
    for (const kernels::LowRankFactors& f : adapter_.factors_)
      ranks.insert(static_cast<int>(f.a.rows));
    for (const auto& [name, module] : modules_) {
      projections.insert(module.key.projection);
      facts.parameter_bytes += module.a->data.size() + module.b->data.size();
    }
    facts.ranks.assign(ranks.begin(), ranks.end());
    facts.max_rank = facts.ranks.back();
    facts.target_modules.assign(projections.begin(), projections.end());
    facts.base_model_name = config.base_model_name();
    facts.alpha = config.alpha();
    for (const std::string& target : config.target_list()) {
      const bool used = std::any_of(modules_.begin(), modules_.end(), [&](const auto& entry) {
        return PeftAdapterConfig::NameMatches(entry.first, target);
      });
      if (!used) facts.unused_targets.push_back(target);
    }
  }

  const ModelConfig& model_;
  const AdapterLimits limits_;
  const AdapterCheck check_;
  std::map<std::string, Module> modules_;  // by name; point into adapter_.file_
  PeftAdapter adapter_;
};

absl::StatusOr<PeftAdapter> LoadPeftAdapter(const std::filesystem::path& dir,
                                            const ModelConfig& model, const AdapterLimits& limits,
                                            AdapterCheck check) {
  return PeftAdapterLoader(model, limits, check).Load(dir);
}

}  // namespace lorad
