// CostModel: what a model on a machine takes to do the work of a step or of a load. A value:
// presets by name, or a JSON file with the fields below (those that it does not name are the
// preset's in `base`).
//
// A step is as long as
//
//     step_s + rows * row_s + samples * sample_s + adapters' latency
//       + max(weights / bandwidth, (rows * flops + samples * head flops) / peak)   all matrices
//       + max(kv read / bandwidth, pairs * flops / peak)   attention
//       + max(adapters' bytes / bandwidth, rows * flops / peak)   adapters
//
// with efficiencies already in the peaks. Presets h100 and h200 are Llama-3-8B in bf16, computed
// from the machines' data sheets with stated efficiencies: nothing of them was measured. Preset cpu
// is fitted to the project's own runs (docs/benchmarks/, the page on the simulator says to which).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lorad::sim {

struct CostModel {
  std::string name;

  // A step.
  double host_s = 0;    // planning and what follows a step; beside the device if `overlaps`
  double step_s = 0;    // fixed
  double row_s = 0;     // for each token
  double sample_s = 0;  // for each token that is sampled
  double weight_bytes = 0;
  double bytes_per_s = 0;      // memory of the device, sustained
  double layer_flops = 0;      // a token
  double head_flops = 0;       // a token that is sampled
  double flops_per_s = 0;      // of the layers, sustained
  double kv_token_bytes = 0;   // keys and values of a token, all layers
  double attention_flops = 0;  // a token and a token before it
  double attention_flops_per_s = 0;
  double adapter_rank_bytes = 0;  // of one rank of an adapter, all layers
  double any_adapter_s = 0;       // latency if there is an adapter in the step
  double each_adapter_s = 0;      // and for each that is

  double beside_load = 1;  // a step is so many times as long while files are read and packed

  // Loads.
  double load_s = 0;             // fixed: open, check
  double disk_bytes_per_s = 0;   // read and packed, one adapter after the other
  double copy_bytes_per_s = 0;   // from host memory into the pool; 0: they are the same memory
  uint64_t host_tier_bytes = 0;  // of packed images; only where there is a copy

  // Shape.
  uint32_t pages = 0;  // of the pool, unless the user says otherwise
  uint32_t page_bytes = 0;
  int page_tokens = 16;
  bool overlaps = false;  // the host prepares a step while the device runs the one before

  uint32_t AdapterPages(int rank) const { return PagesOf(AdapterBytes(rank)); }
  uint32_t PagesOf(uint64_t image_bytes) const;  // at least one
  uint64_t AdapterBytes(int rank) const;
};

// What a step has to do.
struct StepShape {
  int64_t rows = 0;           // tokens to compute
  int64_t samples = 0;        // tokens to sample
  int64_t context = 0;        // tokens whose keys and values are read, over the sequences
  int64_t pairs = 0;          // of a token to compute and a token that it sees
  int64_t adapter_bytes = 0;  // of distinct adapters
  int64_t adapter_rows = 0;   // rows with an adapter, each times its adapter's bytes
  int adapters = 0;           // distinct
};

double StepSeconds(const CostModel& cost, const StepShape& step);

// Names of the presets.
std::vector<std::string> CostPresets();
// A preset's name or the path of a JSON file. InvalidArgument or NotFound, saying what is wrong.
absl::StatusOr<CostModel> FindCostModel(std::string_view name_or_path);

}  // namespace lorad::sim
