#include "tests/simulation/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_join.h"

namespace lorad::sim {
namespace {

// Llama-3-8B in bf16: 32 layers, hidden 4096, 32/8 heads of 128, feed-forward 14336, vocabulary
// 128256; adapters on all seven projections. Sustained: 80 % of the memory's data sheet, 70 % of
// the dense bf16 peak, 350 TFLOP/s in attention; adapters over PCIe 5, files at 3 GB/s.
CostModel Llama3On(std::string name, double memory_bytes_per_s, uint32_t pages) {
  return {.name = std::move(name),
          .host_s = 200e-6,
          .step_s = 300e-6,
          .row_s = 0,
          .weight_bytes = 15.010e9,
          .bytes_per_s = 0.8 * memory_bytes_per_s,
          .layer_flops = 13.96e9,
          .head_flops = 1.05e9,
          .flops_per_s = 0.7 * 989e12,
          .kv_token_bytes = 131072,
          .attention_flops = 4.0 * 32 * 4096,
          .attention_flops_per_s = 350e12,
          .adapter_rank_bytes = 5242880,
          .any_adapter_s = 300e-6,
          .each_adapter_s = 0,
          .load_s = 1e-3,
          .disk_bytes_per_s = 3e9,
          .copy_bytes_per_s = 52e9,
          .host_tier_bytes = uint64_t{256} << 30,
          .pages = pages,
          .page_bytes = 2 << 20,
          .page_tokens = 16,
          .overlaps = true};
}

// The model of 100 M parameters and the 2 cores of docs/benchmarks/2026-11-24-first-run.md, fitted
// to runs of the daemon there: docs/benchmarks/2026-11-24-scheduler.md.
CostModel Cpu() {
  return {.name = "cpu",
          .host_s = 200e-6,
          .step_s = 0.8e-3,
          .row_s = 0,
          .sample_s = 30e-6,
          .weight_bytes = 200e6,
          .bytes_per_s = 39e9,
          .layer_flops = 151e6,
          .head_flops = 49.2e6,
          .flops_per_s = 350e9,
          .kv_token_bytes = 12288,
          .attention_flops = 4.0 * 12 * 768,
          .attention_flops_per_s = 350e9,
          .adapter_rank_bytes = 5.21e6 / 16,
          .any_adapter_s = 0.4e-3,
          .each_adapter_s = 0,
          .beside_load = 2,
          .load_s = 1e-3,
          .disk_bytes_per_s = 0.14e9,
          .copy_bytes_per_s = 0,
          .host_tier_bytes = 0,
          .pages = 5461,
          .page_bytes = 196608,
          .page_tokens = 16,
          .overlaps = false};
}

std::vector<CostModel> Presets() {
  return {Llama3On("h100", 3.35e12, 28000), Llama3On("h200", 4.8e12, 56000), Cpu()};
}

struct Field {
  const char* name;
  double CostModel::*value;
  bool may_be_zero;
};
constexpr Field kFields[] = {
    {"host_s", &CostModel::host_s, true},
    {"step_s", &CostModel::step_s, true},
    {"row_s", &CostModel::row_s, true},
    {"sample_s", &CostModel::sample_s, true},
    {"weight_bytes", &CostModel::weight_bytes, true},
    {"bytes_per_s", &CostModel::bytes_per_s, false},
    {"layer_flops", &CostModel::layer_flops, true},
    {"head_flops", &CostModel::head_flops, true},
    {"flops_per_s", &CostModel::flops_per_s, false},
    {"kv_token_bytes", &CostModel::kv_token_bytes, false},
    {"attention_flops", &CostModel::attention_flops, true},
    {"attention_flops_per_s", &CostModel::attention_flops_per_s, false},
    {"adapter_rank_bytes", &CostModel::adapter_rank_bytes, false},
    {"any_adapter_s", &CostModel::any_adapter_s, true},
    {"each_adapter_s", &CostModel::each_adapter_s, true},
    {"beside_load", &CostModel::beside_load, false},
    {"load_s", &CostModel::load_s, true},
    {"disk_bytes_per_s", &CostModel::disk_bytes_per_s, false},
    {"copy_bytes_per_s", &CostModel::copy_bytes_per_s, true},
};

absl::Status Set(const std::string& key, const nlohmann::json& value, CostModel* cost) {
  const auto wrong = [&](std::string_view what) {
    return absl::InvalidArgumentError(fmt::format("cost model: {} {}", key, what));
  };
  if (key == "overlaps") {
    if (!value.is_boolean()) return wrong("must be true or false");
    cost->overlaps = value.get<bool>();
    return absl::OkStatus();
  }
  if (!value.is_number()) return wrong("must be a number");
  const double number = value.get<double>();
  for (const Field& field : kFields) {
    if (key != field.name) continue;
    if (!(field.may_be_zero ? number >= 0 : number > 0)) return wrong("is too small");
    cost->*field.value = number;
    return absl::OkStatus();
  }
  if (!(number >= 1 && number < 1e15)) return wrong("is not a size");
  if (key == "host_tier_bytes") {
    cost->host_tier_bytes = static_cast<uint64_t>(number);
  } else if (number > 4e9) {
    return wrong("is too large");
  } else if (key == "pages") {
    cost->pages = static_cast<uint32_t>(number);
  } else if (key == "page_bytes") {
    cost->page_bytes = static_cast<uint32_t>(number);
  } else if (key == "page_tokens") {
    cost->page_tokens = static_cast<int>(number);
  } else {
    return wrong("is not a coefficient");
  }
  return absl::OkStatus();
}

absl::StatusOr<CostModel> Read(const std::string& path) {
  std::ifstream in(path);
  if (!in) {
    return absl::NotFoundError(fmt::format("cost model {} is neither a preset ({}) nor a file",
                                           path, absl::StrJoin(CostPresets(), ", ")));
  }
  const nlohmann::json json = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(fmt::format("cost model {}: not a JSON object", path));
  }
  const auto base = json.find("base");
  const std::string preset =
      base != json.end() && base->is_string() ? base->get<std::string>() : "h100";
  for (CostModel cost : Presets()) {
    if (cost.name != preset) continue;
    cost.name = path;
    for (const auto& [key, value] : json.items()) {
      if (key == "base") continue;
      if (absl::Status status = Set(key, value, &cost); !status.ok()) return status;
    }
    return cost;
  }
  return absl::InvalidArgumentError(
      fmt::format("cost model {}: there is no base {}", path, preset));
}

}  // namespace

uint64_t CostModel::AdapterBytes(int rank) const {
  return static_cast<uint64_t>(adapter_rank_bytes * rank);
}

uint32_t CostModel::PagesOf(uint64_t image_bytes) const {
  return static_cast<uint32_t>((std::max<uint64_t>(image_bytes, 1) + page_bytes - 1) / page_bytes);
}

double StepSeconds(const CostModel& cost, const StepShape& step) {
  const auto rows = static_cast<double>(step.rows);
  const auto samples = static_cast<double>(step.samples);
  const double matrices =
      std::max(cost.weight_bytes / cost.bytes_per_s,
               (rows * cost.layer_flops + samples * cost.head_flops) / cost.flops_per_s);
  const double attention =
      std::max(static_cast<double>(step.context) * cost.kv_token_bytes / cost.bytes_per_s,
               static_cast<double>(step.pairs) * cost.attention_flops / cost.attention_flops_per_s);
  // An adapter has a multiply and an add for each of its two-byte numbers: as many as its bytes.
  const double adapters = std::max(static_cast<double>(step.adapter_bytes) / cost.bytes_per_s,
                                   static_cast<double>(step.adapter_rows) / cost.flops_per_s);
  const double latency =
      step.adapters == 0 ? 0 : cost.any_adapter_s + step.adapters * cost.each_adapter_s;
  return cost.step_s + rows * cost.row_s + samples * cost.sample_s + matrices + attention +
         adapters + latency;
}

std::vector<std::string> CostPresets() {
  std::vector<std::string> names;
  for (const CostModel& cost : Presets()) names.push_back(cost.name);
  return names;
}

absl::StatusOr<CostModel> FindCostModel(std::string_view name_or_path) {
  for (CostModel& cost : Presets()) {
    if (cost.name == name_or_path) return std::move(cost);
  }
  return Read(std::string(name_or_path));
}

}  // namespace lorad::sim
