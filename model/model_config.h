// ModelConfig: the immutable facts of the base model, read from a Hugging Face `config.json` and
// checked whole. Anything in the file that would change the mathematics and that lorad does not
// implement is refused by name. A value; thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace lorad {

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                             // "Qwen3ForCausalLM"
  int vocab_size = 0;
  int hidden_size = 0;
  int layers = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int ffn_size = 0;
  int max_positions = 0;  // the longest sequence the model was made for, tokens
  float rms_norm_eps = 0;
  bool tie_embeddings = false;
  bool qkv_bias = false;
  bool output_bias = false;  // of o_proj
  bool mlp_bias = false;
  bool qk_norm = false;                // RMS norm on each head of q and k (Qwen3)
  int sliding_window = 0;              // 0: none
  std::vector<float> inv_freq;         // [head_dim / 2], with rope scaling applied
  std::vector<int32_t> eos_token_ids;  // from config.json and generation_config.json
  int32_t bos_token_id = -1;           // -1: none

  int q_size() const { return heads * head_dim; }
  int kv_size() const { return kv_heads * head_dim; }
  int qkv_size() const { return q_size() + 2 * kv_size(); }
};

// Reads `model_dir`/config.json (and generation_config.json if there). InvalidArgument or
// Unimplemented names the field.
absl::StatusOr<ModelConfig> LoadModelConfig(const std::filesystem::path& model_dir);
absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view config_json,
                                             std::string_view generation_config_json = "");

}  // namespace lorad
