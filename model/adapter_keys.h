// Adapter keys: from the name of a tensor in a PEFT file to the module that it belongs to.
// Spellings other than PEFT's own are accepted by an explicit table, never by a fuzzy match: a
// tensor that is not understood must be refused, or the daemon would serve the base model under the
// adapter's name. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace lorad {

enum class LowRankHalf { kA, kB };

struct AdapterKey {
  std::string module;      // "model.layers.3.self_attn.q_proj"; "lm_head"
  int layer = -1;          // -1: lm_head
  std::string projection;  // "q_proj"; "lm_head"
  LowRankHalf half = LowRankHalf::kA;
  std::string adapter_name;  // "default" if the file kept it in the key, else empty
  bool has_prefix = true;    // begins with base_model.model.
};

// Spellings, with M the module:
//   base_model.model.M.lora_A.weight         as PEFT saves it
//   base_model.model.M.lora_A.NAME.weight    a raw dump of the state, the adapter's name still in
//   it M.lora_A.weight, M.lora_A.NAME.weight    PEFT's prefix stripped
// InvalidArgument or Unimplemented with reason ADAPTER_UNMATCHED_TENSOR and the tensor's name for
// anything else. Whether the layer and the rest exist in the model is for the caller to check.
absl::StatusOr<AdapterKey> ParseAdapterKey(std::string_view tensor);

}  // namespace lorad
