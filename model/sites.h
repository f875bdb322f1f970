// Sites: the linear layers of a decoder that an adapter can change, numbered densely in the order
// of execution. Projections that read the same input share a site and are stacked: q,k,v and
// gate,up.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "model/model_config.h"

namespace lorad {

enum class LayerSite : uint32_t { kQkv = 0, kOutput = 1, kGateUp = 2, kDown = 3 };
inline constexpr uint32_t kSitesPerLayer = 4;

inline uint32_t SiteIndex(int layer, LayerSite site) {
  return static_cast<uint32_t>(layer) * kSitesPerLayer + static_cast<uint32_t>(site);
}
inline uint32_t LmHeadSite(const ModelConfig& config) {
  return static_cast<uint32_t>(config.layers) * kSitesPerLayer;
}
inline uint32_t SiteCount(const ModelConfig& config) { return LmHeadSite(config) + 1; }

// One projection by its Hugging Face name, and where its output lies within its site's stacked
// output.
struct Projection {
  std::string_view name;  // "q_proj"
  LayerSite site;
  int out_begin;  // first column in the site's output
  int out_cols;
  int in_cols;
};

inline std::array<Projection, 7> Projections(const ModelConfig& c) {
  return {{{"q_proj", LayerSite::kQkv, 0, c.q_size(), c.hidden_size},
           {"k_proj", LayerSite::kQkv, c.q_size(), c.kv_size(), c.hidden_size},
           {"v_proj", LayerSite::kQkv, c.q_size() + c.kv_size(), c.kv_size(), c.hidden_size},
           {"o_proj", LayerSite::kOutput, 0, c.hidden_size, c.q_size()},
           {"gate_proj", LayerSite::kGateUp, 0, c.ffn_size, c.hidden_size},
           {"up_proj", LayerSite::kGateUp, c.ffn_size, c.ffn_size, c.hidden_size},
           {"down_proj", LayerSite::kDown, 0, c.hidden_size, c.ffn_size}}};
}

}  // namespace lorad
