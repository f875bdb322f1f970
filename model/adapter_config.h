// PeftAdapterConfig: what a PEFT `adapter_config.json` says of a LoRA adapter: which modules it may
// have, and each module's rank and scale. Everything in the file that would change the served
// function and that lorad does not implement is refused by name; fields that lorad has never heard
// of are refused too, unless they are off (null, false, zero, empty).
//
// Module names are those of the base model without PEFT's `base_model.model.`:
// "model.layers.3.self_attn.q_proj", "lm_head". Movable; matching uses scratch space: one thread at
// a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/module_pattern.h"

namespace lorad {

struct AdapterLimits {
  int max_rank = 256;
  uint64_t max_weight_bytes = uint64_t{4} << 30;  // of adapter_model.safetensors
  uint64_t max_config_bytes = 1 << 20;            // of adapter_config.json
};

class PeftAdapterConfig {
 public:
  // InvalidArgument or Unimplemented (reason ADAPTER_UNSUPPORTED_FIELD) with the field.
  static absl::StatusOr<PeftAdapterConfig> Parse(std::string_view json,
                                                 const AdapterLimits& limits = {});

  // The rank of a module: the first pattern of rank_pattern that matches its name, else `r`.
  absl::StatusOr<int> RankOf(std::string_view module) const;
  // alpha / rank, or alpha / sqrt(rank) with use_rslora; alpha_pattern is looked up as rank_pattern
  // is.
  absl::StatusOr<double> ScaleOf(std::string_view module, int rank) const;
  // Whether PEFT would put an adapter on this module, by target_modules, exclude_modules,
  // layers_to_transform, layers_pattern.
  absl::StatusOr<bool> Targets(std::string_view module) const;

  // Entries of a target_modules list; empty if it is a pattern.
  const std::vector<std::string>& target_list() const { return targets_.names; }
  static bool NameMatches(std::string_view module,
                          std::string_view target);  // equal, or ends with ".target"

  int rank() const { return rank_; }
  double alpha() const { return alpha_; }
  bool use_rslora() const { return use_rslora_; }
  // Where the adapter says that it comes from; often a path of somebody's disk. May be empty.
  const std::string& base_model_name() const { return base_model_name_; }

 private:
  friend class PeftConfigReader;

  struct ModuleSet {
    std::vector<std::string> names;
    std::optional<ModulePattern> pattern;
    bool all_linear = false;

    absl::StatusOr<bool> Contains(std::string_view module) const;
  };
  struct PatternValue {
    std::string key;
    ModulePattern regex;
    double value;
  };

  static absl::StatusOr<const PatternValue*> FirstMatch(const std::vector<PatternValue>& patterns,
                                                        std::string_view field,
                                                        std::string_view module);
  absl::StatusOr<bool> InChosenLayers(std::string_view module) const;

  int rank_ = 0;
  double alpha_ = 0;
  bool use_rslora_ = false;
  std::vector<PatternValue> rank_pattern_,
      alpha_pattern_;  // in the file's order: the first match wins
  ModuleSet targets_, excluded_;
  std::vector<int> layers_;  // empty: all
  std::vector<ModulePattern>
      layer_patterns_;  // find a module's layer index; used if layers_ is not empty
  std::string base_model_name_;
};

// Reads `dir`/adapter_config.json; links are refused.
absl::StatusOr<PeftAdapterConfig> ReadPeftAdapterConfig(const std::filesystem::path& dir,
                                                        const AdapterLimits& limits = {});

}  // namespace lorad
