// Synthetic adapters: PEFT directories of random weights that fit the served model, for load tests.
// Their output is noise; their cost is that of a trained adapter of the same rank.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"

namespace lorad::bench {

struct SyntheticAdapter {
  int rank = 16;
  uint64_t seed = 0;
  std::vector<std::string> modules;  // "q_proj"; empty: all that the model lets adapters change
};

// Writes adapter_config.json and adapter_model.safetensors (bf16) into `directory`, which exists. A
// is scaled to keep the size of its input, B so that the adapter changes the output little.
absl::Status WritePeftDirectory(const v1::Model& model, const SyntheticAdapter& adapter,
                                const std::string& directory);

// Makes sure that the server has "PREFIX-0" ... of these ranks (one after the other, starting
// over), uploading what is missing or has another rank. Their names.
absl::StatusOr<std::vector<std::string>> EnsureAdapters(
    Client* client, const v1::Model& model, const std::string& prefix, int count,
    const std::vector<int>& ranks, const std::function<void(int missing)>& on_missing,
    size_t at_a_time = 4);

}  // namespace lorad::bench
