// PeftAdapter: a LoRA adapter in PEFT's folder format (`adapter_config.json` +
// `adapter_model.safetensors`), checked against the base model and ready to be packed into pages.
// The factors point into the mapped file: nothing is copied.
//
// What is uploaded here is hostile until shown otherwise. An adapter is served exactly as PEFT
// would serve it, or refused with the tensor or field that stands in the way: no tensor and no
// setting is dropped in silence. lm_head adapters change the head alone, never a tied embedding.
//
// Immutable and thread-safe once loaded. Does NOT know tenants, versions, or where the folder came
// from.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/types.h"
#include "model/adapter_config.h"
#include "model/model_config.h"
#include "model/safetensors.h"

namespace lorad {

struct PeftAdapterFacts {
  int max_rank = 0;
  double alpha = 0;                         // lora_alpha of the config, before any alpha_pattern
  std::vector<int> ranks;                   // distinct, ascending
  std::vector<std::string> target_modules;  // projections that have factors ("q_proj"), sorted
  std::vector<std::string>
      unused_targets;  // entries of the config's target_modules without any tensor: worth a warning
  std::string base_model_name;   // what the config claims; not checked against anything
  uint64_t parameter_bytes = 0;  // of all factors, as stored
};

enum class AdapterCheck {
  kWhole,      // for what comes from outside: also every value is finite
  kStructure,  // for files that passed kWhole and that nobody but lorad could write since: reads no
               // values
};

class PeftAdapter {
 public:
  // By site, then out_begin. The data live as long as this object, also when it is moved.
  std::span<const kernels::LowRankFactors> factors() const { return factors_; }
  const PeftAdapterFacts& facts() const { return facts_; }

 private:
  friend class PeftAdapterLoader;

  SafetensorsFile file_;
  std::vector<kernels::LowRankFactors> factors_;
  PeftAdapterFacts facts_;
};

// Errors carry a reason and the tensor or field:
//   ADAPTER_FILE_MISSING, ADAPTER_PICKLE, ADAPTER_FILE_INVALID (link, not a file, too big),
//   SAFETENSORS_INVALID, INVALID_FIELD and ADAPTER_UNSUPPORTED_FIELD (the config),
//   ADAPTER_UNMATCHED_TENSOR, ADAPTER_UNSUPPORTED_DTYPE, ADAPTER_DUPLICATE_MODULE,
//   ADAPTER_HALF_PAIR, ADAPTER_RANK_MISMATCH, ADAPTER_WRONG_BASE (FailedPrecondition),
//   ADAPTER_NON_FINITE, ADAPTER_EMPTY.
absl::StatusOr<PeftAdapter> LoadPeftAdapter(const std::filesystem::path& dir,
                                            const ModelConfig& model,
                                            const AdapterLimits& limits = {},
                                            AdapterCheck check = AdapterCheck::kWhole);

// The largest magnitude among the values of a matrix; infinity if any is infinite or not a number.
float LargestMagnitude(const kernels::HostMatrix& matrix);

}  // namespace lorad
