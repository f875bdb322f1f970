#include "model/adapter_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "absl/status/status.h"
#include "memory/base/error_detail.h"

namespace lorad {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kLayers = "model.layers.";
constexpr std::string_view kWeight = "weight";

struct Block {
  std::string_view path;
  std::string_view projection;
};

constexpr std::array<Block, 7> kBlocks = {{{"self_attn.q_proj", "q_proj"},
                                           {"self_attn.k_proj", "k_proj"},
                                           {"self_attn.v_proj", "v_proj"},
                                           {"self_attn.o_proj", "o_proj"},
                                           {"mlp.gate_proj", "gate_proj"},
                                           {"mlp.up_proj", "up_proj"},
                                           {"mlp.down_proj", "down_proj"}}};

// Parts of names that tell what the tensor would be. First match.
struct KnownForeign {
  std::string_view part;
  std::string_view what;
};

constexpr std::array<KnownForeign, 9> kForeign = {{
    {"lora_embedding_", "an adapter of the embedding table"},
    {"embed_tokens", "a change of the embedding table"},
    {"lora_magnitude_vector", "a DoRA magnitude"},
    {"weight_m_wdecomp", "a DoRA magnitude"},
    {"lora_B.bias", "a LoRA bias"},
    {"modules_to_save", "a module saved whole"},
    {"base_layer", "a weight of the base model"},
    {"token_adapter", "trained embedding rows"},
    {"lm_head.weight", "a module saved whole"},
}};

absl::Status Unmatched(std::string_view tensor) {
  const auto known = std::find_if(kForeign.begin(), kForeign.end(), [&](const KnownForeign& f) {
    return tensor.find(f.part) != tensor.npos;
  });
  const absl::Status status =
      known != kForeign.end() ? absl::UnimplementedError(fmt::format(
                                    "{}: is {}, which lorad does not serve", tensor, known->what))
                              : absl::InvalidArgumentError(
                                    fmt::format("{}: matches no module of the base model", tensor));
  return WithReason(WithField(status, tensor), "ADAPTER_UNMATCHED_TENSOR");
}

bool IsAdapterName(std::string_view text) { return !text.empty() && text.find('.') == text.npos; }

// "weight" or "NAME.weight".
std::optional<std::string> AdapterNameOf(std::string_view tail) {
  if (tail == kWeight) return "";
  if (!tail.ends_with(kWeight)) return std::nullopt;
  tail.remove_suffix(kWeight.size());
  if (!tail.ends_with('.')) return std::nullopt;
  tail.remove_suffix(1);
  if (!IsAdapterName(tail)) return std::nullopt;
  return std::string(tail);
}

bool ParseModule(std::string_view module, AdapterKey& key) {
  if (module == "lm_head") {
    key.projection = "lm_head";
    return true;
  }
  if (!module.starts_with(kLayers)) return false;
  const std::string_view rest = module.substr(kLayers.size());
  const char* const end = rest.data() + rest.size();
  const auto [after, error] = std::from_chars(rest.data(), end, key.layer);
  if (error != std::errc() || after == end || *after != '.' || key.layer < 0) return false;
  const std::string_view digits(rest.data(), static_cast<size_t>(after - rest.data()));
  if (digits != std::to_string(key.layer)) return false;  // "00" or "-0" would name layer 0 twice
  const std::string_view path = rest.substr(digits.size() + 1);
  const auto block =
      std::find_if(kBlocks.begin(), kBlocks.end(), [&](const Block& b) { return b.path == path; });
  if (block == kBlocks.end()) return false;
  key.projection = block->projection;
  return true;
}

}  // namespace

absl::StatusOr<AdapterKey> ParseAdapterKey(std::string_view tensor) {
  constexpr std::string_view kMarks[] = {".lora_A.", ".lora_B."};
  AdapterKey key;
  std::string_view rest = tensor;
  key.has_prefix = rest.starts_with(kPrefix);
  if (key.has_prefix) rest.remove_prefix(kPrefix.size());
  for (const std::string_view mark : kMarks) {
    const size_t at = rest.find(mark);
    if (at == rest.npos) continue;
    const std::optional<std::string> name = AdapterNameOf(rest.substr(at + mark.size()));
    if (!name.has_value() || !ParseModule(rest.substr(0, at), key)) return Unmatched(tensor);
    key.module = rest.substr(0, at);
    key.half = mark == kMarks[0] ? LowRankHalf::kA : LowRankHalf::kB;
    key.adapter_name = *name;
    return key;
  }
  return Unmatched(tensor);
}

}  // namespace lorad
